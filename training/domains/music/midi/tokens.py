"""The vocabulary of 388 ids, and its encoder and decoder. Files and applications depend on the table: never change it.

    BOS (BAR [TEMPO TEMPO] (POSITION ([INSTRUMENT] NOTE VELOCITY DURATION)+)*)* EOS

TEMPO and INSTRUMENT are written where they change, and at the first bar and note. The notes of one onset are sorted by
instrument, then pitch (then velocity and duration). A piece ends with the bar of its last onset; silent bars are
written, too.

Rounding: onsets to 1/128 of a bar, durations to their grid, velocities to one of 32, a bar's length to one of 225 tempi
0.8 % apart. Clipping: durations to 8 bars, and bars to 1..6 seconds (240 to 40 bars in four minutes). A slower or
faster bar of a score keeps the positions of its notes and gets the nearest tempo; the reader of MIDI files joins and
divides bars so that there is none.

From a file to tokens and back, an onset at t seconds moves by at most 1/256 of its bar (24 ms), 0.41 % of t (the
rounding of tempi), and 125 ms if the tempo changes within its bar.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from training.data.encode import Encoder
from training.domains.music.midi import reader as midi
from training.domains.music.midi.score import MAX_BARS, OnBars, Score

NOTE = 0  # + MIDI pitch, or drum key
VELOCITY = 128  # + velocity // 4
POSITION = 160  # + 128ths of the bar
DURATION = 288  # + index into DURATIONS
INSTRUMENT = 352  # + General MIDI family (program // 8), or DRUMS
TEMPO = 369  # + digit: two in a row, coarse then fine, base 15
PAD = 384
BOS = 385
EOS = 386
BAR = 387
VOCABULARY = 388

STEPS = 128  # positions in a bar; the unit of durations, too
#: Durations in 128ths of a bar: steps of 1, 2, 4 ... 64, so that plain and dotted values are exact.
DURATIONS = np.concatenate(
    [np.arange(1, 17), *(np.arange(16 << n, 32 << n, 2 << n) + (2 << n) for n in range(6))], dtype=np.int64
)
DRUMS = 16
TEMPI = 225
SLOWEST, FASTEST = 40.0, 240.0  # bars' rate: 240 / (bar length in seconds)
DIGITS = 15

#: The program to write for each family: its first, unless another is more common or has a wider range.
PROGRAMS = np.array([0, 11, 19, 24, 33, 40, 48, 56, 65, 73, 80, 89, 96, 104, 114, 120])
FAMILIES = (
    "piano", "chromatic percussion", "organ", "guitar", "bass", "strings", "ensemble", "brass", "reed", "pipe",
    "synth lead", "synth pad", "synth effects", "ethnic", "percussive", "sound effects", "drums",
)  # fmt: skip

VERSION = "1"  # of the encoding; stored tokens of another version are encoded again
_BLOCKS = (
    (NOTE, "note"), (VELOCITY, "velocity"), (POSITION, "position"), (DURATION, "duration"),
    (INSTRUMENT, "instrument"), (TEMPO, "tempo"), (PAD, "pad"), (BOS, "bos"), (EOS, "eos"), (BAR, "bar"),
)  # fmt: skip
_PITCHES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


# Index of the nearest duration, by half steps: the border between two durations is a whole number of half steps.
_BORDERS = DURATIONS[1:] + DURATIONS[:-1]
_HALF_STEPS = np.searchsorted(_BORDERS, np.arange(2 * DURATIONS[-1] + 1), "right").astype(np.uint8)


def kinds() -> np.ndarray:
    """The kind of each id: str [388], one of note, velocity, position, duration, instrument, tempo, pad, bos, eos,
    bar."""
    starts = [start for start, _ in _BLOCKS]
    return np.repeat([kind for _, kind in _BLOCKS], np.diff([*starts, VOCABULARY]))


def describe(token: int) -> str:
    """A readable form of an id: `NOTE 60 (C4)`, `DURATION 48/128 of a bar`. Raises ValueError outside 0..387."""
    if not 0 <= token < VOCABULARY:
        raise ValueError(f"no such id: {token} (the vocabulary is 0..{VOCABULARY - 1})")
    token = int(token)
    start, kind = next(block for block in reversed(_BLOCKS) if block[0] <= token)
    n = token - start
    detail = {
        "note": f" {n} ({_PITCHES[n % 12]}{n // 12 - 1})",
        "velocity": f" {4 * n}..{4 * n + 3}, plays {4 * n + 2}",
        "position": f" {n}/{STEPS} of the bar",
        "duration": f" {DURATIONS[min(n, 63)]}/{STEPS} of a bar",
        "instrument": f" {n} ({FAMILIES[min(n, DRUMS)]})",
        "tempo": f" digit {n}",
    }
    return kind.upper() + detail.get(kind, "")


def tempo_step(bars: np.ndarray) -> np.ndarray:
    """Bar lengths in seconds -> the nearest tempo 0..224 (slowest first), int64; clipped to the range."""
    rate = np.log(240.0 / SLOWEST / bars) * ((TEMPI - 1) / np.log(FASTEST / SLOWEST))
    return np.minimum(np.maximum(np.rint(rate), 0), TEMPI - 1).astype(np.int64)


def bar_seconds(step: np.ndarray) -> np.ndarray:
    """The length in seconds of a bar at tempo `step` 0..224."""
    return 240.0 / SLOWEST * (FASTEST / SLOWEST) ** (-np.asarray(step) / (TEMPI - 1))


def encode(score: Score | OnBars) -> np.ndarray:
    """The complete piece, BOS and EOS included, as uint16 [n]."""
    notes = score.notes
    if not len(notes["bar"]):
        return np.array([BOS, EOS], np.uint16)
    # Pack the columns into one integer per note and sort those: far faster than sorting by several columns.
    key = _slots(notes)
    key <<= 5
    key |= np.maximum(notes["program"] >> 3, notes["drum"].view(np.uint8) * DRUMS)  # DRUMS is the highest instrument
    key <<= 7
    key |= notes["pitch"]
    key <<= 5
    key |= notes["velocity"] >> 2
    key <<= 6
    key |= _durations(notes["length"])
    key.sort()
    slot, words = key >> 23, key.astype(np.uint32)  # the fields of a note without its slot fit into 32 bits
    instrument = words >> 18 & 31
    new_slot, new_instrument = _changes(slot), _changes(instrument)
    bar = slot >> 7
    tempo = tempo_step(_bars_to(score, int(bar[-1]) + 1))
    new_tempo = _changes(tempo)

    # The index of each bar's and each note's first id is the number of ids before it.
    through = (new_slot.view(np.uint8) + new_instrument.view(np.uint8)).astype(np.int64)
    through += 3
    through = through.cumsum()
    bars_through = np.cumsum(1 + 2 * new_tempo)
    at = bars_through[bar]
    at += through
    first = np.searchsorted(bar, np.arange(len(tempo)))  # the first note in or after each bar
    bar_at = bars_through - 2 * new_tempo + np.where(first > 0, through[first - 1], 0)

    ids = np.empty(int(at[-1]) + 2, np.uint16)
    ids[0], ids[-1] = BOS, EOS
    ids[bar_at] = BAR
    ids[bar_at[new_tempo] + 1] = TEMPO + tempo[new_tempo] // DIGITS
    ids[bar_at[new_tempo] + 2] = TEMPO + tempo[new_tempo] % DIGITS
    # Write instrument and position for every note, in this order. If the instrument has not changed, the note's
    # position overwrites it; if the position has not changed, the duration of the previous note overwrites it.
    at -= 3
    ids[at] = (instrument + INSTRUMENT).astype(np.uint16)
    at -= new_instrument.view(np.uint8)
    ids[at] = (slot & STEPS - 1).astype(np.uint16) + np.uint16(POSITION)
    at += new_instrument.view(np.uint8)
    for start, what in ((NOTE, words >> 11 & 127), (VELOCITY, words >> 6 & 31), (DURATION, words & 63)):
        at += 1
        ids[at] = (what + start).astype(np.uint16)
    return ids


def _slots(notes: Mapping[str, np.ndarray]) -> np.ndarray:
    """Each note's onset in positions from the start of the piece: int64 [n]."""
    position = notes["position"] * STEPS
    position += 0.5
    slot = position.astype(np.int64)
    slot += notes["bar"] * STEPS
    if slot.max() >= MAX_BARS * STEPS:
        np.minimum(slot, MAX_BARS * STEPS - 1, out=slot)
    return slot


def _durations(length: np.ndarray) -> np.ndarray:
    """Lengths in bars -> indices into DURATIONS, uint8 [n]."""
    return _HALF_STEPS.take((length * (2 * STEPS)).astype(np.int64), mode="clip")


def _changes(values: np.ndarray) -> np.ndarray:
    """Which of `values` differ from the previous one (the first always does): bool [n]."""
    out = np.empty(len(values), bool)
    out[0] = True
    np.not_equal(values[1:], values[:-1], out=out[1:])
    return out


def _bars_to(score: Score | OnBars, count: int) -> np.ndarray:
    """The lengths of the first `count` bars; bars past the last have its length."""
    if count <= len(score.bars):
        return score.bars[:count]
    return np.concatenate([score.bars, np.full(count - len(score.bars), score.bars[-1])])


def decode(ids: np.ndarray) -> Score:
    """The piece in `ids` (any integers, any shape), up to the first EOS. Invalid sequences are repaired:

    Ids outside the vocabulary, PAD and BOS are ignored. Notes before the first BAR get a separate bar. A note without
    velocity or duration takes those of the previous note (the first: 66, a quarter of the bar); without POSITION it
    starts the bar; without INSTRUMENT it is a piano. Stray velocities, durations and tempo digits are ignored; the last
    tempo in a bar is used, and without a tempo a bar lasts about 2 s. Notes past MAX_BARS bars are left out.
    """
    ids = np.asarray(ids).ravel().astype(np.int64)
    ids = ids[(ids >= 0) & (ids < VOCABULARY) & (ids != PAD) & (ids != BOS)]
    ends = np.flatnonzero(ids == EOS)
    ids = ids[: ends[0]] if len(ends) else ids

    at = np.flatnonzero(ids < VELOCITY)
    bar = np.cumsum(ids == BAR) - 1
    if len(at) and bar[at[0]] < 0:
        bar += 1
    at = at[bar[at] < MAX_BARS]
    following = np.concatenate([ids, [PAD, PAD]])
    second, third = following[at + 1], following[at + 2]
    has_velocity = _within(second, VELOCITY, POSITION)
    velocity = _carried(np.where(has_velocity, second - VELOCITY, -1), 16)
    last = np.where(has_velocity, third, second)
    duration = _carried(np.where(_within(last, DURATION, INSTRUMENT), last - DURATION, -1), 23)

    index = np.arange(len(ids))
    last_bar = np.maximum.accumulate(np.where(ids == BAR, index, -1))
    last_position = np.maximum.accumulate(np.where(_within(ids, POSITION, DURATION), index, -1))
    position = np.where(last_position > last_bar, ids[last_position] - POSITION, 0) if len(ids) else ids
    instrument = _carried(np.where(_within(ids, INSTRUMENT, TEMPO), ids - INSTRUMENT, -1), 0)[at]

    drum = instrument == DRUMS
    return Score.from_bars(
        bars=_bar_lengths(ids, bar, int(bar[at].max(initial=-1)) + 1),
        onset=bar[at] + position[at] / STEPS,
        length=DURATIONS[duration] / STEPS,
        pitch=ids[at],
        velocity=4 * velocity + 2,
        program=PROGRAMS[np.where(drum, 0, instrument)],
        drum=drum,
    )


def _within(ids: np.ndarray, low: int, high: int) -> np.ndarray:
    return (ids >= low) & (ids < high)


def _carried(values: np.ndarray, default: int) -> np.ndarray:
    """Each -1 replaced by the last value before it, or by `default` if there is none."""
    last = np.maximum.accumulate(np.where(values >= 0, np.arange(len(values)), -1))
    return np.where(last >= 0, values[last], default) if len(values) else values


def _bar_lengths(ids: np.ndarray, bar: np.ndarray, count: int) -> np.ndarray:
    """Seconds of the first `count` bars, from the pairs of tempo digits in `ids`; `bar`: the bar of each id."""
    digit = _within(ids, TEMPO, PAD)
    index = np.arange(len(ids))
    run = np.maximum.accumulate(np.where(digit, -1, index))  # the last id before this run of digits
    fine = np.flatnonzero(digit & ((index - run) % 2 == 0))
    step = (ids[fine - 1] - TEMPO) * DIGITS + ids[fine] - TEMPO
    of_bar = np.full(count, -1, np.int64)
    bars = np.maximum(bar[fine], 0)
    of_bar[bars[bars < count]] = step[bars < count]  # ascending, so the last tempo of a bar remains
    steps = _carried(of_bar, int(tempo_step(np.array(2.0))))
    return bar_seconds(steps)


def drum_notes(ids: np.ndarray) -> np.ndarray:
    """Which ids are NOTEs of a drum rather than a pitch: bool [n]. `ids` starts at the beginning of a piece, or holds
    several pieces in a row."""
    ids = np.asarray(ids).astype(np.int64)
    instrument = np.where(_within(ids, INSTRUMENT, TEMPO), ids - INSTRUMENT, np.where(ids == BOS, 0, -1))
    return (_carried(instrument, 0) == DRUMS) & (ids < VELOCITY)


def encode_tokens(path: Path) -> dict[str, np.ndarray]:
    """{"ids": uint16 [n], "changes": int32 [len(CHANGES)]} of a complete song: its tokens, and how often its reader had
    to change something. Raises ValueError for an unreadable file and for a file without notes."""
    score = midi.read_bars(path)
    if not len(score.notes["bar"]):
        raise ValueError("holds no notes")
    return {"ids": encode(score), "changes": np.array([score.changes[what] for what in midi.CHANGES], np.int32)}


TOKENS = Encoder(
    kind="tokens",
    version=f"tokens-{VERSION}-{midi.VERSION}",
    function=encode_tokens,
    processor=3.0,
    bytes_per_second=1e7,
)
