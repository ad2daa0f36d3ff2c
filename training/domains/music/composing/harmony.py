"""Scales, chords, voice leading and metre: the music theory of the composer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: Semitones of the seven degrees above the tonic.
SCALES = {
    "ionian": (0, 2, 4, 5, 7, 9, 11),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "aeolian": (0, 2, 3, 5, 7, 8, 10),
    "locrian": (0, 1, 3, 5, 6, 8, 10),
    "harmonic_minor": (0, 2, 3, 5, 7, 8, 11),
    "hungarian_minor": (0, 2, 3, 6, 7, 8, 11),
    "phrygian_dominant": (0, 1, 4, 5, 7, 8, 10),
    "lydian_augmented": (0, 2, 4, 6, 8, 9, 11),
}


@dataclass(frozen=True)
class Scale:
    """A mode on a tonic (pitch class 0..11). A step counts degrees from MIDI pitch `tonic`: step 7 is an octave up."""

    tonic: int
    mode: str

    def pitch(self, step: int) -> int:
        """MIDI pitch of a step."""
        octave, degree = divmod(step, 7)
        return self.tonic + 12 * octave + SCALES[self.mode][degree]

    def step(self, pitch: int) -> int:
        """The step whose pitch is nearest (the lower of two equally near)."""
        guess = (pitch - self.tonic) * 7 // 12
        return min(range(guess - 2, guess + 4), key=lambda s: (abs(self.pitch(s) - pitch), s))

    def steps(self, low: int, high: int) -> range:
        """The steps whose pitches lie in [low, high]."""
        first, last = self.step(low), self.step(high)
        return range(first + (self.pitch(first) < low), last + (self.pitch(last) <= high))


@dataclass(frozen=True)
class Chord:
    """A degree of the scale (0 = tonic chord) as pitch classes, root first."""

    degree: int
    classes: tuple[int, ...]
    raised: int | None = None  # the scale's pitch class that this chord raises by a semitone (the leading tone)

    @property
    def root(self) -> int:
        return self.classes[0]


def chord(scale: Scale, degree: int, kind: str, cadence: bool = False) -> Chord:
    """The chord of `kind` on `degree`. A dominant that closes a phrase of a minor mode gets its leading tone."""

    def at(step: int) -> int:
        return scale.pitch(step) % 12

    raised = None
    third = at(degree + 2)
    if cadence and degree == 4 and scale.mode in ("aeolian", "dorian") and kind in ("triad", "seventh"):
        raised, third = third, (third + 1) % 12
    root, fifth = at(degree), at(degree + 4)
    classes = {
        "triad": (root, third, fifth),
        "seventh": (root, third, fifth, at(degree + 6)),
        "power": (root, (root + 7) % 12),
        "cluster": (root, (root + 1) % 12, third, fifth),
        "open": (root, fifth, at(degree + 1)),
    }[kind]
    return Chord(degree, classes, raised)


def voicing(classes: Sequence[int], previous: Sequence[int], centre: float) -> tuple[int, ...]:
    """Pitches for `classes` near `centre`, rising, that move least from the previous chord's pitches.

    Tries every inversion in close position; the cost is the summed distance of each voice to the nearest voice before,
    plus the distance of the chord's middle from `centre`.
    """
    best: tuple[float, tuple[int, ...]] | None = None
    for turn in range(len(classes)):
        order = [*classes[turn:], *classes[:turn]]
        for bottom in range(int(centre) - 14, int(centre) + 6):
            if bottom % 12 != order[0]:
                continue
            pitches = [bottom]
            for wanted in order[1:]:
                pitches.append(pitches[-1] + ((wanted - pitches[-1]) % 12 or 12))
            middle = sum(pitches) / len(pitches)
            moved = sum(min(abs(p - q) for q in previous) for p in pitches) if previous else 0
            cost = moved + 0.6 * abs(middle - centre) * len(pitches) ** 0.5
            if best is None or cost < best[0]:
                best = (cost, tuple(pitches))
    assert best is not None  # the octaves tried above hold every pitch class
    return best[1]


def near(pitch_class: int, centre: float) -> int:
    """The pitch of a class that is nearest to `centre`."""
    return round((centre - pitch_class) / 12) * 12 + pitch_class


@dataclass(frozen=True)
class Metre:
    """A metre on a grid of sixteenths ("slots")."""

    numerator: int
    denominator: int

    @classmethod
    def parse(cls, text: str) -> Metre:
        numerator, denominator = text.split("/")
        return cls(int(numerator), int(denominator))

    @property
    def slots(self) -> int:
        """Sixteenths in a bar."""
        return self.numerator * 16 // self.denominator

    @property
    def beats(self) -> tuple[int, ...]:
        """Slots of the felt beats: 6/8 has two, 7/8 is 2+2+3."""
        return {(6, 8): (0, 6), (7, 8): (0, 4, 8)}.get(
            (self.numerator, self.denominator), tuple(range(0, self.slots, 16 // self.denominator))
        )

    @property
    def middle(self) -> int:
        """The slot at which a bar's second half starts."""
        return self.beats[(len(self.beats) + 1) // 2]

    def strength(self, slot: int) -> float:
        """Metrical weight of a slot of the bar, in (0, 1]."""
        if slot == 0:
            return 1.0
        if slot == self.middle:
            return 0.8
        if slot in self.beats:
            return 0.65
        return 0.35 if slot % 2 == 0 else 0.12

    @property
    def quarters_a_beat(self) -> float:
        """Quarter notes in the beat that a tempo counts: 1.5 in 6/8, else 1."""
        return 1.5 if (self.numerator, self.denominator) == (6, 8) else 1.0
