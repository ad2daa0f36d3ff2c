"""Does the model listen? Held-out clouds beside what could be drawn without hearing, and with the wrong sound heard.

The figures that count are those of windows in which every sub-frame sounds: silence flatters whoever draws it.
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

WINDOWS = 1_024  # most that are judged, evenly spaced over the held-out songs
SWAPS = 3  # other windows' sounds that each window is given in turn

_DISTANCE = "mean distance from a particle to the nearest of the other cloud, both ways (Chamfer)"
_UNITS = "of the space's height"
ABOUT = {
    "sounding_pos_loss": About(
        "lower", _UNITS, f"Where the particles are, on windows without silence: {_DISTANCE}.",
        title="distance to the target",
    ),
    "swap_rise": About(
        "higher", "%", "How much that distance grows where another song's sound is put in: what hearing is worth.",
        100.0,
        title="rise with another song's sound",
    ),
    "below_emotion_only": About(
        "higher", "%", "How much nearer the clouds are than those drawn from the emotion alone.", 45.0,
        title="gain over the emotion alone",
    ),
    "sounding_pitch_r": About(
        "higher", "", "Of the drawn pitch with the score's, by sub-frame, on windows without silence.", 0.80,
        title="correlation of pitch",
    ),
    "sounding_z_r": About(
        "higher", "", "Of the drawn z (tension, density, loudness, range) with the score's, likewise.", 0.80,
        title="correlation of z",
    ),
    "sounding_size_r": About(
        "higher", "", "Of the drawn size (loudness) with the score's, likewise.", 0.65, title="correlation of size"
    ),
    "sounding_color_loss": About("lower", "", "Mean squared error of colours and opacity, windows without silence."),
    "sounding_prop_loss": About("lower", "", "Error of size, glow and depth (smooth L1), windows without silence."),
    "with_score_pos_loss": About("lower", _UNITS, "The same distance when the score's statistics are given too."),
    "val_loss": About("lower", "", "What training watches: the weighted sum of the three errors, all windows."),
    "pos_loss": About("lower", _UNITS, f"All windows: {_DISTANCE}."),
    "color_loss": About("lower", "", "All windows: mean squared error of colours and opacity."),
    "prop_loss": About("lower", "", "All windows: error of size, glow and depth (smooth L1)."),
    "pitch_r": About("higher", "", "All windows: correlation of the drawn pitch with the score's."),
    "z_r": About("higher", "", "All windows: correlation of the drawn z."),
    "size_r": About("higher", "", "All windows: correlation of the drawn size."),
}  # fmt: skip
VARIES = 1e-8  # variance of a target's mean over a sub-frame from which a correlation with it says something
SAME = "the score's {} is the same in all held-out windows, so that nothing can correlate with it"
TITLES = {
    "mean_cloud": "the average cloud",
    "emotion_only": "clouds drawn from the emotion alone",
    "swapped_audio": "the same model hearing another song",
}


class Windows:
    """Held-out windows at hand, and which songs they are of: the windows' tensors together, songs [n] from 0 on."""

    def __init__(self, plain: Songs, scored: Songs, most: int):
        chosen = judge.spread(len(plain), most)
        self.plain, self.scored = (_together(judge.batches(songs, chosen)) for songs in (plain, scored))
        self.songs = np.unique(self.plain["song"].numpy(), return_inverse=True)[1]
        self.sounding = self.plain["sounding"].bool().all(1).numpy()

    @property
    def count(self) -> int:
        """Songs."""
        return int(self.songs.max()) + 1

    def measured(self, model: nn.Module, changes: Mapping[str, Tensor] | None = None) -> dict[str, np.ndarray]:
        """`judge.measure_each` of every window, and `_heard`, its sounding sub-frames; `changes` replace inputs."""
        whole, device = self.plain | dict(changes or {}), _device(model)
        found: dict[str, list[Tensor]] = {}
        with torch.inference_mode():
            for at in range(0, len(self.songs), judge.BATCH):
                batch = {key: value[at : at + judge.BATCH].to(device) for key, value in whole.items()}
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
    """`model` beside `others` (mean_cloud, emotion_only) and beside itself with the wrong sound."""
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
    beside = {name: of(windows.measured(other)) for name, other in others.items()}
    if windows.sounding.any():
        scored = of(windows.measured(model, {"midi_features": windows.scored["midi_features"]}))
        own["with_score_pos_loss"] = scored["sounding_pos_loss"]
        own["below_emotion_only"] = _percent(beside["emotion_only"]["sounding_pos_loss"], own["sounding_pos_loss"], -1)
        wrong = _swapped(model, windows)
        if wrong is not None:
            found = of(wrong)  # only what is of windows without silence: others were not swapped
            beside["swapped_audio"] = {name: value for name, value in found.items() if name.startswith("sounding_")}
            own["swap_rise"] = _percent(own["sounding_pos_loss"], beside["swapped_audio"]["sounding_pos_loss"], 1)
    metrics = compare(ABOUT | _not_required(windows), own, beside)
    return Judgement(metrics, verdict_of(findings(metrics)))


def _not_required(windows: Windows) -> dict[str, About]:
    """The correlations that nothing is required of, since the score does not vary: music of notes that are all equally
    loud, say. Their value is 0 then (judge.summarise)."""
    chosen = torch.from_numpy(windows.sounding)
    found = judge.variances({key: windows.plain[key][chosen] for key in ("sounding", *judge.TARGET)})
    names = {f"sounding_{name}_r": name for name, variance in found.items() if variance < VARIES}
    return {key: replace(ABOUT[key], floor=None, floor_reason=SAME.format(name)) for key, name in names.items()}


def findings(metrics: Mapping[str, Metric]) -> list[Finding]:
    """What the verdict rests on."""
    if "sounding_pos_loss" not in metrics:
        return [Finding("bad", "No held-out window is without silence, so nothing tells whether the sound matters.")]
    distance = metrics["sounding_pos_loss"]
    out = [
        against(distance, name, title, "distance", unit=SONG)
        for name, title in TITLES.items()
        if name in distance.baselines
    ]
    if "swapped_audio" not in distance.baselines:
        out.append(Finding("fair", "Only one held-out song: the sound could not be swapped for another song's."))
    asked = {
        "swap_rise": "The rise of the distance when the sound is another song's",
        "below_emotion_only": "The gain over clouds drawn from the emotion alone",
        "sounding_pitch_r": "The correlation of pitch",
        "sounding_z_r": "The correlation of z",
        "sounding_size_r": "The correlation of size",
    }
    return out + [floor(metrics[name], what) for name, what in asked.items() if name in metrics]


def _swapped(model: nn.Module, windows: Windows) -> dict[str, np.ndarray] | None:
    """What is measured when every window without silence hears, in turn, such windows of other songs; None: there is
    but one song."""
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
    """For each window, the index of a window of another song: the first such from `offset` places on. None: one
    song."""
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
    """By how many per cent `other` is above (sign 1) or below (-1) `of`."""
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
