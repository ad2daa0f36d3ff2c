"""The grammar of token sequences: a state machine that masks the ids that may not come next.

It accepts, from BOS to EOS, exactly the sequences that `tokens.encode` can produce for a piece with notes. So a piece
sampled under its masks decodes without repair, and encodes to the same ids again.
"""

from __future__ import annotations

import numpy as np

from training.domains.music.midi.tokens import (
    BAR,
    DIGITS,
    DURATION,
    INSTRUMENT,
    NOTE,
    PAD,
    POSITION,
    TEMPO,
    VELOCITY,
    VOCABULARY,
    kinds,
)

_KINDS = kinds()
# The state after the last id, and the kinds that may follow it, before values are considered.
_STAGES = {
    "start": ("bos",),
    "bos": ("bar",),
    "bar": ("tempo", "position", "bar"),  # the first bar: tempo
    "coarse": ("tempo",),
    "fine": ("position", "bar"),
    "position": ("instrument", "note"),
    "instrument": ("note",),
    "note": ("velocity",),
    "velocity": ("duration",),
    "duration": ("note", "instrument", "position", "bar", "eos"),
    "eos": ("pad",),
}
_STAGE = {name: number for number, name in enumerate(_STAGES)}
_FOLLOWS = np.array([np.isin(_KINDS, follows) for follows in _STAGES.values()])
_KIND_STAGE = np.array([_STAGE["eos" if kind == "pad" else "coarse" if kind == "tempo" else kind] for kind in _KINDS])


class Grammar:
    """The state of `batch` sequences, before their first id (BOS).

    `unisons`: whether one instrument may play a pitch twice at one onset. Real files do, through two tracks; for
    generation it is better forbidden. `empty_bars`: the largest number of consecutive bars without a note; None: any.
    """

    def __init__(self, batch: int = 1, *, unisons: bool = True, empty_bars: int | None = None):
        self.unisons = unisons
        self.empty_bars = empty_bars
        self._mask: np.ndarray | None = None  # of the current state, once computed
        self._stage = np.full(batch, _STAGE["start"])
        self._bar_empty = np.zeros(batch, np.int64)  # bars since the last note, this one included
        self._tempo = np.full(batch, -1)  # in force, 0..224
        self._coarse = np.full(batch, -1)
        self._position = np.full(batch, -1)  # of the current onset; -1: none yet in this bar
        self._instrument = np.full(batch, -1)
        # The note that the next one of this onset and instrument must not precede; -1: there is none.
        self._pitch = np.full(batch, -1)
        self._velocity = np.full(batch, -1)
        self._duration = np.full(batch, -1)

    @property
    def finished(self) -> np.ndarray:
        """bool [batch]: which sequences have had their EOS; only PAD follows."""
        return self._stage == _STAGE["eos"]

    @property
    def can_end(self) -> np.ndarray:
        """bool [batch]: where EOS is legal now (a note is complete)."""
        return self._stage == _STAGE["duration"]

    def mask(self) -> np.ndarray:
        """bool [batch, 388]: the ids that may come next, one or more in each row. A copy that the caller may change."""
        if self._mask is None:
            self._mask = self._legal()
        return self._mask.copy()

    def _legal(self) -> np.ndarray:
        stage, allowed = self._stage, _FOLLOWS[self._stage]

        def among(low: int, high: int, rows: np.ndarray, fits: np.ndarray) -> None:
            """In `rows`, keep only those ids of low..high-1 that `fits` (against low) holds for."""
            allowed[rows, low:high] &= fits[rows]

        values = np.arange(VOCABULARY)
        rows = stage == _STAGE["bar"]
        if rows.any():
            first = rows & (self._tempo < 0)
            allowed[first, POSITION:DURATION] = False
            allowed[first, BAR] = False
        rows = stage == _STAGE["coarse"]
        if rows.any():  # the tempo in force is not repeated
            same = self._coarse[:, None] * DIGITS + values[:DIGITS] == self._tempo[:, None]
            among(TEMPO, PAD, rows, ~same)
        if self.empty_bars is not None:
            allowed[self._bar_empty > self.empty_bars, BAR] = False
        rows = stage == _STAGE["position"]
        if rows.any():
            among(INSTRUMENT, TEMPO, rows, values[: TEMPO - INSTRUMENT] != self._instrument[:, None])
            allowed[rows & (self._instrument < 0), NOTE:VELOCITY] = False
        rows = stage == _STAGE["duration"]
        if rows.any():
            lowest = self._pitch + (not self.unisons)
            among(NOTE, VELOCITY, rows, values[: VELOCITY - NOTE] >= lowest[:, None])
            among(INSTRUMENT, TEMPO, rows, values[: TEMPO - INSTRUMENT] > self._instrument[:, None])
            among(POSITION, DURATION, rows, values[: DURATION - POSITION] > self._position[:, None])
        rows = stage == _STAGE["note"]
        if rows.any():
            among(VELOCITY, POSITION, rows, values[: POSITION - VELOCITY] >= self._velocity[:, None])
        rows = stage == _STAGE["velocity"]
        if rows.any():
            among(DURATION, INSTRUMENT, rows, values[: INSTRUMENT - DURATION] >= self._duration[:, None])
        return allowed

    def advance(self, ids: np.ndarray) -> None:
        """Read one id per sequence, [batch] ints. Raises ValueError for an id that the mask does not allow."""
        ids = np.asarray(ids).astype(np.int64).reshape(len(self._stage))
        legal = (ids >= 0) & (ids < VOCABULARY)
        legal[legal] = self.mask()[legal, ids[legal]]
        if not legal.all():
            row = int(np.flatnonzero(~legal)[0])
            after = list(_STAGES)[self._stage[row]]
            raise ValueError(f"id {int(ids[row])} is not legal in sequence {row} after {after}")
        stage = _KIND_STAGE[ids]

        rows = stage == _STAGE["bar"]
        self._position[rows] = -1
        self._bar_empty[rows] += 1

        rows = (stage == _STAGE["coarse"]) & (self._stage == _STAGE["coarse"])
        self._tempo[rows] = self._coarse[rows] * DIGITS + ids[rows] - TEMPO
        stage[rows] = _STAGE["fine"]
        rows = stage == _STAGE["coarse"]
        self._coarse[rows] = ids[rows] - TEMPO

        rows = stage == _STAGE["position"]
        self._position[rows] = ids[rows] - POSITION
        self._pitch[rows] = self._velocity[rows] = self._duration[rows] = -1
        rows = stage == _STAGE["instrument"]
        self._instrument[rows] = ids[rows] - INSTRUMENT
        self._pitch[rows] = self._velocity[rows] = self._duration[rows] = -1

        rows = stage == _STAGE["note"]
        fresh = rows & (ids - NOTE != self._pitch)  # not a unison: any velocity and duration may follow
        self._pitch[rows] = ids[rows] - NOTE
        self._velocity[fresh] = self._duration[fresh] = -1
        self._bar_empty[rows] = 0
        rows = stage == _STAGE["velocity"]
        louder = rows & (ids - VELOCITY != self._velocity)
        self._velocity[rows] = ids[rows] - VELOCITY
        self._duration[louder] = -1
        rows = stage == _STAGE["duration"]
        self._duration[rows] = ids[rows] - DURATION
        self._stage = stage
        self._mask = None


def legal(ids: np.ndarray) -> bool:
    """Whether `ids` is one complete piece, BOS to EOS, in the form that `encode` writes."""
    grammar = Grammar()
    try:
        for token in np.asarray(ids).tolist():
            grammar.advance(np.array([token]))
    except ValueError:
        return False
    return bool(grammar.finished[0])
