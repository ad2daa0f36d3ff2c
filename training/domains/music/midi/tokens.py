"""The vocabulary of 388 ids, and pieces to and from it. Files and hosts depend on the table: it never changes.

    BOS (BAR [TEMPO TEMPO] (POSITION ([INSTRUMENT] NOTE VELOCITY DURATION)+)*)* EOS

TEMPO and INSTRUMENT stand where they change, and at the first bar and note. The notes of one onset are sorted by
instrument, then pitch (then velocity and duration). A piece ends with the bar of its last onset; a silence is told in
full, bar by bar.

What is rounded: onsets to 1/128 of a bar, durations to their grid, velocities to one of 32, a bar's length to one of
225 tempi 0.8 % apart. What is clipped: durations to 8 bars, and bars to 1..6 seconds (240 to 40 bars in four minutes):
a slower or faster one keeps its notes' places in the bar and plays at the nearest tempo there is.
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

STEPS = 128  # positions in a bar; durations count the same steps
#: Durations in 128ths of a bar: steps of 1, 2, 4 ... 64, so that plain and dotted values are exact.
DURATIONS = np.concatenate(
    [np.arange(1, 17), *(np.arange(16 << n, 32 << n, 2 << n) + (2 << n) for n in range(6))], dtype=np.int64
)
DRUMS = 16
TEMPI = 225
SLOWEST, FASTEST = 40.0, 240.0  # bars' rate: 240 / (bar length in seconds)
DIGITS = 15

#: A program to write for each family: its first, unless another is the more usual or has the wider range.
PROGRAMS = np.array([0, 11, 19, 24, 33, 40, 48, 56, 65, 73, 80, 89, 96, 104, 114, 120])
FAMILIES = (
    "piano", "chromatic percussion", "organ", "guitar", "bass", "strings", "ensemble", "brass", "reed", "pipe",
    "synth lead", "synth pad", "synth effects", "ethnic", "percussive", "sound effects", "drums",
)  # fmt: skip

VERSION = "1"  # of everything above that changes what is encoded
_BLOCKS = (
    (NOTE, "note"), (VELOCITY, "velocity"), (POSITION, "position"), (DURATION, "duration"),
    (INSTRUMENT, "instrument"), (TEMPO, "tempo"), (PAD, "pad"), (BOS, "bos"), (EOS, "eos"), (BAR, "bar"),
)  # fmt: skip
_PITCHES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


# Index of the nearest duration, by half steps: the border between two durations is a whole number of those.
_BORDERS = DURATIONS[1:] + DURATIONS[:-1]
_HALF_STEPS = np.searchsorted(_BORDERS, np.arange(2 * DURATIONS[-1] + 1), "right").astype(np.uint8)


def kinds() -> np.ndarray:
    """The kind of each id: str [388], one of note, velocity, position, duration, instrument, tempo, pad, bos, eos,
    bar."""
    starts = [start for start, _ in _BLOCKS]
    return np.repeat([kind for _, kind in _BLOCKS], np.diff([*starts, VOCABULARY]))


def describe(token: int) -> str:
    """One id's meaning, for people: `NOTE 60 (C4)`, `DURATION 48/128 of a bar`. Raises ValueError outside 0..387."""
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
    """Bar lengths in seconds -> the nearest tempo 0..224 (slowest first), int64; outside the range, its end."""
    rate = np.log(240.0 / SLOWEST / bars) * ((TEMPI - 1) / np.log(FASTEST / SLOWEST))
    return np.minimum(np.maximum(np.rint(rate), 0), TEMPI - 1).astype(np.int64)


def bar_seconds(step: np.ndarray) -> np.ndarray:
    """The length in seconds of a bar at tempo `step` 0..224."""
    return 240.0 / SLOWEST * (FASTEST / SLOWEST) ** (-np.asarray(step) / (TEMPI - 1))


def encode(score: Score | OnBars) -> np.ndarray:
    """The whole piece, BOS and EOS included, as uint16 [n]."""
    notes = score.notes
    if not len(notes["bar"]):
        return np.array([BOS, EOS], np.uint16)
    # Sorted as one number a note: far faster than by columns.
    key = _slots(notes)
    key <<= 5
    key |= np.maximum(notes["program"] >> 3, notes["drum"].view(np.uint8) * DRUMS)  # that of drums is the highest
    key <<= 7
    key |= notes["pitch"]
    key <<= 5
    key |= notes["velocity"] >> 2
    key <<= 6
    key |= _durations(notes["length"])
    key.sort()
    slot, words = key >> 23, key.astype(np.uint32)  # all of a note but its slot fits into half
    instrument = words >> 18 & 31
    new_slot, new_instrument = _changes(slot), _changes(instrument)
    bar = slot >> 7
    tempo = tempo_step(_bars_to(score, int(bar[-1]) + 1))
    new_tempo = _changes(tempo)

    # Where each bar and each note begins: everything before it, counted.
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
    # Told for every note, in this order: where an instrument or a position is none that is new, it is written over by
    # the position of its note or the duration of the note before.
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
    """Each note's onset in positions since the piece began: int64 [n]."""
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
    """Which of `values` differ from the one before; the first does. bool [n]."""
    out = np.empty(len(values), bool)
    out[0] = True
    np.not_equal(values[1:], values[:-1], out=out[1:])
    return out


def _bars_to(score: Score | OnBars, count: int) -> np.ndarray:
    """The lengths of the first `count` bars; the last one's goes on."""
    if count <= len(score.bars):
        return score.bars[:count]
    return np.concatenate([score.bars, np.full(count - len(score.bars), score.bars[-1])])


def decode(ids: np.ndarray) -> Score:
    """The piece that `ids` (any integers, any shape) tell, up to the first EOS; whatever is broken is repaired.

    Ids outside the vocabulary, PAD and BOS are passed over. Notes before the first BAR make a bar of their own. A note
    without velocity or duration takes the note's before it (the first: 66, a quarter of the bar); without POSITION it
    starts the bar; without INSTRUMENT it is a piano. Velocities, durations and tempo digits that belong to nothing are
    passed over; the last tempo in a bar counts, and with none a bar lasts about 2 s. Notes past MAX_BARS bars are left
    out.
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
    spoken = np.where(has_velocity, third, second)
    duration = _carried(np.where(_within(spoken, DURATION, INSTRUMENT), spoken - DURATION, -1), 23)

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
    told = np.maximum(bar[fine], 0)
    of_bar[told[told < count]] = step[told < count]  # ascending, so the last in a bar stays
    steps = _carried(of_bar, int(tempo_step(np.array(2.0))))
    return bar_seconds(steps)


def drum_notes(ids: np.ndarray) -> np.ndarray:
    """Which ids are NOTEs that name a drum rather than a pitch: bool [n]. `ids` starts at a piece's beginning, or holds
    several in a row."""
    ids = np.asarray(ids).astype(np.int64)
    told = np.where(_within(ids, INSTRUMENT, TEMPO), ids - INSTRUMENT, np.where(ids == BOS, 0, -1))
    return (_carried(told, 0) == DRUMS) & (ids < VELOCITY)


def encode_tokens(path: Path) -> dict[str, np.ndarray]:
    """{"ids": uint16 [n]}, the whole song. Raises ValueError for what cannot be read, and for a file without notes."""
    score = midi.read_bars(path)
    if not len(score.notes["bar"]):
        raise ValueError("holds no notes")
    return {"ids": encode(score)}


TOKENS = Encoder(
    kind="tokens",
    version=f"tokens-{VERSION}-{midi.VERSION}",
    function=encode_tokens,
    processor=3.0,
    bytes_per_second=1e7,
)
