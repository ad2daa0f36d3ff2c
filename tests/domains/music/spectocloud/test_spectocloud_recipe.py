"""The recipe: loss terms, validation with the Chamfer distance, evaluation of the use of the sound, exports."""

import json

import numpy as np
import onnxruntime
import pytest
import torch

from tests.domains.music.spectocloud.corpus import make_row, make_settings
from training.domains.music.spectocloud import judge, listening, loss
from training.domains.music.spectocloud.chamfer import chamfer
from training.domains.music.spectocloud.recipe import TERMS, SpectocloudRecipe
from training.recipe import EvaluationContext, TrainingProgress

EARLY, LATE = TrainingProgress(0, 100), TrainingProgress(99, 100)


@pytest.fixture(scope="module")
def constants(recipe, rows):
    return recipe.fit_constants(rows)


@pytest.fixture(scope="module")
def model(recipe, constants):
    torch.manual_seed(0)
    return recipe.build(constants).eval()


@pytest.fixture(scope="module")
def batch(recipe, rows):
    split = recipe.dataset(rows, training=True)
    return split.collate([split.item(0, i) for i in range(6)])


def part(batch, *places):
    return {key: value[list(places)] for key, value in batch.items()}


def objective(recipe, model, batches, progress):
    """As in the engine: totals of all parts over the sum of their counts."""
    counts = [recipe.counts(b) for b in batches]
    total = {name: sum(c[name] for c in counts) for name in counts[0]}
    terms = [recipe.losses(model, b, progress) for b in batches]
    return sum(t.coefficient * t.total / total[name] for losses in terms for name, t in losses.items())


@pytest.mark.parametrize("progress", [EARLY, LATE])
def test_unequal_micro_batches_add_up_to_the_batch(recipe, model, batch, progress):
    complete = objective(recipe, model, [batch], progress)
    parts = objective(recipe, model, [part(batch, 0, 1, 2, 3), part(batch, 4), part(batch, 5)], progress)
    torch.testing.assert_close(complete, parts)
    assert recipe.counts(batch) == dict.fromkeys(TERMS, 6.0)
    assert set(recipe.losses(model, batch, progress)) == set(TERMS)


def test_training_starts_matched_by_index_and_ends_with_chamfer(recipe, model, batch):
    """pos_loss is the Chamfer distance in both phases."""
    predicted, target = judge.predict(model, batch), judge.target_of(batch)
    exact = chamfer(predicted.positions, target.positions).sum()
    early, late = recipe.losses(model, batch, EARLY), recipe.losses(model, batch, LATE)
    assert (early["match_loss"].coefficient, early["pos_loss"].coefficient) == (1.0, 0.0)
    assert (late["match_loss"].coefficient, late["pos_loss"].coefficient) == (0.0, 1.0)
    torch.testing.assert_close(late["pos_loss"].total, exact)
    torch.testing.assert_close(early["pos_loss"].total, exact, rtol=0.1, atol=0)
    assert not early["pos_loss"].total.requires_grad and late["pos_loss"].total.requires_grad
    torch.testing.assert_close(early["color_loss"].total, loss.matched(predicted, target).color.sum())
    torch.testing.assert_close(late["color_loss"].total, loss.unordered(predicted, target).color.sum())


def test_properties_and_colours_are_learnt(recipe, model, batch):
    for name in ("color_loss", "prop_loss"):
        term = recipe.losses(model, batch, LATE)[name]
        (gradient,) = torch.autograd.grad(term.total * term.coefficient, model.core.particles.shades.weight)
        assert gradient.abs().max() > 0


def test_validation_is_exact_over_any_batches(recipe, model, batch):
    """Averages and correlations of parts of unequal size are those of the complete batch."""
    with torch.no_grad():
        complete = recipe.summarise(judge.average([recipe.validate(model, batch)]))
        parts = [part(batch, 0, 1, 2, 3), part(batch, 4, 5)]
        split = recipe.summarise(judge.average(recipe.validate(model, b) for b in parts))
        predicted, target = judge.predict(model, batch), judge.target_of(batch)
    assert complete == pytest.approx(split, rel=1e-5, abs=1e-5)  # on some CPUs, rounding depends on the batch size
    exact = chamfer(predicted.positions, target.positions).mean().item()
    assert complete["pos_loss"] == pytest.approx(exact, rel=1e-5)
    want = complete["pos_loss"] + 0.5 * complete["color_loss"] + 0.3 * complete["prop_loss"]
    assert complete["val_loss"] == pytest.approx(want)
    sounding = batch["sounding"].bool()
    for name, place, column in (("pitch_r", 0, 1), ("z_r", 0, 2), ("size_r", 2, 0)):
        parts = [cloud[place].unflatten(1, (8, 150))[..., column] for cloud in (predicted, target)]
        means = [values.mean(2)[sounding].numpy() for values in parts]
        assert complete[name] == pytest.approx(np.corrcoef(*means)[0, 1], abs=1e-3)


def test_a_perfect_prediction_has_no_loss_and_full_correlation(recipe, batch):
    perfect = judge.average([judge.measure(judge.target_of(batch), batch)])
    metrics = recipe.summarise(perfect)
    assert metrics["val_loss"] == pytest.approx(0, abs=1e-6)
    assert all(metrics[f"{name}_r"] == pytest.approx(1, abs=1e-4) for name in judge.COMPARED)


def test_constants_are_the_mean_and_deviation_of_the_corpus_s_levelled_windows(recipe, rows, constants):
    windows = []
    for row in rows:
        logmel = row.records["audio_path"]["logmel"].astype(np.float32)
        starts = np.unique(np.linspace(0, len(logmel) - 64, 8).round().astype(int))
        windows += [logmel[start : start + 64] for start in starts]
    frames = np.concatenate([np.maximum(one - one.max(), -11.512925) for one in windows]).astype(np.float64)
    np.testing.assert_allclose(constants["mean"], frames.mean(0), rtol=1e-4)
    np.testing.assert_allclose(constants["std"], [np.sqrt(((frames - frames.mean(0)) ** 2).mean())], rtol=1e-4)
    assert all(value.dtype == np.float32 for value in constants.values())
    again = recipe.fit_constants(rows)
    assert all(np.array_equal(again[name], value) for name, value in constants.items())


def test_steps_of_training_beat_the_mean_cloud(rows):
    """Training on random windows learns from the sound."""
    recipe = SpectocloudRecipe(make_settings(loss={"index_matched": 0.9}, augment={"gain_db": 0.0}))
    torch.manual_seed(0)
    model = recipe.build(recipe.fit_constants(rows)).train()
    optimizer = torch.optim.AdamW(recipe.parameter_groups(model), lr=3e-3)
    split, steps = recipe.dataset(rows, training=True), 60
    for step in range(steps):
        items = [split.item(step, i) for i in range(len(split))]
        loss_now = objective(recipe, model, [split.collate(items)], TrainingProgress(step, steps))
        optimizer.zero_grad()
        loss_now.backward()
        optimizer.step()
    with torch.no_grad():
        held = judge.batches(recipe.dataset(rows, training=False))
        metrics = recipe.summarise(judge.average(recipe.validate(model.eval(), b) for b in held))
    found = judged(recipe, model, rows).metrics
    assert all(found[name].model.value == pytest.approx(value, rel=1e-5) for name, value in metrics.items())
    assert metrics["val_loss"] < 0.9 * found["val_loss"].baselines["mean_cloud"].value


def judged(recipe, model, rows):
    return recipe.evaluate(EvaluationContext(model, rows, rows, 1, None, 1.0))


def test_the_emotion_baseline_predicts_colours_but_not_positions(recipe, model, rows):
    found = judged(recipe, model, rows).metrics
    color = found["color_loss"].baselines
    assert color["emotion_only"].value < 0.3 * color["mean_cloud"].value
    assert found["pos_loss"].baselines["emotion_only"].value > 0.02


class Oracle(torch.nn.Module):
    """Returns the target of the window with the nearest sound or, if `emotion_only`, with the nearest emotion."""

    def __init__(self, split, emotion_only):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))
        self.key, self.known = (1 if emotion_only else 0), []
        for i in range(len(split)):
            batch = split.collate([split.item(0, i)])
            key = (batch["logmel"], batch["emotion"])[self.key][0]
            self.known.append((key, [part[0] + 1e-5 for part in judge.target_of(batch)]))

    def forward(self, *inputs):
        keys = inputs[self.key]
        found = [min(self.known, key=lambda known: float((known[0] - one).abs().sum()))[1] for one in keys]
        return tuple(torch.stack(parts) for parts in zip(*found, strict=True))


@pytest.fixture(scope="module")
def sounding_rows():
    """Songs without a silent sub-frame, because the evaluation leaves out windows with silence."""
    rows = [make_row(number) for number in range(4)]
    for row in rows:
        row.records["midi_path"]["notes"]["duration"] = 1.0
    return rows


def test_evaluation_distinguishes_use_of_the_sound_from_guessing(recipe, sounding_rows):
    split = recipe.dataset(sounding_rows, training=False)
    heard = judged(recipe, Oracle(split, emotion_only=False), sounding_rows)
    distance = heard.metrics["sounding_pos_loss"]
    assert distance.model.value < 1e-4 and distance.baselines["swapped_audio"].value > 0.02
    assert heard.metrics["swap_rise"].model.low > 10_000
    assert heard.metrics["sounding_pitch_r"].model.value == pytest.approx(1, abs=1e-4)
    assert heard.verdict.word == "learnt"
    guessed = judged(recipe, Oracle(split, emotion_only=True), sounding_rows)
    assert guessed.metrics["swap_rise"].model.value == pytest.approx(0, abs=1e-6)
    assert guessed.metrics["sounding_pos_loss"].model.value > 0.01
    assert {"with_score_pos_loss", "sounding_z_r", "sounding_size_r"} <= guessed.metrics.keys()
    assert guessed.verdict.word == "not learnt" and "with the sound of another song" in " ".join(guessed.verdict.why)


def test_nothing_is_required_of_a_correlation_with_what_never_varies(recipe):
    """Notes that are all equally loud: no model could reach .65, and missing it says nothing about this one."""
    rows = [make_row(number) for number in range(4)]
    for row in rows:
        row.records["midi_path"]["notes"]["duration"] = 1.0
        row.records["midi_path"]["notes"]["velocity"] = 80
    found = judged(recipe, Oracle(recipe.dataset(rows, training=False), emotion_only=False), rows)
    (output,) = [why for why in found.verdict.why if why.startswith("The correlation of size")]
    assert "Nothing is required of it: the score's size is the same in all held-out windows" in output
    assert found.metrics["sounding_size_r"].about.floor is None and found.metrics["sounding_z_r"].about.floor == 0.8
    assert found.verdict.word == "learnt"


def test_songs_are_what_intervals_are_drawn_from(recipe, sounding_rows):
    """The windows of a song are alike: twice as many of them tell hardly more, and must not look as if they did."""
    settings = recipe.settings
    few, many = (
        SpectocloudRecipe(
            settings.model_copy(update={"windows": settings.windows.model_copy(update={"validation_per_song": n})})
        )
        for n in (2, 16)
    )
    widths = []
    for one in (few, many):
        interval = judged(one, Oracle(one.dataset(sounding_rows, training=False), emotion_only=True), sounding_rows)
        pos = interval.metrics["sounding_pos_loss"].model
        widths.append(pos.high - pos.low)
    assert widths[1] > 0.5 * widths[0] > 0  # resampled by window, it would be a third


def test_swapping_always_selects_another_song():
    songs = np.array([0, 0, 0, 1, 1, 2])
    for offset in range(7):
        assert (songs[listening.swapped(songs, offset)] != songs).all()
    assert listening.swapped(np.zeros(4), 1) is None


def test_samples_are_clouds_and_pictures_of_several_songs(recipe, model, rows, tmp_path):
    written = recipe.samples(model, rows, tmp_path / "samples", seed=1)
    assert [path.suffix for path in written] == [".npy", ".npy", ".png"] * 3 + [".json"]
    assert all(path.stat().st_size for path in written)
    cloud, target = np.load(written[0]), np.load(written[1])
    assert cloud.shape == target.shape == (1200, 10) and cloud.dtype == target.dtype == np.float32
    content = json.loads(written[-1].read_text())
    assert list(content) == [path.stem for path in written[:-1:3]]
    song = next(row for row in rows if row.values["id"] == content[written[0].stem]["song"])
    assert content[written[0].stem]["emotion"] == pytest.approx(song.values["emotion"][:3], abs=1e-3)
    again = recipe.samples(model, rows, tmp_path / "again", seed=1)
    assert [path.read_bytes() for path in again[:2]] == [path.read_bytes() for path in written[:2]]


def test_flops_are_proportional_to_the_batch(recipe, model, batch):
    per_sample = recipe.flops(model, part(batch, 0))
    assert recipe.flops(model, batch) == 6 * per_sample
    encoder = sum(p.numel() for p in model.core.blocks.parameters() if p.ndim == 2)
    assert per_sample > 6 * encoder * 74


# -- export --------------------------------------------------------------------------------------------------------


def test_the_interface_of_the_exported_graphs_is_unchanged(recipe, model):
    cloud, frontend = recipe.graphs(model)
    assert (cloud.name, frontend.name) == ("spectocloud", "spectocloud_frontend")
    assert [(s.name, s.shape) for s in cloud.inputs] == [
        ("spectrogram", ("batch", 128, 64)), ("emotion", ("batch", 64)), ("midi_features", ("batch", 32)),
    ]  # fmt: skip
    assert [(s.name, s.shape) for s in cloud.outputs] == [
        ("positions", ("batch", 1200, 3)), ("colors", ("batch", 1200, 4)), ("properties", ("batch", 1200, 3)),
    ]  # fmt: skip
    assert [(s.name, s.shape) for s in (*frontend.inputs, *frontend.outputs)] == [
        ("waveform", ("batch", 66560)), ("spectrogram", ("batch", 128, 64)),
    ]  # fmt: skip
    assert all(s.dtype == "float32" for g in (cloud, frontend) for s in (*g.inputs, *g.outputs))
    assert cloud.formats == ("onnx", "int8", "coreml") and frontend.formats == ("onnx",)
    assert {trial["batch"] for trial in cloud.trials} == {1, 2, 7}


@pytest.fixture(scope="module")
def sessions(recipe, model, tmp_path_factory):
    from training.export.onnx import write_onnx
    from training.export.trace import trace

    out, folder = {}, tmp_path_factory.mktemp("onnx")
    for graph in recipe.graphs(model):
        write_onnx(graph, trace(graph), folder / f"{graph.name}.onnx", {})
        session = onnxruntime.InferenceSession(folder / f"{graph.name}.onnx", providers=["CPUExecutionProvider"])
        out[graph.name] = graph, session
    return out


@pytest.mark.parametrize("name", ["spectocloud", "spectocloud_frontend"])
def test_a_file_computes_what_the_model_computes_at_every_batch(sessions, name):
    graph, session = sessions[name]
    for sizes in graph.trials:
        arrays = graph.example(sizes, 5)
        assert [a.shape[0] for a in arrays] == [sizes["batch"]] * len(arrays)
        with torch.no_grad():
            want = graph.module(*map(torch.from_numpy, arrays))
        want = [want] if isinstance(want, torch.Tensor) else want
        feed = {s.name: a for s, a in zip(graph.inputs, arrays, strict=True)}
        got = session.run([s.name for s in graph.outputs], feed)
        for mine, theirs in zip(got, want, strict=True):
            assert np.abs(mine - theirs.numpy()).max() < graph.tolerance * theirs.abs().max()


def test_sound_through_both_files_gives_the_cloud_of_the_trained_model(sessions, recipe, model, rows):
    """As in an application: waveform -> frontend -> model; the constants are in the file."""
    front, cloud = sessions["spectocloud_frontend"], sessions["spectocloud"]
    (wave,) = front[0].example({"batch": 2}, 3)
    (spectrogram,) = front[1].run(None, {"waveform": wave})
    zeros = {"emotion": np.zeros((2, 64), np.float32), "midi_features": np.zeros((2, 32), np.float32)}
    positions = cloud[1].run(["positions"], {"spectrogram": spectrogram} | zeros)[0]
    logmel = torch.from_numpy(spectrogram) * model.normalise.std + model.normalise.mean
    with torch.no_grad():
        want = model(logmel, *map(torch.from_numpy, zeros.values()))[0].numpy()
    np.testing.assert_allclose(positions, want, atol=1e-4)


def test_the_int8_check_is_graded_by_the_chamfer_distance(recipe, model, rows, batch):
    check = recipe.int8_check(rows)
    graph = recipe.graphs(model)[0]
    assert check.graph == graph.name and list(check.inputs) == [s.name for s in graph.inputs]
    with torch.no_grad():
        outputs = graph.module(*(torch.from_numpy(check.inputs[s.name]) for s in graph.inputs))
    got = recipe.grade({s.name: o.numpy() for s, o in zip(graph.outputs, outputs, strict=True)}, check.references)
    held = list(judge.batches(recipe.dataset(rows, training=False)))
    with torch.no_grad():
        want = judge.average(recipe.validate(model, b) for b in held)
    assert got["chamfer"] == pytest.approx(want["pos_loss"], rel=1e-4)
    assert max(recipe.grade(check.references, check.references).values()) == 0
