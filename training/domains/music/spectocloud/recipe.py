"""The recipe of Spectocloud: its implementation of the contract in training/recipe.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from training.data.manifest import Row
from training.domains.music.audio import FLOOR, HOP, LOGMEL, N_FFT, SAMPLE_RATE, WINDOW_FRAMES
from training.domains.music.clouds.cloud import PARTICLES, SUBFRAMES
from training.domains.music.midi.reader import NOTES
from training.domains.music.spectocloud import judge, listening
from training.domains.music.spectocloud.chamfer import chamfer
from training.domains.music.spectocloud.config import SpectocloudConfig
from training.domains.music.spectocloud.data import Songs, check_row, cut
from training.domains.music.spectocloud.frontend import SAMPLES, Frontend
from training.domains.music.spectocloud.loss import lifeline, matched, unordered
from training.domains.music.spectocloud.model import (
    BANDS,
    EMOTION,
    FRAMES,
    MIDI_FEATURES,
    N_MELS,
    QUIET,
    RANGE,
    Normalise,
    Spectocloud,
    levelled,
)
from training.domains.music.spectocloud.show import write_samples
from training.graphs import Arrays, Graph, Int8Check, TensorSpec
from training.judgement import Judgement
from training.recipe import Batch, EvaluationContext, Loss, Stepped, TrainingProgress

if TYPE_CHECKING:
    from training.data.encode import Encoder

TERMS = ("match_loss", "pos_loss", "color_loss", "prop_loss", "lifeline_loss")
EVERY = 8  # while the Chamfer distance is reported but not trained on, it is estimated from every eighth point
FITTED_SONGS, FITTED_WINDOWS = 2_000, 8  # most songs, and most windows of each, on which constants are fitted
BASELINE_WINDOWS = 1_024
INT8_WINDOWS = 64

CLOUD = (
    TensorSpec(
        "positions", "float32", ("batch", PARTICLES, 3), "x (time, 0 to 1 over the window), y (pitch), z; unbounded"
    ),
    TensorSpec("colors", "float32", ("batch", PARTICLES, 4), "red, green, blue, alpha in [0, 1]"),
    TensorSpec("properties", "float32", ("batch", PARTICLES, 3), "size, glow, depth in [0, 1]"),
)
SPECTROGRAM = TensorSpec(
    "spectrogram", "float32", ("batch", N_MELS, FRAMES), "normalised log-mel, as spectocloud_frontend.onnx gives it"
)
EMOTIONS = TensorSpec(
    "emotion", "float32", ("batch", EMOTION), "valence, arousal in [-1, 1], intensity in [0, 1], then zeros; or 64"
)
FEATURES = TensorSpec(
    "midi_features", "float32", ("batch", MIDI_FEATURES), "statistics of the window's notes; all zeros: no score"
)
WAVEFORM = TensorSpec(
    "waveform", "float32", ("batch", SAMPLES), "mono, 44,100 Hz, full scale 1; begins 1,024 samples before the window"
)


class SpectocloudRecipe(Stepped):
    family = "spectocloud"
    title = "Spectocloud"
    manifest = "spectocloud"
    settings_type = SpectocloudConfig

    settings: SpectocloudConfig

    # prepare

    def encoders(self) -> Mapping[str, Encoder]:
        return {"audio_path": LOGMEL, "midi_path": NOTES}

    def check_row(self, row: Mapping[str, Any]) -> None:
        check_row(row)

    def dataset(self, rows: Sequence[Row], training: bool) -> Songs:
        settings = self.settings
        return Songs(rows, settings.windows, settings.augment if training else None, settings.seed)

    def rows_of_samples(self, dataset: Songs) -> np.ndarray:
        return dataset.row_of_each()

    def fit_constants(self, rows: Sequence[Row]) -> dict[str, np.ndarray]:
        """Statistics of levelled windows: `mean` [128] of each band in nats; `std` [1], the deviation from it over all
        bands."""
        total, squares, count = np.zeros(N_MELS), np.zeros(N_MELS), 0
        for i in judge.spread(len(rows), FITTED_SONGS):
            logmel = rows[i].records["audio_path"]["logmel"]
            last = max(0, len(logmel) - WINDOW_FRAMES)
            starts = np.unique(np.linspace(0, last, FITTED_WINDOWS).round().astype(int)).tolist()
            windows = torch.from_numpy(np.stack([cut(logmel, start).T for start in starts]))
            frames = levelled(windows).transpose(1, 2).flatten(0, 1).double().numpy()
            total, squares, count = total + frames.sum(0), squares + np.square(frames).sum(0), count + len(frames)
        mean = total / max(1, count)
        variance = (squares / max(1, count) - np.square(mean)).mean()
        return {"mean": mean.astype(np.float32), "std": np.sqrt([max(variance, 1e-2)]).astype(np.float32)}

    # train

    def build(self, constants: Arrays) -> Spectocloud:
        self._constants = dict(constants)
        return Spectocloud(self.settings.model, constants["mean"], constants["std"])

    def counts(self, batch: Batch) -> dict[str, float]:
        """The number of clouds: every term is a sum over clouds of the mean over a cloud's points."""
        return dict.fromkeys(TERMS, float(len(batch["logmel"])))

    def losses(self, model: torch.nn.Module, batch: Batch, progress: TrainingProgress) -> dict[str, Loss]:
        """`pos_loss` is the Chamfer distance throughout: while points are still matched by index (`match_loss`), it is
        estimated from every eighth point and has no gradient."""
        weights = self.settings.loss
        predicted, target = judge.predict(model, batch), judge.target_of(batch)
        by_index = matched(predicted, target)
        early = progress.fraction < weights.index_matched
        if early:
            with torch.no_grad():
                terms = by_index._replace(position=chamfer(predicted.positions, target.positions, EVERY))
        else:
            terms = unordered(predicted, target)
        line = lifeline(predicted, target, SUBFRAMES)
        return {
            "match_loss": _term(by_index.position, weights.position if early else 0.0),
            "pos_loss": _term(terms.position, 0.0 if early else weights.position),
            "color_loss": _term(terms.color, weights.color),
            "prop_loss": _term(terms.properties, weights.properties),
            "lifeline_loss": _term(line, weights.lifeline),
        }

    def validate(self, model: torch.nn.Module, batch: Batch) -> dict[str, tuple[torch.Tensor, float]]:
        return judge.measure(judge.predict(model, batch), batch)

    def summarise(self, means: Mapping[str, float]) -> dict[str, float]:
        return judge.summarise(means, self.settings.loss)

    def flops(self, model: torch.nn.Module, batch: Batch) -> float:
        """6 per parameter and use (2 forward, 4 backward), and attention's two products; of the encoder alone, which
        takes nearly all."""
        m = self.settings.model
        tokens = SUBFRAMES * BANDS + SUBFRAMES + 2
        weights = m.layers * (4 + 2 * m.mlp_ratio) * m.width**2
        attention = m.layers * 2 * tokens * m.width
        return 6.0 * len(batch["logmel"]) * tokens * (weights + attention)

    # judge

    def evaluate(self, context: EvaluationContext) -> Judgement:
        """Compared with `mean_cloud`, the average training cloud; `emotion_only`, clouds by regression on the emotion;
        and `swapped_audio`, the model with the sound of other songs."""
        settings = self.settings
        songs = self.dataset(context.train, training=False)
        seen = list(judge.batches(songs, judge.spread(len(songs), BASELINE_WINDOWS)))
        others = {
            "mean_cloud": judge.Regression(judge.constant).fit(seen),
            "emotion_only": judge.Regression(judge.circumplex).fit(seen),
        }
        plain, scored = (
            Songs(context.held_out, settings.windows, None, settings.seed, score=score) for score in (False, True)
        )
        windows = listening.Windows(plain, scored, listening.WINDOWS)
        return listening.examine(context.model, others, windows, settings.loss, settings.seed)

    def samples(self, model: torch.nn.Module, held_out: Sequence[Row], folder: Path, seed: int) -> list[Path]:
        return write_samples(model, self.dataset(held_out, training=False), folder, seed)

    # export

    def graphs(self, model: torch.nn.Module) -> list[Graph]:
        settings = self.settings.export
        shared = {"axes": {"batch": (1, settings.max_batch)}, "trials": tuple({"batch": n} for n in (1, 2, 7))}
        formats = ("onnx", *(["int8"] if settings.int8 else []), *(["coreml"] if settings.coreml else []))
        sound = {
            "sample_rate": str(SAMPLE_RATE),
            "n_fft": str(N_FFT),
            "hop": str(HOP),
            "mels": f"{N_MELS}, Slaney's scale and area norm",
            "logarithm": f"natural, of mel power, at least {FLOOR:g}",
            "level": f"log-mel less its maximum over the window (at least {QUIET:g}), at least {-RANGE:.6g}",
            "normalisation_mean": " ".join(f"{x:.6g}" for x in model.normalise.mean.flatten().tolist()),
            "normalisation_std": f"{model.normalise.std.item():.6g}",
        }
        cloud = Graph(
            "spectocloud", model.core, (SPECTROGRAM, EMOTIONS, FEATURES), CLOUD, example=_example, formats=formats,
            metadata=sound | {"particles": "8 sub-frames of 150, in order of time"}, **shared,
        )  # fmt: skip
        frontend = Graph(
            "spectocloud_frontend", Frontend(model.normalise).eval(), (WAVEFORM,), (SPECTROGRAM,), example=_sound,
            metadata=sound, **shared,
        )  # fmt: skip
        return [cloud, frontend]

    def int8_check(self, held_out: Sequence[Row]) -> Int8Check:
        """Held-out windows, normalised by the constants that the model was last built with."""
        if not hasattr(self, "_constants"):
            raise RuntimeError("build the model first: its constants normalise the spectrograms of the int8 check")
        songs = self.dataset(held_out, training=False)
        batch = songs.collate([songs.item(0, i) for i in judge.spread(len(songs), INT8_WINDOWS)])
        normalise = Normalise(self._constants["mean"], self._constants["std"])
        inputs = {"spectrogram": normalise(batch["logmel"])} | {key: batch[key] for key in ("emotion", "midi_features")}
        references = {key: batch[key].numpy() for key in ("positions", "colors", "properties")}
        return Int8Check("spectocloud", {key: value.numpy() for key, value in inputs.items()}, references)

    @staticmethod
    def grade(outputs: Arrays, references: Arrays) -> dict[str, float]:
        return judge.grade(outputs, references)


def _term(per_cloud: torch.Tensor, coefficient: float) -> Loss:
    total = per_cloud.sum()
    return Loss(total if coefficient else total.detach(), coefficient)


def _example(sizes: Mapping[str, int], seed: int) -> tuple[np.ndarray, ...]:
    """Normalised noise, emotions from the complete circumplex, and a score for every other sample."""
    rng, batch = np.random.default_rng(seed), sizes["batch"]
    emotion = np.zeros((batch, EMOTION))
    emotion[:, :3] = rng.uniform((-1, -1, 0), 1, (batch, 3))
    features = rng.random((batch, MIDI_FEATURES)) * (np.arange(batch) % 2)[:, None]
    spectrogram = rng.standard_normal((batch, N_MELS, FRAMES))
    return tuple(x.astype(np.float32) for x in (spectrogram, emotion, features))


def _sound(sizes: Mapping[str, int], seed: int) -> tuple[np.ndarray, ...]:
    """Chords of decaying tones over faint noise, from loud to very quiet."""
    rng, batch = np.random.default_rng(seed), sizes["batch"]
    time = np.arange(SAMPLES) / SAMPLE_RATE
    wave = 1e-3 * rng.standard_normal((batch, SAMPLES))
    for hertz in 440 * 2 ** (rng.integers(-24, 24, (4, batch, 1)) / 12):
        wave += 0.1 * np.sin(2 * np.pi * hertz * time) * np.exp(-time * rng.uniform(0, 4, (batch, 1)))
    return ((wave * rng.uniform(0.01, 2, (batch, 1))).astype(np.float32),)
