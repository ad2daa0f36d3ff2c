"""Decoding begins as ridge from delayed voxels, sees training rows alone, and leaves as it was trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.domains.brain.decoding import linear
from training.domains.brain.decoding.judging import Held, judge
from training.domains.brain.decoding.recipe import DecodingRecipe
from training.domains.brain.decoding.settings import DecodingSettings
from training.domains.brain.evaluation import measures
from training.domains.brain.evaluation.measures import Moments, matching_p, recognised
from training.domains.brain.features.bank import joined
from training.domains.brain.material import Material, Rows, stretches
from training.domains.brain.regression import dual, ridge
from training.export.onnx import write_onnx
from training.export.proof import compare, module_run, session, trial_inputs
from training.export.trace import trace
from training.recipe import TrainingProgress

SETTINGS = DecodingSettings(
    model={"rank": 160, "width": 8, "dropout": 0.0}, windows={"volumes": 32}, data={"batch_size": 2}
)


@pytest.fixture(scope="module")
def recipe() -> DecodingRecipe:
    return DecodingRecipe(SETTINGS)


@pytest.fixture(scope="module")
def material(splits):
    return Material.of(splits["train"])


@pytest.fixture(scope="module")
def held(material, splits):
    return Held.of(material, Rows.of(splits["test"]), max(linear.delays_of(1.5)))


@pytest.mark.parametrize(
    ("tr", "delays"), [(1.5, (2, 3, 4, 5)), (2.0, (1, 2, 3, 4)), (6.0, (1,)), (0.8, (3, 4, 5, 6, 7, 8, 9, 10))]
)
def test_a_moment_is_read_from_the_volumes_of_its_response(tr, delays):
    assert linear.delays_of(tr) == delays


def test_the_dual_form_is_ridge():
    random = np.random.default_rng(1)
    parts = [random.standard_normal((60, 40)).astype(np.float32) for _ in range(3)]
    x = np.concatenate(parts, 1)
    y = (x[:, :5] + random.standard_normal((60, 5))).astype(np.float32)
    found = dual.fit(dual.gram(parts), y, [30, 30], alphas=[0.3])
    alpha = 0.3 * (x.astype(np.float64) ** 2).sum() / 60
    expected = ridge.solve(x, y, [alpha])[0]
    assert np.abs(np.concatenate(found.weights(parts)) - expected).max() < 1e-5
    assert np.abs(found.fitted - x @ expected).max() < 1e-4


def test_each_feature_has_the_penalty_that_its_folds_prefer():
    random = np.random.default_rng(2)
    x = random.standard_normal((200, 50)).astype(np.float32)
    signal, noise = x[:, 0] * 3, random.standard_normal(200)
    found = dual.fit(dual.gram([x]), np.stack([signal, noise], 1), [200])
    assert found.alpha[0] == min(dual.RELATIVE) and found.alpha[1] > 10


def test_it_begins_as_ridge_from_delayed_voxels(recipe, splits, model, material, held):
    expected = linear.ridge(material).decode
    decode = recipe.decoder(model, splits["test"])
    for subject in held.subjects:
        for bold in held.bold[subject]:
            own, other = decode(subject, bold), expected(subject, bold)
            assert own.shape == other.shape and np.abs(own - other).max() < 1e-4


def test_a_bottleneck_narrower_than_the_features_keeps_what_ridge_predicts_most(splits, material, held):
    narrow = DecodingRecipe(SETTINGS.model_copy(update={"model": SETTINGS.model.model_copy(update={"rank": 4})}))
    model = narrow.build(narrow.fit_constants(splits["train"])).eval()
    decode, ridge_of = narrow.decoder(model, splits["test"]), linear.ridge(material).decode
    for subject in held.subjects:
        own, full = (np.concatenate([one(subject, bold) for bold in held.bold[subject]]) for one in (decode, ridge_of))
        assert 0.1 < ((own - full) ** 2).sum() / (full**2).sum() < 0.9
        assert np.linalg.matrix_rank(own, tol=1e-3) == 4


def test_validation_windows_hold_every_moment_once_with_its_later_volumes(recipe, splits, model, material):
    dataset = recipe.dataset(splits["val"], training=False)
    ahead, decode = model.ahead, recipe.decoder(model, splits["val"])
    rows = Rows.of(splits["val"])
    ((begin, end),) = stretches(rows.runs["1"].spans["02"])
    bold = material.bold(rows, "02", "1", begin, end)
    true, expected = joined(material.bank(rows.runs["1"].stimulus)), decode("02", bold)
    seen = np.zeros(end - begin, int)
    for number, (_, _, at, _) in enumerate(dataset.places):
        batch = dataset.collate([dataset.item(0, number)])
        with torch.no_grad():
            decoded, measured = model(batch)
        chosen = batch["valid"][0, 1].bool().numpy()
        moments = at + np.flatnonzero(chosen)
        seen[moments - begin] += 1
        assert np.abs(decoded[0, 1, chosen].numpy() - expected[moments - begin]).max() < 1e-3
        assert np.abs(measured[0, 1, chosen].numpy() - true[moments]).max() < 1e-4
    assert (seen[: end - begin - ahead] == 1).all() and not seen[end - begin - ahead :].any()


def test_the_loss_is_one_for_a_decoder_that_knows_nothing(recipe, splits, model):
    dataset = recipe.dataset(splits["train"], training=False)
    torch.nn.init.zeros_(model.readout)
    total = count = 0.0
    for number in range(len(dataset)):
        batch = dataset.collate([dataset.item(0, number)])
        total += recipe.losses(model, batch, TrainingProgress(0, 1))["mse"].total.item()
        count += recipe.counts(batch)["mse"]
    assert total / count == pytest.approx(1, abs=0.05)


def test_a_step_trains_every_parameter_but_the_first_layers_of_a_residual_of_zero(recipe, splits, model):
    dataset = recipe.dataset(splits["train"], training=True)
    batch = dataset.collate([dataset.item(0, 0), dataset.item(0, 1)])
    recipe.losses(model, batch, TrainingProgress(0, 1))["mse"].total.backward()
    still = {name for name, parameter in model.named_parameters() if not parameter.grad.any()}
    assert still == {"residual.0.weight", "residual.0.bias", "residual.1.weight", "residual.1.bias"}


def test_nothing_is_decoded_from_volumes_of_a_gap(held):
    for name, begin, end in held.blocks:
        (last,) = [stop for run, first, stop in held.stretches if run == name and first <= begin < stop]
        assert end <= last - held.ahead


def test_ridge_decodes_the_film_and_the_null_does_not(material, held):
    true = held.measured()

    def r(decoder):
        decoded = held.decoded(decoder.decode)
        return np.mean([Moments.of(decoded[one], true).correlations().mean() for one in held.subjects])

    assert r(linear.ridge(material)) > 0.1 > abs(r(linear.ridge(material, rolled=True)))


def test_true_features_are_learnt_and_noise_is_not(material, splits, held, monkeypatch):
    monkeypatch.setattr(measures, "LEAST_UNITS", 2)  # the laboratory's test has no more
    known = {
        float(bold[0, 0]): held.true[name][begin : end - held.ahead]
        for (name, begin, end), bold in zip(held.stretches, held.bold["01"], strict=True)
    }

    def perfect(subject, bold):
        stretch = next(number for number, one in enumerate(held.bold[subject]) if one[0, 0] == bold[0, 0])
        return known[float(held.bold["01"][stretch][0, 0])]

    def noise(subject, bold):
        size = len(bold) - held.ahead, next(iter(held.true.values())).shape[1]
        return np.random.default_rng(int(subject)).standard_normal(size).astype(np.float32)

    found = judge(perfect, material, splits["test"], 0)
    assert found.verdict.word == "learnt", found.verdict
    assert found.metrics["decode_r"].model.value > 0.95 and found.metrics["matching"].model.value == 1
    more = found.more["decoding"]
    assert all(one["right"] == more["segments"] and one["p"] < 0.1 for one in more["subjects"].values())
    assert more["chance"] == 1 / more["segments"] and set(more["bands"]) == {"pixels", "motion", "sound", "words"}
    found = judge(noise, material, splits["test"], 0)
    assert found.verdict.word == "not learnt" and abs(found.metrics["decode_r"].model.value) < 0.1


def test_a_segment_is_recognised_if_it_is_most_like_its_own_measurement():
    random = np.random.default_rng(5)
    measured = [random.standard_normal((27, 4)), random.standard_normal((20, 4))]
    predicted = [part.copy() for part in measured]
    assert recognised(predicted, measured).tolist() == [True] * 5
    predicted[0][:9], predicted[0][9:18] = measured[0][9:18], measured[0][:9].copy()
    assert recognised(predicted, measured).tolist() == [False, False, True, True, True]


def test_subjects_that_err_alike_are_no_evidence():
    """Four subjects who choose the same segments count as one in the permutations: by a binomial they would not."""
    random = np.random.default_rng(0)
    found = []
    for seed in range(200):
        chosen = np.tile(random.integers(0, 9, 9), (4, 1))
        found.append(matching_p(chosen, seed, permutations=200))
    assert np.mean(np.array(found) < 0.05) <= 0.08
    assert matching_p(np.tile(np.arange(9), (4, 1)), 0) < 0.001


def test_features_are_given_back_as_what_they_stand_for(model, material):
    stimulus = material.train.runs["1"].stimulus
    bands = {band: torch.from_numpy(np.array(stimulus.bands[band])) for band in model.features.bands}
    features = model.features(bands)
    given = dict(zip(model.features.bands, model.features.inverse(features), strict=True))
    assert torch.allclose(given["sound"], bands["sound"], atol=1e-3)
    left, spread = (given["pixels"] - bands["pixels"]).square().mean(), bands["pixels"].var(0).mean()
    assert left < 0.3 * spread


def test_exported_files_compute_what_the_model_does(recipe, model, tmp_path):
    graphs = recipe.graphs(model)
    assert [graph.name for graph in graphs] == ["decoding_map_01", "decoding_map_02", "decoding_map_03",
                                                  "decoding_features"]  # fmt: skip
    for graph in (graphs[0], graphs[-1]):
        path = tmp_path / f"{graph.name}.onnx"
        write_onnx(graph, trace(graph), path, {})
        cases = [(sizes, inputs, module_run(graph)(inputs)) for sizes, inputs in trial_inputs(graph)]
        assert max(trial.worst for trial in compare(session(path), cases)) < graph.tolerance


def test_exported_files_decode_what_the_recipe_decodes(recipe, model, splits, held):
    maps, features = recipe.graphs(model)[1], recipe.graphs(model)[-1]
    (bold, *_) = held.bold["02"]
    with torch.no_grad():
        out = features.module(maps.module(torch.from_numpy(bold)))[0][: -held.ahead].numpy()
    assert np.abs(out - recipe.decoder(model, splits["test"])("02", bold)).max() < 1e-4
