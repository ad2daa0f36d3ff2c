"""The networks: windows, folds, scalers, export; each setting changes something."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.config import dotted_keys
from training.domains.market import decisions as of_market
from training.domains.market.networks.families import Gru, ITransformer, Lstm, PatchTst, Tcn, Tft
from training.domains.market.networks.scaling import Scaler, fitted
from training.domains.market.networks.together import BATCH
from training.domains.market.networks.windows import complete, views
from training.errors import DataError
from training.export.onnx import write_onnx
from training.export.proof import compare, module_run, session, trial_inputs
from training.export.trace import trace
from training.recipe import TrainingProgress

from .random_decisions import BARS, rows_of, some_decisions, splits

SMALL = {
    Lstm: {"window": 5, "width": 8, "layers": 1, "dropout": 0.0},
    Gru: {"window": 5, "width": 8, "layers": 1, "dropout": 0.0},
    Tcn: {"window": 8, "width": 8, "layers": 2, "kernel": 3, "dropout": 0.0},
    PatchTst: {"window": 8, "patch": 4, "stride": 2, "width": 8, "heads": 2, "layers": 1, "dropout": 0.0},
    Tft: {"window": 5, "width": 8, "heads": 2, "dropout": 0.0},
    ITransformer: {"window": 5, "width": 8, "heads": 2, "layers": 1, "dropout": 0.0},
}
EVERY = pytest.mark.parametrize("kind", SMALL, ids=lambda kind: kind.family)
START = TrainingProgress(0, 1)


def recipe(kind, folds: int = 2, **model):
    settings = {"model": SMALL[kind] | model, "folds": {"count": folds, "purge": 2, "embargo": 10}}
    return kind(kind.settings_type(**settings))


def built(kind, **model):
    made = recipe(kind, **model)
    rows = splits(some_decisions())["train"]
    torch.manual_seed(0)
    return made, made.build(made.fit_constants(rows)), made.dataset(rows, True)


def batch_of(dataset, index):
    return dataset.collate([dataset.item(0, int(at)) for at in index])


def test_a_window_is_a_view_that_ends_at_its_decision_inside_one_stretch():
    features, run = some_decisions(3).features, some_decisions(3).run
    window = views(features, 5)
    assert np.shares_memory(window, features)
    assert np.array_equal(window[7], features[7:12])
    inside = complete(run, 5)
    assert np.flatnonzero(~inside).tolist() == [day * BARS + bar for day in range(3) for bar in range(4)]
    made = recipe(Lstm)
    dataset = made.dataset(rows_of(some_decisions(3), range(3)), True)
    assert np.shares_memory(dataset.item(0, 0)["window"], dataset.features)
    assert len(dataset) == 3 * (BARS - 4)


def test_a_window_longer_than_every_stretch_is_refused_with_the_remedy():
    with pytest.raises(DataError, match=r"model\.window"):
        recipe(Lstm, window=BARS + 1).dataset(splits(some_decisions())["train"], True)


def test_the_scaler_of_a_fold_knows_nothing_of_its_held_part():
    rows = splits(some_decisions())["train"]
    other = some_decisions()
    other.features[: len(other) // 3] += 100  # the held part of the first fold
    made = recipe(Lstm)
    one, two = (made.fit_constants(of) for of in (rows, splits(other)["train"]))
    same = (one["median"] == two["median"]).all(1)
    assert same.tolist() == [True, False, False]
    assert one["scale"].dtype == np.float32


def test_the_scaler_clips_and_leaves_constants_finite():
    features = np.array([[0, 1], [0, 1], [0, 1], [0, 1], [9, 1]], np.float32)
    scaled = Scaler(*fitted(features))(torch.from_numpy(features))
    assert torch.isfinite(scaled).all() and scaled[0].tolist() == [0, 0]
    assert Scaler(np.zeros(1, np.float32), np.ones(1, np.float32))(torch.tensor([[99.0]])).item() == 5


@EVERY
def test_a_fold_network_is_not_trained_on_its_held_part(kind):
    made, model, dataset = built(kind)
    held = np.flatnonzero(dataset.weight[:, 0] == 0)
    assert 0.3 < len(held) / len(dataset) < 0.7
    batch = batch_of(dataset, held[:8])
    losses, counts = made.losses(model.train(), batch, START), made.counts(batch)
    assert counts["network0"] == 0 and counts["network1"] > 0
    sum(loss.total for loss in losses.values()).backward()
    gradients = [[p.grad for p in network.parameters()] for network in model.networks]
    moved = [any(grad is not None and bool(grad.abs().sum() > 0) for grad in of) for of in gradients]
    assert moved == [False, True, True]


@EVERY
def test_every_network_learns(kind):
    made, model, dataset = built(kind)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    random, first, last = np.random.default_rng(0), [], []
    for step in range(60):
        batch = batch_of(dataset, random.integers(len(dataset), size=64))
        counts = made.counts(batch)
        losses = {name: loss.total / counts[name] for name, loss in made.losses(model, batch, START).items()}
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        {0: first, 59: last}.get(step, []).extend(float(loss.detach()) for loss in losses.values())
    assert all(after < 0.9 * before for before, after in zip(first, last, strict=True)), (first, last)


@EVERY
def test_probabilities_are_those_of_each_window_whatever_lies_beside_it(kind):
    """The bits of a prediction do not depend on which other decisions are predicted with it."""
    _, model, _ = built(kind)
    decisions, window = some_decisions(20), SMALL[kind]["window"]
    model.eval()

    def given(begin: int, end: int) -> np.ndarray:
        columns = [of[begin:end] for of in (decisions.features, decisions.run, decisions.decided)]
        return np.stack([model.predict(number, *columns) for number in range(3)])

    found = given(0, len(decisions))
    assert found.shape == (3, len(decisions), 3) and len(decisions) > 2 * BATCH
    assert np.array_equal(np.isnan(found[0, :, 0]), ~complete(decisions.run, window))
    for begin, end in ((7 * BARS + 3, 9 * BARS + 13), (5 * BARS, 5 * BARS + window)):
        part = given(begin, end)
        kept = ~np.isnan(part[0, :, 0])
        assert kept.any() and np.array_equal(part[:, kept], found[:, begin:end][:, kept])


@EVERY
def test_the_exported_file_gives_the_probabilities_of_the_final_network(kind, tmp_path):
    made, model, _ = built(kind)
    (graph,) = made.graphs(model.eval())
    write_onnx(graph, trace(graph), tmp_path / "net.onnx", {})
    cases = [(sizes, given, module_run(graph)(given)) for sizes, given in trial_inputs(graph)]
    trials = compare(session(tmp_path / "net.onnx"), cases)
    assert len(trials) == 2 and all(trial.worst < 1e-5 for trial in trials), trials
    decisions = some_decisions(2)
    index = [10, 11, 12]
    windows = views(decisions.features, made.settings.model.window)
    given = np.stack([windows[at - made.settings.model.window + 1] for at in index])
    found = session(tmp_path / "net.onnx")({"window": given})["proba"]
    wanted = model.predict(-1, decisions.features, decisions.run, decisions.decided)[index]
    assert np.abs(found - wanted).max() < 1e-6


CHANGES = {"window": 7, "width": 16, "layers": 3, "kernel": 2, "patch": 3, "stride": 3, "heads": 4, "dropout": 0.5}


@EVERY
def test_every_setting_of_the_model_changes_its_output(kind):
    own = [key.removeprefix("model.") for key in dotted_keys(kind.settings_type) if key.startswith("model.")]
    assert set(own) == set(SMALL[kind])

    def output(**changed) -> np.ndarray:
        _, model, _ = built(kind, **changed)
        torch.manual_seed(1)
        x = torch.from_numpy(views(some_decisions().features, model.window)[:4].copy())
        return model.train()(x).detach().numpy()

    assert np.array_equal(output(), output())
    for key in own:
        assert not np.array_equal(output(), output(**{key: CHANGES[key]})), key


def test_the_number_of_folds_is_the_number_of_networks_but_the_last():
    made = recipe(Gru, folds=3)
    assert len(made.build(made.fit_constants(splits(some_decisions())["train"])).networks) == 4


def test_columns_of_decisions_are_not_copied_by_a_dataset():
    rows = splits(some_decisions())["train"]
    found, _ = of_market.of_rows(rows)
    assert np.shares_memory(recipe(Lstm).dataset(rows, True).features, found.features)
