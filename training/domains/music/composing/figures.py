"""Accompaniment figures, bass lines and drum patterns: a bar at a time, for any metre.

A figure gets the bar (its metre and its chords) and returns strokes on the grid of sixteenths, counted from the bar's
start. Figures are named in the production rules (emotions.yaml).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from training.domains.music.composing.harmony import Chord, Metre, near


@dataclass(frozen=True)
class Stroke:
    """A note of a figure: slot and length in sixteenths, pitch, and how much louder than its voice (MIDI velocity)."""

    slot: float
    length: float
    pitch: int
    louder: float = 0.0
    held: bool = False  # sounds for its full length, whatever the articulation


@dataclass(frozen=True)
class Span:
    """A chord within a bar: [start, end) in slots, the pitches of its voicing, its bass pitch."""

    start: int
    end: int
    chord: Chord
    voiced: tuple[int, ...]
    bass: int


@dataclass(frozen=True)
class Bar:
    metre: Metre
    spans: tuple[Span, ...]
    tonic: int  # pitch class
    next_bass: int  # the bass pitch of the next bar
    ends_phrase: bool
    opens_phrase: bool
    habit: int  # drawn once per piece: selects one variant of each figure


def _eighths(span: Span) -> range:
    return range(span.start, span.end, 2)


def _chord(slot: float, length: float, span: Span, louder: float = 0.0, held: bool = False) -> Iterator[Stroke]:
    return (Stroke(slot, length, pitch, louder, held) for pitch in span.voiced)


# -- accompaniment -------------------------------------------------------------------------------------------------


def pad(bar: Bar) -> Iterator[Stroke]:
    for span in bar.spans:
        yield from _chord(span.start, span.end - span.start, span, held=True)


def offbeat(bar: Bar) -> Iterator[Stroke]:
    """Short chords between the beats; on the weak beats of a waltz."""
    waltz = bar.metre.numerator == 3
    for span in bar.spans:
        for slot in _eighths(span):
            on_beat = slot in bar.metre.beats
            if (waltz and on_beat and slot) or (not waltz and not on_beat):
                yield from _chord(slot, 2, span)


def strum(bar: Bar) -> Iterator[Stroke]:
    skipped = ({2, 8}, {2, 6}, {2, 8, 14})[bar.habit % 3]
    for span in bar.spans:
        for slot in _eighths(span):
            if slot not in skipped:
                yield from _chord(slot, 2, span, 4.0 if slot in bar.metre.beats else -4.0)


def _sequence(bar: Bar, order: tuple[int, ...], every: int, held: bool) -> Iterator[Stroke]:
    for span in bar.spans:
        notes = (*span.voiced, span.voiced[0] + 12)
        for n, slot in enumerate(range(span.start, span.end, every)):
            yield Stroke(slot, every, notes[order[n % len(order)] % len(notes)], held=held)


def broken(bar: Bar) -> Iterator[Stroke]:
    return _sequence(bar, ((0, 1, 2, 1), (0, 2, 1, 2), (2, 1, 0, 1))[bar.habit % 3], 2, held=False)


def arpeggio(bar: Bar) -> Iterator[Stroke]:
    return _sequence(bar, ((0, 1, 2, 3, 2, 1), (0, 1, 2, 3), (3, 2, 1, 0))[bar.habit % 3], 2, held=True)


def alberti(bar: Bar) -> Iterator[Stroke]:
    return _sequence(bar, (0, 2, 1, 2), 2, held=True)


def chug(bar: Bar) -> Iterator[Stroke]:
    """Driving low chords: eighths, with pairs of sixteenths in places selected by the piece's habit."""
    doubled = ({6, 14}, {2, 10}, {14}, {4, 6, 12, 14})[bar.habit % 4]
    for span in bar.spans:
        for slot in _eighths(span):
            yield from _chord(slot, 1 if slot in doubled else 2, span, 4.0 if slot in bar.metre.beats else -3.0)
            if slot in doubled:
                yield from _chord(slot + 1, 1, span, -5.0)


def stabs(bar: Bar) -> Iterator[Stroke]:
    hits = ((0, 6, 10), (0, 3, 6, 12), (2, 8, 14), (0, 10, 12))[bar.habit % 4]
    for span in bar.spans:
        for slot in hits:
            if span.start <= slot < span.end:
                yield from _chord(slot, 2, span, 5.0)


def tremolo(bar: Bar) -> Iterator[Stroke]:
    """Two chord tones in quick turn, over the others held; quiet in the second half of every other bar."""
    for span in bar.spans:
        low, *_, high = span.voiced
        for slot in _eighths(span):
            yield Stroke(slot, 2, high if slot % 4 == 0 else high - 1, held=True)
        yield Stroke(span.start, span.end - span.start, low, -2.0, held=True)


def pluck_run(bar: Bar) -> Iterator[Stroke]:
    """A run of sixteenths up (or down) through the chord, then a rest."""
    for n, span in enumerate(bar.spans):
        if (n + bar.habit) % 2 and len(bar.spans) > 1:
            continue
        notes = [*span.voiced, *(p + 12 for p in span.voiced)][:6]
        start = span.start + (0, 2, 4, 6)[bar.habit % 4]
        for k, pitch in enumerate(notes if bar.habit % 3 else notes[::-1]):
            if start + k < span.end:
                yield Stroke(start + k, 1, pitch, -4.0 + 2.0 * k)


def oompah(bar: Bar) -> Iterator[Stroke]:
    """Heavy chords on the beats that the bass leaves, the last one late."""
    for slot in bar.metre.beats[1:]:
        span = next(s for s in bar.spans if s.start <= slot < s.end)
        late = 1 if slot == bar.metre.beats[-1] and bar.habit % 2 else 0
        yield from _chord(slot + late, 3 - late, span)


def smear(bar: Bar) -> Iterator[Stroke]:
    """A chord that sags by a semitone before its end."""
    for span in bar.spans:
        turn = span.end - max(2, (span.end - span.start) // 4)
        for pitch in span.voiced:
            yield Stroke(span.start, turn - span.start, pitch)
            yield Stroke(turn, span.end - turn, pitch - 1, -6.0)


# -- bass ----------------------------------------------------------------------------------------------------------


def root_fifth(bar: Bar) -> Iterator[Stroke]:
    for n, slot in enumerate(bar.metre.beats):
        span = next(s for s in bar.spans if s.start <= slot < s.end)
        if n % 2 == 0 or len(bar.metre.beats) == 3:
            yield Stroke(slot, 4, span.bass + (7 if n >= 2 and slot != span.start else 0))


def walking(bar: Bar) -> Iterator[Stroke]:
    """A note a beat through the chord, the last one leaning on the next bar's root."""
    for n, slot in enumerate(bar.metre.beats):
        span = next(s for s in bar.spans if s.start <= slot < s.end)
        if slot == bar.metre.beats[-1] and n:
            pitch = bar.next_bass + (-1 if span.bass < bar.next_bass else 2)
        else:
            tones = [span.bass, *(span.bass + (c - span.bass) % 12 for c in span.chord.classes[1:3])]
            pitch = tones[0] if slot == span.start else tones[n % 3]
        yield Stroke(slot, 4, pitch)


def bounce(bar: Bar) -> Iterator[Stroke]:
    for span in bar.spans:
        for slot in _eighths(span):
            on_beat = slot in bar.metre.beats
            yield Stroke(slot, 2, span.bass + (0 if on_beat else 12), 2.0 if on_beat else -5.0)


def long(bar: Bar) -> Iterator[Stroke]:
    for span in bar.spans:
        yield Stroke(span.start, span.end - span.start, span.bass, held=True)


def root_fifth_slow(bar: Bar) -> Iterator[Stroke]:
    for span in bar.spans:
        half = span.start + (span.end - span.start) // 2
        half -= half % 2
        yield Stroke(span.start, half - span.start, span.bass, held=True)
        yield Stroke(half, span.end - half, span.bass + 7, -3.0, held=True)


def eighths(bar: Bar) -> Iterator[Stroke]:
    for span in bar.spans:
        for slot in _eighths(span):
            yield Stroke(slot, 2, span.bass, 4.0 if slot in bar.metre.beats else -2.0)


def gallop(bar: Bar) -> Iterator[Stroke]:
    """Long, short, short: a gallop on the first half of each pair of beats, the plain beat on the second."""
    for span in bar.spans:
        for slot in range(span.start, span.end):
            step = (slot - span.start) % 8
            if step in (0, 2, 3, 4):
                yield Stroke(slot, {0: 2, 4: 4}.get(step, 1), span.bass, 3.0 if step in (0, 4) else -4.0)


def pedal(bar: Bar) -> Iterator[Stroke]:
    yield Stroke(0, bar.metre.slots, near(bar.tonic, 36), held=True)


def heartbeat(bar: Bar) -> Iterator[Stroke]:
    for slot in (0, bar.metre.middle):
        yield Stroke(slot, 2, near(bar.tonic, 38), 4.0)
        yield Stroke(slot + 2, 4, near(bar.tonic, 38), -2.0)


def hops(bar: Bar) -> Iterator[Stroke]:
    for span in bar.spans:
        yield Stroke(span.start, 2, span.bass + 12)
        if span.start + 6 < span.end:
            yield Stroke(span.start + 6, 2, span.bass + 24, 4.0)


def root_offbeat(bar: Bar) -> Iterator[Stroke]:
    for span in bar.spans:
        yield Stroke(span.start + 2, 2, span.bass + 12)


def lurch(bar: Bar) -> Iterator[Stroke]:
    """Down on the beat, then again a sixteenth too late."""
    for span in bar.spans:
        yield Stroke(span.start, 4, span.bass, 5.0)
        late = span.start + 7
        if late + 2 <= span.end:
            yield Stroke(late, 3, span.bass - (1 if bar.habit % 2 else 5), -3.0)


def slide(bar: Bar) -> Iterator[Stroke]:
    """The root, sinking chromatically at the end of the bar."""
    for span in bar.spans:
        turn = span.end - 4 if span.end - span.start > 6 else span.end - 2
        yield Stroke(span.start, turn - span.start, span.bass)
        for k, slot in enumerate(range(turn, span.end, 2)):
            yield Stroke(slot, 2, span.bass + 2 - k, -4.0)


Figure = Callable[[Bar], Iterator[Stroke]]
ACCOMPANIMENT: dict[str, Figure] = {
    f.__name__: f
    for f in (pad, offbeat, strum, broken, arpeggio, alberti, chug, stabs, tremolo, pluck_run, oompah, smear)
}
BASSLINE: dict[str, Figure] = {
    f.__name__: f
    for f in (
        root_fifth, walking, bounce, long, root_fifth_slow, eighths, gallop, pedal, heartbeat, hops, root_offbeat,
        lurch, slide,
    )
}  # fmt: skip

# -- drums (General MIDI keys) -------------------------------------------------------------------------------------

KICK, STICK, SNARE, CLAP, HAT, OPEN_HAT, CRASH, RIDE, TAMBOURINE = 36, 37, 38, 39, 42, 46, 49, 51, 54
LOW_TOM, MID_TOM, HIGH_TOM, HIGH_BLOCK, LOW_BLOCK = 43, 47, 50, 76, 77

#: Pattern -> hits as (where, key, louder). `where` names slots of the bar: downs (1st, 3rd ... beat), backs (2nd,
#: 4th ...), beats, offs (eighths between beats), eighths, or a slot's number.
BEATS: dict[str, tuple[tuple[str | int, int, float], ...]] = {
    "pop": (("downs", KICK, 4), ("backs", SNARE, 4), ("eighths", HAT, -12)),
    "shuffle": (("downs", KICK, 2), ("backs", STICK, 2), ("beats", RIDE, -10), ("offs", HAT, -16)),
    "claps": (("beats", KICK, 0), ("backs", CLAP, 2), ("offs", TAMBOURINE, -10)),
    "rock": (("downs", KICK, 6), (6, KICK, 2), ("backs", SNARE, 6), ("eighths", HAT, -8)),
    "double_time": (("beats", KICK, 5), ("offs", SNARE, 3), ("beats", RIDE, -8)),
    "war": (("beats", KICK, 6), ("offs", LOW_TOM, -4), (3, MID_TOM, 0), (11, MID_TOM, 0), ("backs", HIGH_TOM, 2)),
    "brushes": (("beats", HAT, -14), ("backs", STICK, -12)),
    "heartbeat": ((0, KICK, 6), (2, KICK, -2)),
    "ticking": (("beats", HIGH_BLOCK, -4),),
    "blocks": ((3, HIGH_BLOCK, 4), (6, LOW_BLOCK, 0), (13, HIGH_BLOCK, -4)),
    "limp": ((0, KICK, 4), (7, LOW_TOM, 0), ("backs", STICK, -8)),
}  # fmt: skip


def drum_bar(name: str, bar: Bar, rng: np.random.Generator) -> Iterator[Stroke]:
    """A bar of the pattern, with a crash where a loud phrase opens and a fill where it ends."""
    metre = bar.metre
    every = range(0, metre.slots, 2)
    places = {
        "downs": metre.beats[::2],
        "backs": metre.beats[1::2] if metre.numerator != 3 else metre.beats[1:],
        "beats": metre.beats,
        "offs": [s for s in every if s not in metre.beats],
        "eighths": every,
    }
    fill_from = metre.slots
    if bar.ends_phrase and name in ("pop", "rock", "double_time", "war"):
        fill_from = metre.slots - 4
        for k, slot in enumerate(range(fill_from, metre.slots)):
            if k == 0 or rng.random() < 0.8:
                yield Stroke(slot, 1, (HIGH_TOM, MID_TOM, LOW_TOM, SNARE)[k], 2.0 + k)
    if bar.opens_phrase and name in ("rock", "double_time", "war", "pop"):
        yield Stroke(0, 2, CRASH, 2.0)
    for where, key, louder in BEATS[name]:
        for slot in (where,) if isinstance(where, int) else places[where]:
            if slot < fill_from:
                yield Stroke(slot, 1, key, louder)
