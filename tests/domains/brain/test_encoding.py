"""The encoding model: it begins as ridge of reduced rank, sees training rows alone, and leaves as it was trained."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import torch

from tests.domains.brain.conftest import SETTINGS, SUBJECTS, TR, VOLUMES, changed, options_of
from training.domains.brain.bold.values import raw
from training.domains.brain.encoding import maps
from training.domains.brain.encoding.model import Encoder, Head, standardised
from training.domains.brain.encoding.predict import predict
from training.domains.brain.encoding.recipe import EncodingRecipe
from training.domains.brain.evaluation.judging import held_of
from training.domains.brain.evaluation.measures import Moments
from training.domains.brain.material import Material, Rows, index_of
from training.domains.brain.regression import baselines
from training.domains.brain.rows import BOLD_PATH
from training.errors import UsageError
from training.export.onnx import write_onnx
from training.export.proof import compare, module_run, session, trial_inputs
from training.export.trace import trace
from training.recipe import TrainingProgress


@pytest.fixture(scope="module")
def recipe() -> EncodingRecipe:
    return EncodingRecipe(SETTINGS)


def test_garbage_in_training_volumes_does(recipe, splits, constants):
    span = (splits["train"][0].values["begin"], splits["train"][0].values["end"])
    assert not np.array_equal(recipe.fit_constants(changed(splits["train"], [span]))["heads"], constants["heads"])


def test_it_begins_as_ridge_of_reduced_rank(recipe, splits, model):
    material = Material.of(splits["train"])
    linear = baselines.banded_ridge(material, SETTINGS.seed, searches=SETTINGS.warm_start.searches)
    expected, _ = baselines.reduced_rank(material, linear, SETTINGS.model.rank)
    predict = recipe.predictor(model, splits["val"])
    for subject in material.train.subjects:
        row = splits["val"][0].values
        own = predict(subject, "1", row["begin"], row["end"])
        assert np.abs(own - expected.predict(subject, "1", row["begin"], row["end"])).max() < 1e-4


def test_a_window_gives_the_prediction_and_the_measurement_of_the_complete_run(recipe, splits, model):
    material = Material.of(splits["train"])
    dataset = recipe.dataset(splits["val"], training=False)
    predict = recipe.predictor(model, splits["val"])
    for number, (_, _, begin, last) in enumerate(dataset.places):
        end = min(begin + dataset.window, last)
        with torch.no_grad():
            predicted, measured = model(dataset.collate([dataset.item(0, number)]))
        for place, subject in enumerate(material.train.subjects):
            assert np.abs(predicted[0, place, : end - begin].numpy() - predict(subject, "1", begin, end)).max() < 1e-4
            expected = material.bold(Rows.of(splits["val"]), subject, "1", begin, end)
            assert np.abs(measured[0, place, : end - begin].numpy() - expected).max() < 1e-3


def test_training_windows_lie_in_training_rows_and_move_with_the_epoch(recipe, splits):
    dataset = recipe.dataset(splits["train"], training=True)
    train = np.unique(np.concatenate([index_of([(r.values["begin"], r.values["end"])]) for r in splits["train"]]))
    seen = set()
    for epoch in range(3):
        for number in range(len(dataset)):
            item, again = dataset.item(epoch, number), dataset.item(epoch, number)
            assert all(np.array_equal(item[name], again[name]) for name in item)
            record = splits["train"][0].records[BOLD_PATH]
            count = int(item["present"][0].sum())
            every = raw(record, np.arange(len(record["index"])))
            place = np.flatnonzero((every[:, dataset.columns[0, 0]] == item["bold"][0, 0]).all(1))
            assert len(place) == 1 and np.isin(np.arange(place[0], place[0] + count), train).all()
            seen.add(int(place[0]))
    assert len(seen) > len(dataset)


def test_raw_bold_is_standardised_in_float32_under_mixed_precision(recipe, splits, model):
    dataset = recipe.dataset(splits["val"], training=False)
    batch = dataset.collate([dataset.item(0, 0)])
    exact = standardised(batch, model.drift, model.spread)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(standardised(batch, model.drift, model.spread), exact)


def test_absent_subjects_count_nothing(recipe, splits, model):
    without = [row for row in splits["val"] if row.values["subject"] != "02"]
    dataset = recipe.dataset(without, training=False)
    batch = dataset.collate([dataset.item(0, 0)])
    assert batch["bold"].shape[1] == SUBJECTS and not batch["present"][0, 1].any()
    full = recipe.dataset(splits["val"], training=False)
    complete = full.collate([full.item(0, 0)])
    assert recipe.counts(batch)["mse"] == recipe.counts(complete)["mse"] * (SUBJECTS - 1) / SUBJECTS
    before = recipe.losses(model, batch, TrainingProgress(0, 1))["mse"].total
    batch["bold"][0, 1] = 1e6
    assert recipe.losses(model, batch, TrainingProgress(0, 1))["mse"].total == before


def test_volumes_that_a_subject_has_not_within_a_window_count_nothing(recipe, splits, model):
    """The subject stopped in the middle of the window: neither loss nor gradient nor metric depends on the rest."""
    (row, *_) = [row for row in splits["val"] if row.values["subject"] == "02"]
    begin, end = row.values["begin"], row.values["end"]
    middle = (begin + end) // 2
    short = replace(row, values={**row.values, "end": middle})
    dataset = recipe.dataset([short if other is row else other for other in splits["val"]], training=False)
    place = next(number for number, of in enumerate(dataset.places) if of[2] == begin)
    batch = dataset.collate([dataset.item(0, place)])
    present = batch["present"][0, 1]
    assert present[: middle - begin].all() and not present[middle - begin :][: end - middle].any()
    assert batch["present"][0, 0, : end - begin].all()
    count = recipe.counts(batch)["mse"]
    assert count == float(batch["present"].sum()) * batch["bold"].shape[-1]

    def outcome() -> list[torch.Tensor]:
        model.zero_grad()
        loss = recipe.losses(model, batch, TrainingProgress(0, 1))["mse"].total
        loss.backward()
        sums = [total.detach() for total, _ in recipe.validate(model, batch).values()]
        return [loss.detach(), *(parameter.grad.clone() for parameter in model.parameters()), *sums]

    before = outcome()
    batch["bold"][0, 1, middle - begin : end - begin] = 1e6
    assert all(torch.equal(one, other) for one, other in zip(before, outcome(), strict=True))
    batch["bold"][0, 1, 0] += 1e3
    assert not torch.equal(before[0], outcome()[0])


def test_the_validated_correlation_is_that_of_the_evaluation(recipe, splits, model):
    dataset = recipe.dataset(splits["val"], training=False)
    totals: dict[str, list] = {}
    with torch.no_grad():
        for number in range(len(dataset)):
            for name, (total, count) in recipe.validate(model, dataset.collate([dataset.item(0, number)])).items():
                entry = totals.setdefault(name, [0, 0])
                entry[0], entry[1] = entry[0] + total, entry[1] + count
    found = recipe.summarise({name: (total / count).numpy() for name, (total, count) in totals.items()})
    material = Material.of(splits["train"])
    held = held_of(material, Rows.of(splits["val"]))
    own = held.predicted(recipe.predictor(model, splits["val"]))
    assert found["val_r"] == pytest.approx(float(held.moments(own).correlations().mean()), abs=1e-4)


def test_a_step_trains_every_parameter_but_the_first_layers_of_a_residual_of_zero(recipe, splits, model):
    dataset = recipe.dataset(splits["train"], training=True)
    batch = dataset.collate([dataset.item(0, 0), dataset.item(0, 1)])
    recipe.losses(model, batch, TrainingProgress(0, 1))["mse"].total.backward()
    still = {name for name, parameter in model.named_parameters() if not parameter.grad.any()}
    assert still == {"residual.0.weight", "residual.0.bias", "residual.1.weight", "residual.1.bias"}


def test_exported_files_compute_what_the_model_does(recipe, model, tmp_path):
    for graph in recipe.graphs(model)[:2]:
        path = tmp_path / f"{graph.name}.onnx"
        write_onnx(graph, trace(graph), path, {})
        cases = [(sizes, inputs, module_run(graph)(inputs)) for sizes, inputs in trial_inputs(graph)]
        assert max(trial.worst for trial in compare(session(path), cases)) < graph.tolerance


def test_a_head_gives_bold_in_the_units_of_its_file(model, splits):
    latent = torch.zeros(2, SETTINGS.model.rank)
    z, bold = Head(model, 0)(latent)
    assert not z.any()
    record = splits["train"][0].records[BOLD_PATH]
    mean = raw(record, np.arange(len(record["index"]))).mean(0)
    assert np.median(np.abs(bold[0].detach().numpy() - mean) / mean) < 0.02


def test_the_encoder_looks_at_no_volume_to_come(model, splits):
    dataset = EncodingRecipe(SETTINGS).dataset(splits["val"], training=False)
    stimulus = dataset.stimuli[0]
    bands = [torch.from_numpy(np.array(stimulus.bands[band])) for band in model.features.bands]
    with torch.no_grad():
        before = Encoder(model)(*bands)
        for band in bands:
            band[100:] += 50
        after = Encoder(model)(*bands)
    assert torch.equal(before[:100], after[:100]) and not torch.equal(before[100:], after[100:])


def test_a_planted_voxel_comes_back_in_its_place_in_a_map(recipe, splits, model, world, tmp_path):
    """The map of a prediction that knows one voxel alone has that voxel, at its millimetres."""
    rows = Rows.of(splits["val"])
    planted = 77
    material = Material.of(splits["train"])

    def predict(subject, run, begin, end):
        out = np.random.default_rng(begin).standard_normal((end - begin, len(rows.voxels))).astype(np.float32)
        out[:, planted] = material.bold(rows, subject, run, begin, end)[:, planted]
        return out

    written = maps.write(predict, model, splits["val"], tmp_path)
    names = [f"{kind}_sub-{number:02}.nii.gz" for number in (1, 2, 3) for kind in ("r", "ceiling", "share", "q")]
    assert [path.name for path in written] == [*names, "r.png", "slices.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written[-2:])
    image = nibabel.load(written[0])
    source = nibabel.load(splits["val"][0].values[BOLD_PATH])
    assert np.array_equal(image.affine, source.affine) and image.shape == source.shape[:3]
    values = image.get_fdata()
    place = np.unravel_index(values.argmax(), values.shape)
    assert place == np.unravel_index(rows.voxels[planted], values.shape)
    assert values.max() == pytest.approx(1, abs=1e-3)
    assert not values[~world.mask].any()
    assert image.header["sform_code"] == source.header["sform_code"]
    q = nibabel.load(tmp_path / "q_sub-01.nii.gz")
    assert q.header.get_intent()[0] == "p value" and (q.get_fdata()[~world.mask] == 1).all()
    assert np.argwhere(q.get_fdata() < 0.05).tolist() == [[*map(int, place)]]
    ceiling, share = (nibabel.load(tmp_path / f"{kind}_sub-01.nii.gz").get_fdata() for kind in ("ceiling", "share"))
    known = ceiling >= 0.05
    assert known.any() and share[known] == pytest.approx(values[known] / ceiling[known], rel=1e-4)
    assert not share[~known].any()


def test_the_bold_that_a_film_would_evoke_is_that_of_the_model_on_the_grid(
    recipe, splits, model, laboratory, prepared, tmp_path
):
    """The film of the training, as a new one: what the model predicts of the run."""
    options = {name: path for name, path in options_of(laboratory).items() if name != "fmri"}
    lines: list[str] = []
    job = replace(prepared[0], options=options | {"out": tmp_path / "new"}, say=lines.append)

    def load(name):
        return SimpleNamespace(model=model)

    predict(job, (), load)
    rows = Rows.of(splits["val"])
    expected = recipe.predictor(model, splits["val"])("02", "1", 0, VOLUMES)
    image = nibabel.load(tmp_path / "new" / "sub-02_bold.nii.gz")
    values = image.get_fdata(dtype=np.float32).reshape(-1, VOLUMES)
    assert values[rows.voxels] == pytest.approx(expected.T, abs=1e-5) and image.header.get_zooms()[3] == TR
    assert np.array_equal(image.affine, rows.affine) and not np.delete(values, rows.voxels, 0).any()
    assert len(list((tmp_path / "new").iterdir())) == SUBJECTS and "3 subjects, 300 volumes" in lines[-1]
    with pytest.raises(UsageError, match="trained on words, which are missing here: give --annotations"):
        predict(replace(job, options={**job.options, "annotations": None}), (), load)


def test_moments_of_an_empty_choice_are_an_error():
    moments = Moments.of([np.ones((3, 2), np.float32)], [np.ones((3, 2), np.float32)])
    with pytest.raises(ValueError, match="no voxel"):
        moments.mean_of(np.zeros(2, bool))
