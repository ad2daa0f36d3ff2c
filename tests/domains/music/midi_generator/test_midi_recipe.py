"""The recipe: losses that add up, metrics per kind of token, baselines, evaluation, samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import soundfile
import torch
from torch.nn import functional as F

from training.data.manifest import Row
from training.domains.music import emotion
from training.domains.music.midi import tokens
from training.domains.music.midi.grammar import legal
from training.domains.music.midi.reader import read_score
from training.domains.music.midi_generator import judging, metrics, steering
from training.domains.music.midi_generator.data import IGNORED, Songs, emotion_vector
from training.domains.music.midi_generator.ngram import NGram
from training.domains.music.midi_generator.recipe import MidiGeneratorRecipe
from training.judgement import Interval, Metric, floor
from training.recipe import EvaluationContext, TrainingProgress
from training.registry import load_recipe

NOW = TrainingProgress(0, 100)


@pytest.fixture
def recipe(settings) -> MidiGeneratorRecipe:
    return MidiGeneratorRecipe(settings())


def batch_of(recipe, rows, training: bool = False) -> dict[str, torch.Tensor]:
    examples = recipe.dataset(rows, training)
    return examples.collate([examples.item(0, index) for index in range(len(examples))])


def test_losses_and_counts_of_micro_batches_add_up(recipe, rows):
    """Also for two micro-batches of unequal size."""
    model = recipe.build({})
    examples = recipe.dataset(rows, True)
    items = [examples.item(0, index) for index in range(5)]
    complete, parts = examples.collate(items), [examples.collate(items[:2]), examples.collate(items[2:])]
    for name in ("loss", "accuracy"):
        together = recipe.losses(model, complete, NOW)[name].total.item()
        apart = sum(recipe.losses(model, part, NOW)[name].total.item() for part in parts)
        assert together == pytest.approx(apart, rel=1e-5)
        assert recipe.counts(complete)[name] == sum(recipe.counts(part)[name] for part in parts)
    assert recipe.counts(complete)["loss"] == int((complete["targets"] != IGNORED).sum()) > 0


def test_held_out_songs_are_never_varied(settings, rows):
    changes = {"augment": {"transpose": 12, "velocity": 0.9, "tempo": 0.9, "emotion_noise": 1, "emotion_dropout": 1}}
    examples = MidiGeneratorRecipe(settings(changes)).dataset(rows, False)
    seen = np.concatenate([examples.item(3, index)["input_ids"] for index in range(len(examples))])
    songs = np.concatenate([row.records["midi_path"]["ids"] for row in rows])
    assert np.array_equal(seen[: len(songs) - 1], songs[:-1])
    assert np.allclose(examples.item(3, 0)["emotion"][0, :3], rows[0].values["emotion"])


def test_only_the_loss_is_minimised(recipe, rows):
    terms = recipe.losses(recipe.build({}), batch_of(recipe, rows), NOW)
    assert terms["loss"].coefficient == 1 and terms["accuracy"].coefficient == 0
    assert terms["loss"].total.requires_grad and not terms["accuracy"].total.requires_grad


def test_padding_and_other_songs_do_not_affect_the_loss(recipe, rows):
    model = recipe.build({})
    batch = batch_of(recipe, rows)
    before = recipe.validate(model, batch)["val_loss"]
    masked = batch["targets"] == IGNORED
    batch["input_ids"] = torch.where(masked & (batch["input_ids"] == tokens.PAD), 5, batch["input_ids"])
    after = recipe.validate(model, batch)["val_loss"]
    assert before[0].item() == pytest.approx(after[0].item()) and before[1] == after[1]


def test_validation_is_not_smoothed_and_agrees_with_the_definition(recipe, rows):
    model = recipe.build({}).eval()
    batch = batch_of(recipe, rows)
    with torch.no_grad():
        logits = model(batch["input_ids"], batch["emotion"], batch["documents"])
        found = recipe.validate(model, batch)
    real = batch["targets"] != IGNORED
    expected = F.cross_entropy(logits[real], batch["targets"][real], reduction="sum")
    assert float(found["val_loss"][0]) == pytest.approx(float(expected), rel=1e-6)
    assert float(found["accuracy"][0]) == int((logits[real].argmax(-1) == batch["targets"][real]).sum())
    means = recipe.summarise({name: float(total) / max(1, count) for name, (total, count) in found.items()})
    assert means["perplexity"] == pytest.approx(math.exp(means["val_loss"]))
    assert means["note_perplexity"] == pytest.approx(math.exp(means["note_loss"]))
    graded = recipe.grade({"logits": logits.numpy()}, {"targets": batch["targets"].numpy()})
    assert graded["loss"] == pytest.approx(means["val_loss"], rel=1e-6)
    assert graded["perplexity"] == pytest.approx(means["perplexity"], rel=1e-5)


def test_the_losses_of_the_kinds_add_up_to_the_total(recipe, rows):
    found = recipe.validate(recipe.build({}), batch_of(recipe, rows))
    for of in ("loss", "accuracy"):
        complete = found["val_loss" if of == "loss" else of]
        kinds = [found[f"{kind}_{of}"] for kind in metrics.KINDS]
        assert sum(total.item() for total, _ in kinds) == pytest.approx(complete[0].item(), rel=1e-6)
        assert sum(count for _, count in kinds) == complete[1]
    notes = sum(int((row.records["midi_path"]["ids"] < tokens.VELOCITY).sum()) for row in rows)
    bits, count = found["bits_per_note"]
    assert count == notes
    assert float(bits) == pytest.approx(float(found["val_loss"][0]) / math.log(2))


def test_a_kind_that_does_not_occur_is_left_out_and_infinity_is_not_reported(recipe):
    out = recipe.summarise({"val_loss": 2.0, "tempo_loss": float("nan"), "note_loss": 5000.0})
    assert "tempo_loss" not in out and math.isfinite(out["note_perplexity"])


def test_tempo_tokens_have_the_configured_weight_and_other_tokens_one():
    logits = torch.randn(1, 6, 388)
    targets = torch.tensor([[3, 369, 383, IGNORED, 384 + 3, 368]])

    def alone(index: int) -> float:
        return float(metrics.training_loss(logits[:, index : index + 1], targets[:, index : index + 1], 0.1)[0])

    loss, right = metrics.training_loss(logits, targets, 0.1, 8.0)
    expected = sum(alone(index) * (8 if index in (1, 2) else 1) for index in (0, 1, 2, 4, 5))
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert right == metrics.training_loss(logits, targets, 0.1)[1]


def test_label_smoothing_follows_its_definition(recipe):
    logits = torch.randn(1, 4, 388)
    targets = torch.tensor([[3, IGNORED, 300, 5]])
    loss, _ = metrics.training_loss(logits, targets, 0.1)
    real = logits[0, [0, 2, 3]].log_softmax(-1)
    expected = -(0.9 * real[range(3), [3, 300, 5]].sum() + 0.1 * real.mean(-1).sum())
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_an_ngram_is_a_probability_distribution(rows, order):
    ngram = NGram([row.records["midi_path"]["ids"] for row in rows], order)
    for history in ([], [385], [385, 387, 5], [3, 3, 3, 3, 3]):
        total = sum(ngram.probabilities(np.array([*history, token]))[-1] for token in range(388))
        assert total == pytest.approx(1.0)


def test_longer_contexts_predict_better_and_seen_ngrams_are_probable(rows):
    songs = [row.records["midi_path"]["ids"] for row in rows]
    loss = [-np.log(NGram(songs, order).probabilities(songs[2])[1:]).mean() for order in (1, 2, 3)]
    assert loss[0] > loss[1] > loss[2]
    known = NGram([np.array([385, 387, 5, 6, 5, 6, 5, 6])], 2).probabilities(np.array([385, 387, 5, 6]))[-1]
    assert known > 0.5


def test_the_evaluated_loss_equals_that_of_validation_and_ngrams_use_the_same_tokens(recipe, rows):
    """The loss of the evaluation is computed song by song."""
    model = recipe.build({}).eval()
    sums = judging.prediction_sums(model, recipe.dataset(rows, False))
    means = {name: values[:, 0].sum() / values[:, 1].sum() for name, values in sums.items() if values[:, 1].sum()}
    found = recipe.validate(model, batch_of(recipe, rows))
    for name, value in means.items():
        assert value == pytest.approx(float(found[name][0]) / found[name][1], rel=1e-5), name
    alone = judging.prediction_sums(model, recipe.dataset(rows[:1], False))["val_loss"]
    assert sums["val_loss"].shape == (len(rows), 2) and alone[0, 1] == sums["val_loss"][0, 1]
    ngrams = judging.ngram_sums(Songs(rows[:3]), Songs(rows))
    assert set(ngrams) == {"unigram", "bigram", "kneser_ney_5gram"}
    for values in ngrams.values():
        assert (values["val_loss"][:, 1] == sums["val_loss"][:, 1]).all()
    same_targets = NGram([row.records["midi_path"]["ids"] for row in rows[:3]], 1)
    nats = -np.log(same_targets.probabilities(rows[4].records["midi_path"]["ids"])[1:])
    assert ngrams["unigram"]["val_loss"][4, 0] == pytest.approx(nats.sum())


def steered_rows() -> list[Row]:
    """Two emotions: one always plays pitch 40 softly, the other pitch 90 loudly."""
    rows = []
    for number in range(8):
        happy = number % 2
        note = [90 if happy else 40, 128 + (28 if happy else 6), 300]
        ids = [385, 387, 376, 370 + happy, 160, 352, *note]
        for position in range(8, 96, 8):
            ids += [160 + position, *note]
        vector = [0.8, 0.6, 0.8] if happy else [-0.8, -0.5, 0.8]  # not the vectors of the lexicon's words
        rows.append(
            Row({"emotion": vector, "id": str(number)}, f"x:{number}", {"midi_path": {"ids": np.array([*ids, 386])}})
        )
    return rows


@pytest.fixture(scope="module")
def taught():
    """A small model trained on the two kinds of songs above, for about two seconds."""
    torch.manual_seed(0)
    still = ["augment.transpose=0", "augment.velocity=0.0", "augment.tempo=0.0"]
    recipe = load_recipe("midi_generator", "debug", overrides=still)
    rows = steered_rows()
    model = recipe.build(recipe.fit_constants(rows))
    examples = recipe.dataset(rows, True)
    optimizer = torch.optim.AdamW(recipe.parameter_groups(model), lr=5e-3)
    for step in range(120):
        batch = examples.collate([examples.item(step, index) for index in range(len(examples))])
        loss = recipe.losses(model, batch, TrainingProgress(step, 120))["loss"].total / recipe.counts(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return recipe, model.eval(), rows


def test_a_trained_model_beats_its_baselines(taught):
    """It beats n-grams and a model without the emotion, and its pieces follow the requested emotion."""
    recipe, model, rows = taught
    calls: list = []

    def baseline(other, name, begin, steps):
        calls.append((name, other.settings.augment.emotion_dropout, begin is not None, steps))
        return recipe.build({}).eval()  # untrained

    found = recipe.evaluate(EvaluationContext(model, rows, rows, 100, baseline, 0.5))
    assert calls == [("plain_transformer", 1.0, True, 50)]
    metrics = found.metrics
    loss = metrics["val_loss"]
    assert loss.model.value < 0.8 * loss.baselines["bigram"].value
    assert loss.model.value < loss.baselines["untold_emotion"].value < loss.baselines["swapped_emotion"].value
    assert loss.gaps["swapped_emotion"].value < -0.3 and loss.gaps["swapped_emotion"].high < 0
    named = metrics["emotion_named"]
    assert named.model.value > 80 and named.baselines["by_chance"].value == 50 and named.about.floor == 80
    assert named.baselines["held_out_songs"].value == 100
    assert metrics["shift_pitch"].model.low > 0.5 and "shift_tempo" in metrics
    assert "steering_pitch" not in metrics  # a correlation over two emotions is meaningless
    assert len(found.more["shifts"]["pitch"]["emotions"]) == 2
    assert metrics["legal"].model.value == 100
    # songs that are all alike are known by heart by whoever counts; nothing else is amiss
    assert [why for why in found.verdict.why if why.startswith(("Not significantly", "Worse"))] == [
        found.verdict.why[0]
    ]
    assert "Kneser-Ney" in found.verdict.why[0]


def test_an_untrained_model_is_not_learnt(taught):
    recipe, _, rows = taught
    untrained = recipe.build(recipe.fit_constants(rows)).eval()
    found = recipe.evaluate(EvaluationContext(untrained, rows, rows, 100, lambda *_: untrained, 0.5))
    assert found.verdict.word == "not learnt"
    assert any("Kneser-Ney" in why and why.startswith("Worse than") for why in found.verdict.why[:3])


@pytest.mark.parametrize(
    ("songs", "required", "sentence"),
    [(95.0, 80.0, "required: at least 80 %."), (60.0, 60.0, "at least 60 % (the classifier names the emotion of 60 %"),
     (50.0, None, "Nothing is required of it: the classifier names the emotion of 50 % of the held-out songs right"),
     (0.0, None, "Nothing is required of it: the classifier names the emotion of 0 % of the held-out songs right")],
)  # fmt: skip
def test_no_more_is_required_of_pieces_than_songs_reach_and_nothing_where_labels_do_not_differ(
    songs, required, sentence
):
    """At least 0 %, or what chance gives, would be a requirement that says nothing."""
    about = judging.required_of_pieces(songs, chance=50.0)
    assert about.floor == required
    found = floor(Metric(about, Interval.exactly(0.0 if required is None else 100.0)), "The share")
    assert found.mark == "good" and sentence in found.sentence and "at least 0" not in found.sentence


def test_the_verdict_follows_what_held_out_songs_allow(taught):
    """Held-out songs with swapped labels: the classifier names none of them right, and pieces need not be either."""
    recipe, model, rows = taught
    emotions = [row.values["emotion"] for row in rows]
    swapped = [
        Row({**row.values, "emotion": emotions[1 - number % 2]}, row.place, row.records)
        for number, row in enumerate(rows)
    ]
    found = recipe.evaluate(EvaluationContext(model, rows, swapped, 100, lambda *_: recipe.build({}).eval(), 0.5))
    assert found.metrics["emotion_named"].baselines["held_out_songs"].value == 0
    assert found.metrics["emotion_named"].about.floor is None
    (output,) = [why for why in found.verdict.why if why.startswith("The share of pieces whose emotion is recognised")]
    assert "Nothing is required of it: the classifier names the emotion of 0 % of the held-out songs right" in output


def test_music_that_is_alike_for_all_emotions_can_be_followed_in_nothing_and_that_is_no_merit(taught):
    recipe, model, rows = taught
    found = recipe.evaluate(EvaluationContext(model, rows, rows, 100, lambda *_: recipe.build({}).eval(), 0.5)).metrics
    alike = {name: metric for name, metric in found.items() if not name.startswith("shift_")}
    (finding,) = [one for one in judging.findings(alike) if "nothing that pieces could follow" in one.sentence]
    assert finding.mark == "fair" and "tempo, note density, loudness" in finding.sentence
    assert not [one for one in judging.findings(alike) if "Of 0 traits" in one.sentence]


def test_the_classifier_recognises_emotions_and_notices_swapped_ones(taught):
    _, model, rows = taught
    known = model.styles.numpy()
    assert known[2, :, 0].sum() == len(rows) and (known[2, :, 0] > 0).sum() == 2
    measured = np.stack([steering.measure(row.records["midi_path"]["ids"]) for row in rows])
    asked = steering.classes([emotion_vector(row.values["emotion"]) for row in rows])
    assert (steering.name(measured, known) == asked).all()
    assert not (steering.name(measured[::-1], known) == asked).any()
    assert steering.differs(known)[[1, 2]].all()  # loudness and register
    assert steering.reached(measured, asked, known)[2] == pytest.approx(1, abs=1e-3)
    assert steering.reached(measured[::-1], asked, known)[2] == pytest.approx(-1, abs=1e-3)


def test_pieces_are_requested_with_the_labels_of_the_songs(taught):
    """The lexicon's vector is used only if no song has the emotion: a model has not learnt vectors far from labels."""
    _, _, rows = taught
    vectors = steering.request_vectors(range(6), Songs(rows))
    assert vectors[0, :3].tolist() == pytest.approx([0.8, 0.6, 0.8])
    assert vectors[1, :3].tolist() == pytest.approx([-0.8, -0.5, 0.8])
    for base in range(2, 6):
        assert vectors[base, :3].tolist() == pytest.approx(emotion.vector(emotion.BASES[base]))


def test_steering_is_the_agreement_of_means_over_emotions(rows):
    known = np.zeros((3, 6, 6), np.float32)
    known[0], known[1], known[2, :, 0] = np.arange(6)[:, None], 1, 5
    measured = np.stack([steering.measure(row.records["midi_path"]["ids"]) for row in rows])
    found = steering.agreement(measured, np.arange(5), known)
    assert found[1] == pytest.approx(np.corrcoef(measured[:, 1], np.arange(5))[0, 1])
    assert np.isnan(found[5])  # all tempi are equal, so there is no correlation


def test_a_sample_of_each_emotion_is_written_and_readable(taught, tmp_path):
    recipe, model, rows = taught
    written = recipe.samples(model, rows, tmp_path / "new" / "folder", 3)
    ends = (".mid", ".png", ".mp3")
    assert {path.name for path in written} == {f"{name}{end}" for name in emotion.BASES for end in ends}
    pitches = {}
    for name in emotion.BASES:
        score = read_score(tmp_path / "new" / "folder" / f"{name}.mid")
        assert len(score.notes)
        assert legal(tokens.encode(score))
        pitches[name] = score.notes["pitch"].mean()
        assert (tmp_path / "new" / "folder" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        wave, rate = soundfile.read(tmp_path / "new" / "folder" / f"{name}.mp3")
        end = float((score.notes["onset"] + score.notes["duration"]).max())
        assert len(wave) / rate == pytest.approx(min(60, end + 0.6), abs=0.2) and np.abs(wave).max() > 0.01
    assert pitches["happy"] > pitches["sad"] + 20
    again = recipe.samples(model, rows, tmp_path / "again", 3)
    assert all(
        path.read_bytes() == other.read_bytes()
        for path, other in zip(written, again, strict=True)
        if path.suffix == ".mid"
    )


def test_vectors_have_no_weight_decay(recipe):
    decayed, spared = recipe.parameter_groups(recipe.build({}))
    assert all(p.ndim >= 2 for p in decayed["params"]) and all(p.ndim < 2 for p in spared["params"])
    assert len(spared["params"]) > 0 and spared["weight_decay"] == 0


def test_flops_follow_the_model_and_the_batch(recipe, rows):
    model = recipe.build({})
    batch = batch_of(recipe, rows)
    free = ("embedding.", "emotion.", "classes.", "head_classes.")
    weights = sum(p.numel() for name, p in model.named_parameters() if not name.startswith(free))
    per_token = 6 * weights + 12 * 2 * 32 * 32
    assert recipe.flops(model, batch) == batch["input_ids"].numel() * per_token


def test_the_int8_check_uses_the_beginnings_of_held_out_songs(recipe, rows):
    check = recipe.int8_check(rows)
    assert check.graph == "midi_generator" and set(check.inputs) == {"input_ids", "emotion"}
    assert check.inputs["input_ids"].shape == check.references["targets"].shape == (5, 32)


@pytest.mark.parametrize("preset", ["full", "demo", "debug"])
def test_every_preset_is_valid(preset):
    recipe = load_recipe("midi_generator", preset)
    assert recipe.settings.generation.temperature == 0.9
