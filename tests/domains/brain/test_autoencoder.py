"""The autoencoder begins as ridge with a least-squares decoder, and its loss is what its settings say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.domains.brain import conftest
from training.domains.brain.autoencoder import pictures
from training.domains.brain.autoencoder.objective import correlation, fmri_count, fmri_total, shares
from training.domains.brain.autoencoder.recipe import AutoencoderRecipe
from training.domains.brain.autoencoder.reconstruction import judge_reconstruction
from training.domains.brain.autoencoder.settings import AutoencoderSettings
from training.domains.brain.encoding.recipe import EncodingRecipe
from training.domains.brain.material import Material, Rows
from training.export.onnx import write_onnx
from training.export.proof import compare, module_run, session, trial_inputs
from training.export.trace import trace
from training.recipe import TrainingProgress

SETTINGS = AutoencoderSettings(**conftest.SETTINGS.model_dump())


@pytest.fixture(scope="module")
def recipe() -> AutoencoderRecipe:
    return AutoencoderRecipe(SETTINGS)


@pytest.fixture
def batch(recipe, splits):
    dataset = recipe.dataset(splits["train"], training=False)
    return dataset.collate([dataset.item(0, 0), dataset.item(0, 1)])


def test_its_bold_is_that_of_the_encoding_model_before_a_step(splits, constants, model, batch):
    encoding = EncodingRecipe(conftest.SETTINGS)
    torch.manual_seed(0)
    other = encoding.build({name: constants[name] for name in encoding.fit_constants(splits["train"])}).eval()
    with torch.no_grad():
        assert torch.allclose(model(batch)[0], other(batch)[0], atol=1e-6)


def test_the_decoder_is_the_least_squares_map_from_the_bottleneck(splits, constants):
    features = Material.of(splits["train"]).features["1"]
    rows = np.concatenate([np.arange(begin, end) for _, begin, end in Rows.of(splits["train"]).spans()])
    u = features[rows].astype(np.float64) @ constants["bottleneck"][0]
    left = features[rows] - u @ constants["decoder"]
    assert np.abs(u.T @ left).max() < 1e-2 * np.abs(u.T @ features[rows]).max()
    assert 0.05 < (left**2).mean() < 0.98


def test_a_reconstruction_by_the_mean_has_a_loss_of_one(splits, recipe, model):
    torch.nn.init.zeros_(model.decoder)
    dataset = recipe.dataset(splits["train"], training=False)
    sums: dict[str, np.ndarray] = {}
    for number in range(len(dataset)):
        with torch.no_grad():
            found = recipe.validate(model, dataset.collate([dataset.item(0, number)]))
        for name in ("video", "audio", "text"):
            sums[name] = sums.get(name, 0) + np.array([float(part) for part in found[name]])
    assert {name: of[0] / of[1] for name, of in sums.items()} == pytest.approx(
        {"video": 1, "audio": 1, "text": 1}, abs=0.02
    )


def test_the_correlation_is_over_time_and_blind_to_scale_and_level(batch):
    random = torch.Generator().manual_seed(0)
    y = torch.randn(2, 3, 40, 5, generator=random)
    present = torch.ones(2, 3, 40)
    present[0, 0, 20:] = 0  # half of a window: too short to be trained
    assert fmri_count("correlation", present, 5) == 5 * 5
    assert float(fmri_total("correlation", 3 * y + 7, y, present)) == pytest.approx(0, abs=1e-3)
    assert float(fmri_total("correlation", -y, y, present)) == pytest.approx(2 * 25, abs=1e-3)
    constant = y.mean(2, keepdim=True).expand_as(y)  # right for every voxel on average: it knows nothing over time
    assert float(fmri_total("correlation", constant, y, present)) == pytest.approx(25, abs=1e-3)
    r = correlation(y + 1e3 * (1 - present[..., None]), y, present[..., None])
    assert float(r[0, 0].min()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("kind", "expected"), [("mse", 4.0), ("mae", 2.0)])
def test_errors_count_where_a_subject_has_the_volume(kind, expected):
    present = torch.ones(1, 2, 6)
    present[0, 1] = 0
    y = torch.zeros(1, 2, 6, 3)
    p = y + 2
    assert float(fmri_total(kind, p, y, present)) / fmri_count(kind, present, 3) == expected


def test_the_share_of_the_gradient_follows_the_weights(recipe, model, batch):
    def share(**changes):
        settings = SETTINGS.model_copy(update={"loss": SETTINGS.loss.model_copy(update=changes)})
        found = recipe.with_settings(settings).losses(model, batch, TrainingProgress(0, 1))["share_fmri"]
        assert found.coefficient == 0
        return float(found.total)

    torch.nn.init.normal_(model.decoder, generator=torch.Generator().manual_seed(1))
    assert share(reconstruction_weight=0.0) == 1
    assert share(fmri_weight=0.0) == 0
    assert 0 < share(reconstruction_weight=20.0) < share() < 1


def test_shares_are_norms_of_gradients():
    u = torch.tensor([1.0, 2.0], requires_grad=True)
    found = shares({"one": (3 * u).sum(), "other": (u * u).sum(), "none": torch.zeros(())}, u)
    one, other = 3 * 2**0.5, (4 + 16) ** 0.5
    assert found == pytest.approx({"one": one / (one + other), "other": other / (one + other), "none": 0})


def test_a_step_trains_bottleneck_heads_and_decoder(recipe, model, batch):
    terms, counts = recipe.losses(model, batch, TrainingProgress(0, 1)), recipe.counts(batch)
    assert terms.keys() == counts.keys()
    sum(loss.total * loss.coefficient / counts[name] for name, loss in terms.items()).backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None
               and parameter.grad.any()}  # fmt: skip
    assert {"bottleneck", "kernels", "decoder", "residual.4.weight", "decoder_residual.4.weight"} <= trained
    assert {f"heads.{number}.weight" for number in range(conftest.SUBJECTS)} <= trained


def test_reconstruction_is_judged_beside_the_mean(recipe, splits, model):
    material, rows = Material.of(splits["train"]), Rows.of(splits["test"])
    found = judge_reconstruction(model, rows)
    assert set(found) == {"video_r2", "audio_r2", "text_r2"}
    assert all(metric.baselines["mean"].value == 0 and metric.model.value < 1 for metric in found.values())
    seen = judge_reconstruction(model, material.train)  # rows on which the decoder is fitted
    assert all(metric.model.value > 0.02 for metric in seen.values())
    torch.nn.init.zeros_(model.decoder)
    assert all(abs(one.model.value) < 1e-6 for one in judge_reconstruction(model, rows).values())


def test_pictures_are_given_back_beside_those_that_were_shown_and_the_mean(splits, model, tmp_path):
    rows = Rows.of(splits["val"])
    shown, given, mean = (np.stack([of[place] for _, of in pictures.frames(model, rows)]) for place in range(3))
    assert shown.shape == (pictures.SHOWN, 24, 32, 3) and (mean == mean[0]).all()
    seconds, (first, *_) = pictures.frames(model, rows)[0]
    run = rows.runs[rows.held()[0][0]].stimulus
    row = round((seconds - run.onset) / run.tr)
    assert np.abs(first.reshape(-1) - run.bands["pixels"][row]).max() <= 0.51
    error = [((of.astype(float) - shown) ** 2).mean() for of in (given, mean)]
    assert error[0] < error[1]
    assert pictures.draw(model, rows, tmp_path).stat().st_size > 1_000


def test_the_share_is_that_of_the_model_as_it_is_evaluated(recipe, splits, model):
    assert 0.01 < recipe.share(model, splits["train"]) < 1


def test_exported_files_compute_what_the_model_does(recipe, model, tmp_path):
    graphs = {graph.name.removeprefix("autoencoder_"): graph for graph in recipe.graphs(model)}
    assert list(graphs) == ["encoder", "bottleneck", "decoder", "bold_01", "bold_02", "bold_03"]
    graph = graphs["decoder"]
    path = tmp_path / "decoder.onnx"
    write_onnx(graph, trace(graph), path, {})
    cases = [(sizes, inputs, module_run(graph)(inputs)) for sizes, inputs in trial_inputs(graph)]
    assert max(trial.worst for trial in compare(session(path), cases)) < graph.tolerance
    inputs = tuple(map(torch.from_numpy, graphs["bottleneck"].example({"time": 9}, 0)))
    with torch.no_grad():
        video, *_ = graph.module(graphs["bottleneck"].module(*inputs))
    assert video.shape == (9, 24 * 32 * 3)
