"""A piece as bars and notes: the representation between MIDI files and tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from training.domains.music.midi.notes import NOTE

#: One note, in bars and in seconds. The bar axis counts bars of any length: 2.5 is the middle of the third bar.
EVENT = np.dtype(
    [
        ("bar", "i4"),  # the bar in which it starts, from 0
        ("position", "f8"),  # of its onset in that bar, [0, 1)
        ("length", "f8"),  # along the bar axis, > 0
        ("onset", "f8"),  # seconds from the start of the piece
        ("duration", "f8"),  # seconds, > 0
        ("pitch", "u1"),  # 0..127; for drums, the drum key
        ("velocity", "u1"),  # 1..127
        ("program", "u1"),  # General MIDI program 0..127; 0 for drums
        ("drum", "?"),
    ]
)

MAX_BARS = 8192  # of one piece; with the slowest bars that tokens can represent (6 s) these last 13.7 hours
MAX_SECONDS = 14 * 3600.0  # later onsets are refused: the file is damaged

DEFAULT_BAR = 2.0  # seconds: 4/4 at 120 beats a minute, MIDI's own default


class OnBars(NamedTuple):
    """The notes of a piece on its map of bars, in any order: the input of `tokens.encode`."""

    notes: Mapping[str, np.ndarray]  # the fields of EVENT but for onset and duration, [n] each
    bars: np.ndarray  # as in Score
    changes: Mapping[str, int]  # as in Score


@dataclass(frozen=True)
class Score:
    """Notes on a map of bars. `notes` is an EVENT array sorted by (onset, program, pitch); `bars` float64 [n], each
    bar's duration in seconds, up to the bar of the last onset or further. Later bars have the duration of the last. A
    file's bars are those that tokens represent: a short one is joined with the next, a long one is divided."""

    notes: np.ndarray
    bars: np.ndarray
    changes: Mapping[str, int] = field(default_factory=dict)  # what its reader had to change: reader.CHANGES

    @property
    def bar_starts(self) -> np.ndarray:
        """Seconds at which each bar starts, float64 [n]."""
        return np.cumsum(self.bars) - self.bars

    def seconds(self) -> np.ndarray:
        """The notes in seconds: a NOTE array sorted by (onset, program, pitch)."""
        out = np.empty(len(self.notes), NOTE)
        for name in NOTE.names:
            out[name] = self.notes[name]
        return out

    @classmethod
    def from_bars(
        cls,
        bars: np.ndarray,
        onset: np.ndarray,
        length: np.ndarray,
        pitch: np.ndarray,
        velocity: np.ndarray,
        program: np.ndarray,
        drum: np.ndarray,
    ) -> Score:
        """A score from notes on the bar axis; each bar has one tempo.

        `bars`: seconds of each bar [m], > 0; a note past them plays in bars like the last (DEFAULT_BAR if there is
        none). The others [n]: `onset` >= 0 and `length` > 0 in bars, `pitch` 0..127, `velocity` 1..127, `program`
        0..127 (ignored for drums), `drum` bool.
        """
        onset = np.asarray(onset, np.float64)
        bar = np.floor(onset).astype(np.int32)
        count = max(len(bars), int(bar.max(initial=-1)) + 1)
        last = bars[-1] if len(bars) else DEFAULT_BAR
        bars = np.concatenate([np.asarray(bars, np.float64), np.full(count - len(bars), last)])
        notes = np.empty(len(onset), EVENT)
        notes["bar"] = bar
        notes["position"] = onset - bar
        notes["length"] = length
        notes["onset"] = seconds_at(bars, onset)
        notes["duration"] = seconds_at(bars, onset + length) - notes["onset"]
        notes["pitch"] = pitch
        notes["velocity"] = velocity
        notes["drum"] = drum
        notes["program"] = np.where(notes["drum"], 0, program)
        order = np.lexsort([notes[key] for key in ("length", "velocity", "drum", "pitch", "program", "onset")])
        return cls(notes[order], bars)


def seconds_at(bars: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Seconds at points `x` of the bar axis; `bars` holds each bar's seconds, and the last bar's tempo continues."""
    if not len(x):
        return np.zeros(0)
    knots = np.concatenate([[0.0], np.cumsum(bars)])
    bar = np.clip(np.floor(x).astype(np.int64), 0, len(bars) - 1)
    return knots[bar] + (x - bar) * bars[bar]
