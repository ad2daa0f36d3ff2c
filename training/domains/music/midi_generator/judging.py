"""Evaluation of the MIDI generator: the prediction of held-out songs, compared with n-grams and with a model without
the emotion; and generated pieces: whether they follow the emotion, copy the training music, and are well formed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from training.domains.music import emotion
from training.domains.music.families import SONG
from training.domains.music.midi import tokens
from training.domains.music.midi.grammar import legal
from training.domains.music.midi_generator import copying, metrics, steering
from training.domains.music.midi_generator.data import HeldOutWindows, Songs
from training.domains.music.midi_generator.model import MidiGenerator
from training.domains.music.midi_generator.ngram import NGram
from training.judgement import (
    About,
    BootstrapDraws,
    Finding,
    Interval,
    Metric,
    Resampling,
    Sums,
    against,
    compare,
    drawn,
    floor,
    resample,
)

MOST_SONGS = 400  # held-out songs on which prediction is measured
BASELINE_TOKENS = 4_000_000  # of the training songs, for the n-grams; sorting them takes seconds and 500 MB
BATCH_TOKENS = 4_096
NGRAMS = {"unigram": 1, "bigram": 2, "kneser_ney_5gram": 5}
PERMUTED = 1_000  # permutations of the requested emotions, for the distribution under chance

PREDICTION = {
    "perplexity": About(
        "lower", "", "Next tokens of held-out songs are as uncertain as a choice among this many equally likely ones."
    ),
    "val_loss": About(
        "lower", "nats", "Cross-entropy of the next token of held-out songs: the logarithm of the perplexity."
    ),
    "bits_per_note": About("lower", "bits", "Bits needed to encode held-out music with the model, per note."),
    "accuracy": About("higher", "", "Share of the tokens of held-out songs to which the model gave most probability."),
} | {
    f"{kind}_perplexity": About("lower", "", f"The perplexity of {kind} tokens.")
    for kind in metrics.KINDS
}  # fmt: skip
NAMED = About(
    "higher", "%", "Generated pieces whose emotion is recognised by a classifier fitted on the training music.", 80.0
)
WORDS = {"density": "note density", "velocity": "loudness", "pitch": "register", "majorness": "mode (major or minor)",
         "articulation": "articulation", "tempo": "tempo"}  # fmt: skip
DESIGN = ("tempo", "density", "velocity", "pitch", "majorness")  # the features that should differ between emotions
TITLES = {
    "kneser_ney_5gram": "a Kneser-Ney 5-gram",
    "plain_transformer": "an equal transformer without the emotion",
    "untold_emotion": "the same model without the emotion",
    "swapped_emotion": "the same model with another emotion",
}


# -- prediction ----------------------------------------------------------------------------------------------------


def prediction_sums(
    model: MidiGenerator, windows: HeldOutWindows, change: Callable[[np.ndarray], np.ndarray] = lambda emotion: emotion
) -> Sums:
    """The held-out songs' losses by song; `change` is applied to the emotions f32 [B, D, 64] before the model."""
    device = next(model.parameters()).device
    losses, targets, songs, right = [], [], [], []
    size = max(1, BATCH_TOKENS // windows.context)
    for start in range(0, len(windows), size):
        indices = range(start, min(start + size, len(windows)))
        batch = windows.collate([windows.item(0, index) for index in indices])
        emotions = torch.from_numpy(change(batch["emotion"].numpy()))
        with torch.inference_mode():
            logits = model(*(part.to(device) for part in (batch["input_ids"], emotions, batch["documents"]))).float()
            wanted = batch["targets"].to(device)
            loss = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=-100, reduction="none")
            hit = logits.argmax(-1).flatten() == wanted.flatten()
        real = (batch["targets"] != -100).flatten().numpy()
        place = np.concatenate([index * windows.context + 1 + np.arange(windows.context) for index in indices])
        losses.append(loss.double().cpu().numpy()[real])
        right.append(hit.cpu().numpy()[real])
        targets.append(batch["targets"].flatten().numpy()[real])
        songs.append(np.searchsorted(windows.ends, place[real], side="right"))
    which, count = np.concatenate(songs), len(windows.songs)
    out = metrics.song_sums(np.concatenate(losses), np.concatenate(targets), which, count)
    hits = np.bincount(which, np.concatenate(right), count)
    return out | {"accuracy": np.stack([hits, out["val_loss"][:, 1]], 1)}


def ngram_sums(train: Songs, held_out: Songs) -> dict[str, Sums]:
    """As `prediction_sums`, for n-grams: frequencies of single ids, of pairs, and an interpolated Kneser-Ney 5-gram."""
    known, budget = [], BASELINE_TOKENS
    for song in range(len(train)):
        known.append(np.asarray(train.ids(song))[:budget])
        budget -= len(known[-1])
        if budget <= 0:
            break
    songs = [np.asarray(held_out.ids(song)).astype(np.int64) for song in range(len(held_out))]
    targets = np.concatenate([ids[1:] for ids in songs])
    which = np.repeat(np.arange(len(songs)), [len(ids) - 1 for ids in songs])
    out = {}
    for name, order in NGRAMS.items():
        ngram = NGram(known, order)
        nats = np.concatenate([-np.log(ngram.probabilities(ids)[1:]) for ids in songs])
        out[name] = metrics.song_sums(nats, targets, which, len(songs))
    return out


def another(songs: Songs) -> Callable[[np.ndarray], np.ndarray]:
    """A function from emotions to other ones: for each, the songs' emotion that is farthest from it."""
    known = np.unique(np.stack([songs.emotion(song) for song in range(len(songs))]), axis=0)

    def farthest(emotions: np.ndarray) -> np.ndarray:
        distance = np.linalg.norm(emotions[..., None, :] - known, axis=-1)
        return known[distance.argmax(axis=-1)].astype(np.float32)

    return farthest


def prediction(
    model: MidiGenerator, plain: MidiGenerator, train: Songs, windows: HeldOutWindows, seed: int
) -> dict[str, Metric]:
    """Prediction by the model, compared with n-grams, `plain` (trained without emotions), and the model itself without
    the emotion or with another one."""
    resampling = Resampling(len(windows.songs), seed)

    def of(sums: Sums) -> dict[str, BootstrapDraws]:
        return resample(sums, resampling, metrics.with_perplexities)

    others = {name: of(sums) for name, sums in ngram_sums(train, windows.songs).items()}
    others["plain_transformer"] = of(prediction_sums(plain, windows, np.zeros_like))
    others["untold_emotion"] = of(prediction_sums(model, windows, np.zeros_like))
    others["swapped_emotion"] = of(prediction_sums(model, windows, another(windows.songs)))
    return compare(PREDICTION, of(prediction_sums(model, windows)), others)


# -- generated pieces ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Written:
    """Pieces (token ids), the requested base emotion of each (index in emotion.BASES), and measurements on them."""

    pieces: Sequence[np.ndarray]
    asked: np.ndarray
    styles: np.ndarray  # f64 [pieces, 6]
    copied: np.ndarray  # notes of the longest run that a training song has, too
    notes: np.ndarray  # without drums
    empty: np.ndarray  # share of the bars in which no note begins
    stuck: np.ndarray  # share of the notes that are stuck

    @classmethod
    def of(
        cls, pieces: Sequence[np.ndarray], asked: np.ndarray, known: Sequence[np.ndarray], longest: float
    ) -> Written:
        """`known`: the training songs; `longest`: a note longer than this many bars is stuck."""
        scores = [tokens.decode(ids) for ids in pieces]
        return cls(
            pieces,
            asked,
            np.array([steering.measure(ids) for ids in pieces]).reshape(-1, len(steering.NAMES)),
            copying.longest_runs(pieces, known),
            np.array([int((~score.notes["drum"]).sum()) for score in scores]),
            np.array([1 - len(np.unique(score.notes["bar"])) / max(1, len(score.bars)) for score in scores]),
            np.array(
                [float((score.notes["length"] > longest).mean()) if len(score.notes) else 0.0 for score in scores]
            ),
        )


def longest_usual(songs: Sequence[np.ndarray]) -> float:
    """The 99.9th percentile of the songs' note lengths, in bars; 2 or more."""
    lengths = np.concatenate([tokens.decode(ids).notes["length"] for ids in songs])
    return max(2.0, float(np.quantile(lengths, 0.999))) if len(lengths) else 2.0


FIGURES: Mapping[str, tuple[About, Callable[[Written, np.ndarray], float]]] = {
    "copied_run": (
        About(
            "lower", "notes", "The longest run of notes, in any key, that a piece shares with any training song: mean."
        ),
        lambda one, units: float(one.copied[units].mean()),
    ),
    "copied_share": (
        About("lower", "%", "That run as a share of the piece's notes: 100 would be a copy."),
        lambda one, units: 100 * float((one.copied[units] / np.maximum(one.notes[units], 1)).clip(0, 1).mean()),
    ),
    "empty_bars": (
        About("lower", "%", "Bars in which no note begins."),
        lambda one, units: 100 * float(one.empty[units].mean()),
    ),
    "stuck_notes": (
        About("lower", "%", "Stuck notes: longer than 999 of 1,000 notes of the training music."),
        lambda one, units: 100 * float(one.stuck[units].mean()),
    ),
}
SHIFT = "Difference in {} between emotions, as a share of the difference in the training music."
AGREE = "Correlation, over emotions, of {} in the pieces with {} in the training music."


def writing(made: Written, real: Written, known: np.ndarray, seed: int) -> dict[str, Metric]:
    """Metrics of generated pieces, compared with those of held-out songs. `known`: see steering.styles."""
    ours, theirs = (Resampling(len(one.pieces), seed, one.asked) for one in (made, real))
    out: dict[str, Metric] = {}

    def add(name: str, about: About, figure: Callable[[Written, np.ndarray], float], **baselines: Interval) -> None:
        if len(real.pieces):
            baselines["held_out_songs"] = drawn(lambda units: figure(real, units), theirs).interval()
        own = drawn(lambda units: figure(made, units), ours)
        out[name] = Metric(about, own.interval(), baselines, estimated=own.estimated)

    def named(one: Written, units: np.ndarray) -> float:
        return 100 * float((steering.name(one.styles[units], known) == one.asked[units]).mean())

    chance = float(100 / (known[2, :, 0] > 0).sum())
    add("emotion_named", NAMED, named, by_chance=Interval.exactly(chance))
    if (songs := out["emotion_named"].baselines.get("held_out_songs")) is not None:
        out["emotion_named"] = replace(out["emotion_named"], about=required_of_pieces(songs.value, chance))

    chances, distinct = _by_chance(made, known, seed), steering.differs(known)
    for column, feature in enumerate(steering.NAMES):
        for name, words, of in (
            (f"shift_{feature}", SHIFT, steering.reached),
            (f"steering_{feature}", AGREE, steering.agreement),
        ):

            def figure(one: Written, units: np.ndarray, of=of, column=column) -> float:
                return float(of(one.styles[units], one.asked[units], known)[column])

            word = WORDS[feature]
            if distinct[column] and np.isfinite(figure(made, np.arange(len(made.pieces)))):
                add(name, About("higher", "", words.format(word, word)), figure, by_chance=chances[name])
    for name, (about, figure) in FIGURES.items():
        add(name, about, figure)
    out["longest_copied_run"] = Metric(
        About("lower", "notes", "The longest such run of all pieces."),
        Interval.exactly(made.copied.max()),
        {"held_out_songs": Interval.exactly(real.copied.max())} if len(real.pieces) else {},
    )
    return out


def required_of_pieces(songs: float, chance: float) -> About:
    """What is required of the share of pieces whose emotion is named right (NAMED): no more than the classifier reaches
    on held-out songs, since pieces need not be easier to classify than songs are; and nothing where songs are not
    classified better than by chance. Percent."""
    reached = f"the classifier names the emotion of {songs:.3g} % of the held-out songs right"
    if songs >= NAMED.floor:
        return NAMED
    if songs <= chance:
        reason = f"{reached}, chance {chance:.3g} %, so the music of these labels does not differ enough to measure it"
        return replace(NAMED, floor=None, floor_reason=reason)
    return replace(NAMED, floor=songs, floor_reason=reached)


def order(made: Written, forbidden: float, limit: int, seed: int) -> dict[str, Metric]:
    """Whether generated pieces are well formed. `forbidden`: the mean probability of ids that the grammar forbids;
    `limit`: number of tokens at which a piece is ended."""
    resampling = Resampling(len(made.pieces), seed, made.asked)

    def share(true: Sequence[bool]) -> Interval:
        values = np.array(true, np.float64)
        return drawn(lambda units: 100 * float(values[units].mean()), resampling).interval()

    return {
        "legal": Metric(
            About("higher", "%", "Pieces that obey the vocabulary's grammar from BOS to EOS.", 100.0),
            share([legal(ids) for ids in made.pieces]),
        ),
        "ended_itself": Metric(
            About("higher", "%", "Pieces that ended before the limit of tokens."),
            share([len(ids) < limit for ids in made.pieces]),
        ),
        "forbidden": Metric(
            About("lower", "%", "Mean probability that the model gives to tokens that the grammar forbids."),
            Interval.exactly(100 * forbidden),
        ),
    }


def _by_chance(made: Written, known: np.ndarray, seed: int) -> dict[str, Interval]:
    """Shifts and agreements under a random permutation of the requested emotions: mean and central 95 % interval."""
    random = np.random.default_rng((seed, 0xC4A))
    mixed = [random.permutation(made.asked) for _ in range(PERMUTED)]
    out = {}
    for prefix, of in (("shift", steering.reached), ("steering", steering.agreement)):
        found = np.stack([of(made.styles, asked, known) for asked in mixed])
        for column, feature in enumerate(steering.NAMES):
            values = found[np.isfinite(found[:, column]), column]
            low, high = np.quantile(values, (0.025, 0.975)) if len(values) else (0.0, 0.0)
            out[f"{prefix}_{feature}"] = Interval(float(values.mean()) if len(values) else 0.0, float(low), float(high))
    return out


def shifts(made: Written, known: np.ndarray) -> dict[str, Any]:
    """feature -> {"unit", "emotions": {emotion: {"model", "training_music"}}}: the difference between an emotion's
    music and the mean over emotions, in generated pieces and in the training music."""
    bases = np.unique(made.asked)
    ours = steering.means(made.styles, made.asked, bases)
    theirs = known[0, bases].astype(np.float64)
    theirs = theirs - theirs.mean(axis=0)
    units = {
        "density": "%",
        "tempo": "%",
        "velocity": "MIDI velocity",
        "pitch": "semitones",
        "majorness": "correlation",
        "articulation": "share of the time to the next note",
    }
    out: dict[str, Any] = {}
    for column, feature in enumerate(steering.NAMES):
        both = np.stack([ours[:, column], theirs[:, column]], 1)
        both = 100 * np.expm1(both) if units[feature] == "%" else both
        emotions = {
            emotion.BASES[base]: {"model": float(row[0]), "training_music": float(row[1])}
            for base, row in zip(bases, both, strict=True)
        }
        out[feature] = {"unit": units[feature], "emotions": emotions}
    return out


# -- the verdict ---------------------------------------------------------------------------------------------------


def findings(found: Mapping[str, Metric]) -> list[Finding]:
    """The findings that determine the verdict."""
    perplexity, loss = found["perplexity"], found["val_loss"]
    out = [against(perplexity, "kneser_ney_5gram", TITLES["kneser_ney_5gram"], "perplexity", unit=SONG)]
    # A label reduces the loss of a song by log(number of emotions) nats or less, even if it has thousands of tokens:
    # far less than songs differ from each other. So models without the emotion are compared by paired differences on
    # the same songs. With few songs the difference may not be significant although every generated piece follows the
    # emotion; such a result is rated weak.
    for name, ahead in (("plain_transformer", "fair"), ("swapped_emotion", "bad")):
        out.append(against(loss, name, TITLES[name], "loss", paired=True, ahead=ahead, unit=SONG))
    if "emotion_named" not in found:
        return [*out, Finding("fair", "The training music has fewer than two emotions, so steering was not measured.")]
    named = found["emotion_named"]
    out.append(against(named, "by_chance", "chance", "emotions recognised", unit=SONG))
    out.append(floor(named, "The share of pieces whose emotion is recognised"))
    can = [feature for feature in DESIGN if f"shift_{feature}" in found]
    follow = [feature for feature in can if found[f"shift_{feature}"].model.low > 0]
    missed = ", ".join(WORDS[feature] for feature in can if feature not in follow)
    if not can:
        traits = ", ".join(WORDS[feature] for feature in DESIGN)
        out.append(Finding("fair", f"The training music does not differ significantly between emotions in {traits}: "
                                   "there is nothing that pieces could follow."))  # fmt: skip
        return out + _originality(found)
    text = f"Of {len(can)} traits that differ between emotions in the training music, the pieces follow {len(follow)}"
    out.append(Finding("fair" if missed else "good", f"{text}" + (f"; not significant: {missed}." if missed else ".")))
    return out + _originality(found)


def _originality(found: Mapping[str, Metric]) -> list[Finding]:
    """Whether the pieces copy training songs, and whether they are well formed."""
    run, share = found["copied_run"], found["copied_share"]
    longest = run.model.formatted(" notes")
    text = f"The longest run shared with a training song is {longest} a piece, {share.model.value:.0f} %"
    songs = run.baselines.get("held_out_songs")
    if songs is None:
        return [Finding("fair", f"{text}; no held-out song has an emotion of the training music to compare with.")]
    copies = run.model.low > songs.high and share.model.value > 2 * share.baselines["held_out_songs"].value
    text += f" of it (in held-out songs: {songs.formatted(' notes')})"
    out = [Finding("fair" if copies else "good", text + ("; it copies." if copies else "."))]
    for name, what in (("stuck_notes", "stuck notes"), ("empty_bars", "empty bars")):
        theirs, ours = found[name].baselines["held_out_songs"], found[name].model
        if ours.low > max(theirs.high, 1.0):
            out.append(Finding("fair", f"Too many {what}: {ours.formatted(' %')}, in songs {theirs.formatted(' %')}."))
    if not found["legal"].meets():
        out.append(floor(found["legal"], "The share of pieces that obey the grammar"))
    return out
