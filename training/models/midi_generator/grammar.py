"""Which ids may come next, so that what is written is a piece, and the piece that encoding its file would give back."""

from __future__ import annotations

import numpy as np

from training.music.tokens import (
    BAR,
    BOS,
    DIGITS,
    DURATION,
    EOS,
    INSTRUMENT,
    NOTE,
    PAD,
    POSITION,
    STEPS,
    TEMPO,
    VELOCITY,
    VOCABULARY,
)


class Grammar:
    """Follows one piece: `allowed()` says what may come next, `push(id)` takes what came (ValueError for what may not).

        BOS (BAR [TEMPO TEMPO] (POSITION ([INSTRUMENT] NOTE VELOCITY DURATION)+)*)* EOS

    Beyond that: the first bar tells its tempo and the first note its instrument, both only where they change; positions
    rise within a bar, instruments and then pitches within an onset; not more than `max_empty_bars` bars in a row are
    empty; and EOS follows a note, for a piece ends with the bar of its last onset.
    """

    def __init__(self, max_empty_bars: int = 2):
        self.max_empty_bars = max_empty_bars
        self.last = PAD  # nothing yet
        self.coarse = self.tempo = -1  # digits; the tempo in force
        self.second_digit = False
        self.instrument = -1
        self.position = self.pitch = self.bars_empty = -1

    def allowed(self) -> np.ndarray:
        """bool [388]; at least one is True until EOS, then none."""
        out = np.zeros(VOCABULARY, bool)
        last = self.last
        if last == PAD:
            out[BOS] = True
        elif last == BOS:
            out[BAR] = True
        elif last == BAR:
            out[TEMPO:PAD] = True
            if self.tempo >= 0:
                self._allow_onset_or_bar(out)
        elif TEMPO <= last < PAD and not self.second_digit:
            out[TEMPO:PAD] = True
            if self.tempo // DIGITS == self.coarse:
                out[TEMPO + self.tempo % DIGITS] = False
        elif TEMPO <= last < PAD:
            self._allow_onset_or_bar(out)
        elif POSITION <= last < DURATION:
            out[INSTRUMENT:TEMPO] = True
            if self.instrument >= 0:
                out[NOTE:VELOCITY] = True
                out[INSTRUMENT + self.instrument] = False
        elif INSTRUMENT <= last < TEMPO:
            out[NOTE:VELOCITY] = True
        elif last < VELOCITY:
            out[VELOCITY:POSITION] = True
        elif last < POSITION:
            out[DURATION:INSTRUMENT] = True
        elif last != EOS:  # a note is complete
            out[NOTE + self.pitch + 1 : VELOCITY] = True
            out[INSTRUMENT + self.instrument + 1 : TEMPO] = True
            self._allow_onset_or_bar(out)
            out[EOS] = True
        return out

    def _allow_onset_or_bar(self, out: np.ndarray) -> None:
        out[POSITION + self.position + 1 : POSITION + STEPS] = True
        out[BAR] = self.bars_empty < self.max_empty_bars

    def push(self, token: int) -> None:
        if not (0 <= token < VOCABULARY and self.allowed()[token]):
            raise ValueError(f"id {token} cannot follow id {self.last} here")
        if token == BAR:
            self.bars_empty += 1
            self.position = -1
        elif TEMPO <= token < PAD:
            self.second_digit = TEMPO <= self.last < PAD
            if self.second_digit:
                self.tempo = self.coarse * DIGITS + token - TEMPO
            else:
                self.coarse = token - TEMPO
        elif POSITION <= token < DURATION:
            self.position, self.pitch, self.bars_empty = token - POSITION, -1, -1
        elif INSTRUMENT <= token < TEMPO:
            self.instrument, self.pitch = token - INSTRUMENT, -1
        elif token < VELOCITY:
            self.pitch = token - NOTE
        self.last = token
