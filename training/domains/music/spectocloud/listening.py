"""Evaluation of Spectocloud: clouds of held-out songs, compared with baselines without the sound and with the model's
clouds for the sound of another song.

The verdict uses windows without silent sub-frames, because silence is easy to predict and would raise the scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from training.domains.music.families import SONG
from training.domains.music.spectocloud import judge
from training.domains.music.spectocloud.config import Loss as LossSettings
from training.domains.music.spectocloud.data import Songs
from training.judgement import (
    About,
    BootstrapDraws,
    Finding,
    Judgement,
    Metric,
    Resampling,
    against,
    compare,
    floor,
    resample,
)
from training.judgement import verdict as verdict_of

WINDOWS = 1_024  # most windows that are evaluated, evenly spaced over the held-out songs
SWAPS = 3  # sounds of other windows that each window is evaluated with

_DISTANCE = "mean distance from a particle to the nearest of the other cloud, both ways (Chamfer)"
_UNITS = "of the space's height"
ABOUT = {
    "sounding_pos_loss": About(
        "lower", _UNITS, f"Where the particles are, on windows without silence: {_DISTANCE}.",
        title="distance to the target",
    ),
    "swap_rise": About(
        "higher", "%", "Increase of that distance when the sound is replaced by another song's.",
        100.0,
        title="rise with another song's sound",
    ),
    "below_emotion_only": About(
        "higher", "%", "Reduction of that distance relative to clouds drawn from the emotion alone.", 45.0,
        title="gain over the emotion alone",
    ),
    "sounding_pitch_r": About(
        "higher", "", "Correlation of predicted pitch with the score's, by sub-frame, windows without silence.", 0.80,
        title="correlation of pitch",
    ),
    "sounding_z_r": About(
        "higher", "", "Correlation of predicted z (tension, density, loudness, range) with the score's.", 0.80,
        title="correlation of z",
    ),
    "sounding_size_r": About(
        "higher", "", "Correlation of predicted size (loudness) with the score's.", 0.65, title="correlation of size"
    ),
    "sounding_color_loss": About("lower", "", "Mean squared error of colours and opacity, windows without silence."),
    "sounding_prop_loss": About("lower", "", "Error of size, glow and depth (smooth L1), windows without silence."),
    "with_score_pos_loss": About("lower", _UNITS, "The same distance with the score's statistics as an input, too."),
    "val_loss": About("lower", "", "The validation loss: the weighted sum of the three errors, all windows."),
    "pos_loss": About("lower", _UNITS, f"All windows: {_DISTANCE}."),
    "color_loss": About("lower", "", "All windows: mean squared error of colours and opacity."),
    "prop_loss": About("lower", "", "All windows: error of size, glow and depth (smooth L1)."),
    "pitch_r": About("higher", "", "All windows: correlation of predicted pitch with the score's."),
    "z_r": About("higher", "", "All windows: correlation of predicted z."),
    "size_r": About("higher", "", "All windows: correlation of predicted size."),
}  # fmt: skip
VARIES = 1e-8  # variance of a target's mean over a sub-frame below which a correlation with it is meaningless
SAME = "the score's {} is the same in all held-out windows, so nothing can correlate with it"
TITLES = {
    "mean_cloud": "the average cloud",
    "emotion_only": "clouds drawn from the emotion alone",
    "swapped_audio": "the same model with the sound of another song",
}


class Windows:
    """Held-out windows in memory: their tensors, and the song of each, [n] from 0 on."""

    def __init__(self, plain: Songs, scored: Songs, most: int):
        chosen = judge.spread(len(plain), most)
        self.plain, self.scored = (_together(judge.batches(songs, chosen)) for songs in (plain, scored))
        self.songs = np.unique(self.plain["song"].numpy(), return_inverse=True)[1]
        self.sounding = self.plain["sounding"].bool().all(1).numpy()

    @property
    def count(self) -> int:
        """Number of songs."""
        return int(self.songs.max()) + 1

    def measured(self, model: nn.Module, changes: Mapping[str, Tensor] | None = None) -> dict[str, np.ndarray]:
        """`judge.measure_each` of every window, and `_heard`, its sounding sub-frames; `changes` replace inputs."""
        inputs, device = self.plain | dict(changes or {}), _device(model)
        found: dict[str, list[Tensor]] = {}
        with torch.inference_mode():
            for at in range(0, len(self.songs), judge.BATCH):
                batch = {key: value[at : at + judge.BATCH].to(device) for key, value in inputs.items()}
                for name, value in judge.measure_each(judge.predict(model, batch), batch).items():
                    found.setdefault(name, []).append(value.double().cpu())
        out = {name: torch.cat(parts).numpy() for name, parts in found.items()}
        return out | {"_heard": self.plain["sounding"].sum(1).double().numpy()}

    def by_song(self, measured: Mapping[str, np.ndarray], chosen: np.ndarray) -> dict[str, np.ndarray]:
        """Sums of every song over the windows `chosen` (bool): metric -> [songs, 2]."""
        songs = self.songs[chosen]

        def total(values: np.ndarray) -> np.ndarray:
            return np.bincount(songs, values, minlength=self.count)

        clouds, heard = total(np.ones(len(songs))), total(measured["_heard"][chosen])
        return {
            name: np.stack([total(values[chosen]), heard if name.startswith("_") else clouds], 1)
            for name, values in measured.items()
            if name != "_heard"
        }


def examine(
    model: nn.Module, others: Mapping[str, nn.Module], windows: Windows, weights: LossSettings, seed: int
) -> Judgement:
    """Compare `model` with `others` (mean_cloud, emotion_only) and with itself on the sound of other songs."""
    resampling = Resampling(windows.count, seed)

    def of(measured: Mapping[str, np.ndarray]) -> dict[str, BootstrapDraws]:
        every = np.ones(len(windows.songs), bool)
        out = resample(windows.by_song(measured, every), resampling, lambda means: judge.summarise(means, weights))
        if windows.sounding.any():
            loud = windows.by_song(measured, windows.sounding)
            found = resample(loud, resampling, lambda means: judge.summarise(means, weights) if means else {})
            out |= {f"sounding_{name}": value for name, value in found.items() if name != "val_loss"}
        return out

    own = of(windows.measured(model))
    baselines = {name: of(windows.measured(other)) for name, other in others.items()}
    if windows.sounding.any():
        scored = of(windows.measured(model, {"midi_features": windows.scored["midi_features"]}))
        own["with_score_pos_loss"] = scored["sounding_pos_loss"]
        own["below_emotion_only"] = _percent(
            baselines["emotion_only"]["sounding_pos_loss"], own["sounding_pos_loss"], -1
        )
        wrong = _swapped(model, windows)
        if wrong is not None:
            found = of(wrong)  # only metrics of windows without silence: the others were not swapped
            baselines["swapped_audio"] = {name: value for name, value in found.items() if name.startswith("sounding_")}
            own["swap_rise"] = _percent(own["sounding_pos_loss"], baselines["swapped_audio"]["sounding_pos_loss"], 1)
    metrics = compare(ABOUT | _not_required(windows), own, baselines)
    return Judgement(metrics, verdict_of(findings(metrics)))


def _not_required(windows: Windows) -> dict[str, About]:
    """Correlations without a requirement, because the score does not vary (all notes equally loud, for example). Their
    value is 0 then (judge.summarise)."""
    chosen = torch.from_numpy(windows.sounding)
    found = judge.variances({key: windows.plain[key][chosen] for key in ("sounding", *judge.TARGET)})
    names = {f"sounding_{name}_r": name for name, variance in found.items() if variance < VARIES}
    return {key: replace(ABOUT[key], floor=None, floor_reason=SAME.format(name)) for key, name in names.items()}


def findings(metrics: Mapping[str, Metric]) -> list[Finding]:
    """The findings that determine the verdict."""
    if "sounding_pos_loss" not in metrics:
        return [Finding("bad", "Every held-out window contains silence, so the use of the sound cannot be evaluated.")]
    distance = metrics["sounding_pos_loss"]
    out = [
        against(distance, name, title, "distance", unit=SONG)
        for name, title in TITLES.items()
        if name in distance.baselines
    ]
    if "swapped_audio" not in distance.baselines:
        out.append(Finding("fair", "Only one held-out song: the sound could not be swapped for another song's."))
    floors = {
        "swap_rise": "The increase of the distance with the sound of another song",
        "below_emotion_only": "The gain over clouds drawn from the emotion alone",
        "sounding_pitch_r": "The correlation of pitch",
        "sounding_z_r": "The correlation of z",
        "sounding_size_r": "The correlation of size",
    }
    return out + [floor(metrics[name], what) for name, what in floors.items() if name in metrics]


def _swapped(model: nn.Module, windows: Windows) -> dict[str, np.ndarray] | None:
    """The measurements with the sound of every window without silence replaced by that of such windows of other songs,
    averaged over SWAPS replacements; None: there is only one song."""
    where = np.flatnonzero(windows.sounding)
    others = [swapped(windows.songs[where], len(where) * part // (SWAPS + 1)) for part in range(1, SWAPS + 1)]
    parts = []
    for other in others:
        if other is None:
            return None
        source = np.arange(len(windows.songs))
        source[where] = where[other]
        parts.append(windows.measured(model, {"logmel": windows.plain["logmel"][torch.from_numpy(source)]}))
    return {name: np.mean([part[name] for part in parts], axis=0) for name in parts[0]}


def swapped(songs: np.ndarray, offset: int) -> np.ndarray | None:
    """For each window, the index of a window of another song: the first one from `offset` places on. None: there is
    only one song."""
    if len(np.unique(songs)) < 2:
        return None
    count = len(songs)
    out = np.empty(count, np.int64)
    for i in range(count):
        j = (i + offset) % count
        while songs[j] == songs[i]:
            j = (j + 1) % count
        out[i] = j
    return out


def _percent(of: BootstrapDraws, other: BootstrapDraws, sign: int) -> BootstrapDraws:
    """The percentage by which `other` is above (sign 1) or below (-1) `of`."""
    parts = ((of.value, other.value), (of.draws, other.draws), (of.without, other.without))
    return BootstrapDraws(*(100 * sign * (b / a - 1) for a, b in parts))


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _together(parts: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    out: dict[str, list[Tensor]] = {}
    for part in parts:
        for key, value in part.items():
            out.setdefault(key, []).append(value)
    return {key: torch.cat(values) for key, values in out.items()}
