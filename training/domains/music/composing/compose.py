"""A rule-based composer: short pieces of several voices, from the production rules of an emotion (emotions.yaml).

A piece is a pure function of (emotion, seed, index). It has a key, a mode, a metre, a tempo and a small ensemble;
phrases (A A' B A' and similar forms) over chord progressions of the mode with voice leading; a melody derived from a
one-bar motif, repeated, sequenced, inverted and closed with a cadence; an accompaniment figure, a bass line, sometimes
drums; and the devices of its emotion. Everything is on a grid of sixteenths; lengths follow from the articulation.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from training.domains.music.composing.figures import ACCOMPANIMENT, BASSLINE, Bar, Span, Stroke, drum_bar
from training.domains.music.composing.harmony import Chord, Metre, Scale, chord, near, voicing
from training.domains.music.composing.piece import Piece, Sound, Voice
from training.domains.music.emotion import ProductionRules, lexicon, rules

SECONDS = (20.0, 30.0)  # a piece's length, up to the last bar line
_FORMS = {
    2: ("A A+",),
    3: ("A B A+", "A A B+"),
    4: ("A A B A+", "A B A B+", "A A B B+"),
    5: ("A A B A A+", "A B A C A+", "A A B B A+"),
    6: ("A A B B A A+", "A B A C A B+", "A A B A C A+"),
}  # "+": closes the piece
_DRUM_VOICE = "drums"


def compose(emotion: str, seed: int, index: int) -> Piece:
    """The `index`-th piece of an emotion (any name that has production rules). Raises UsageError for another name."""
    return _Composer(emotion, seed, index).piece()


def _pick(rng: np.random.Generator, options: Sequence[str] | Mapping[str, float]) -> str:
    if isinstance(options, Mapping):
        weights = np.array(list(options.values()), float)
        return list(options)[int(rng.choice(len(weights), p=weights / weights.sum()))]
    return options[int(rng.integers(len(options)))]


@dataclass(frozen=True)
class _Phrase:
    """A section's material: the rhythm and contour of each bar, and the chords under them."""

    chords: tuple[tuple[int, int, int], ...]  # (bar, slot, degree from 0), rising; each lasts until the next
    rhythms: tuple[tuple[int, ...], ...]  # slots of each bar's melody onsets
    contours: tuple[tuple[int, ...], ...]  # step to each of them from the one before
    shift: int  # semitones from the home key
    thirds: bool


class _Composer:
    def __init__(self, emotion: str, seed: int, index: int):
        self.emotion, self.index = emotion, index
        self.rules: ProductionRules = rules(emotion)
        self.rng = rng = np.random.default_rng([seed, zlib.crc32(emotion.encode()), index])
        # One generator for all pieces of the emotion: neighbouring pieces differ in key, and tempi are spread evenly.
        plan = np.random.default_rng([seed, zlib.crc32(emotion.encode())])
        self.tonic = int(plan.permutation(12)[index % 12])
        spread = (plan.permutation(10)[index % 10] + rng.random()) / 10

        r = self.rules
        self.metre = Metre.parse(_pick(rng, r.metres))
        tempo = r.tempo[0] + spread * (r.tempo[1] - r.tempo[0])
        if self.metre.quarters_a_beat == 1.5:
            tempo *= 0.72  # a beat of three eighths takes longer than one of two
        self.tempo = round(tempo, 1)
        self.bar_seconds = self.metre.slots / 4 * 60 / (self.tempo * self.metre.quarters_a_beat)
        self.scale = Scale(self.tonic, _pick(rng, r.modes))
        self.kind = _pick(rng, r.chords)
        self.loudness = rng.uniform(*r.velocity)
        self.touch = rng.uniform(*r.articulation)
        self.density = rng.uniform(*r.density)
        self.habit = int(rng.integers(12))
        low, high = r.pitches
        shift = int(rng.integers(-2, 3))
        self.low, self.high = low + shift, high + shift
        self.backing_centre = max(43.0, self.low - 7.0) if self.kind != "power" else 45.0
        self.bass_centre = min(43.0, max(33.0, self.backing_centre - 17))
        self.figure = _pick(rng, r.accompaniment)
        self.bassline = _pick(rng, r.bassline)
        self.beat = _pick(rng, r.beats) if rng.random() < r.drums else None
        self.melody: list[Stroke] = []
        self.second: list[Stroke] = []  # the melody's parallel thirds
        self.backing: list[Stroke] = []
        self.bass: list[Stroke] = []
        self.drums: list[Stroke] = []

    def piece(self) -> Piece:
        rng = self.rng
        bars_a_phrase = 4 if self.bar_seconds < 2.6 else 2
        phrase_seconds = bars_a_phrase * self.bar_seconds
        fewest = max(2, math.ceil(SECONDS[0] / phrase_seconds))
        longest = SECONDS[1] - 1 if self.density < 3 else SECONDS[1] - 6  # busy pieces are kept short
        most = max(fewest, int(longest / phrase_seconds))
        count = int(rng.integers(fewest, most + 1))
        form = _pick(rng, _FORMS[min(count, 6)]).split()
        form = [*form[:1] * (count - len(form)), *form]
        sections = {name: self._section(name, bars_a_phrase) for name in sorted({f[0] for f in form})}
        bar = 0
        previous: tuple[int, ...] = ()
        for n, name in enumerate(form):
            phrase = sections[name[0]]
            varied = name[0] in [f[0] for f in form[:n]]
            previous = self._play(self._vary(phrase) if varied else phrase, bar, previous, name.endswith("+"), varied)
            bar += bars_a_phrase
        return self._finish(bar)

    def _section(self, name: str, bars: int) -> _Phrase:
        """New material: chords, and a melody plan of motif, repetition, variation, close."""
        rng, r = self.rng, self.rules
        degrees = [int(d) - 1 for d in _pick(rng, r.progressions).split()]
        if bars == 4:
            chords = [(n, 0, d) for n, d in enumerate(degrees)]
        else:
            chords = [(n // 2, self.metre.middle * (n % 2), d) for n, d in enumerate(degrees)]
        motif, contour = self._motif()
        other, other_contour = self._motif()
        inverted = tuple(-c for c in contour)
        plans = {
            4: (
                [(motif, contour), (motif, contour), (motif, inverted)],
                [(motif, contour), (other, other_contour), (motif, contour)],
                [(motif, contour), (motif, inverted), (other, other_contour)],
            ),
            2: ([(motif, contour)],),
        }[bars]
        plan = list(plans[int(rng.integers(len(plans)))])
        plan.append((self._close(motif), contour))
        shift = 0
        if "modulation" in r.devices and name != "A":
            shift = int(rng.choice([-4, -3, 1, 2, 3, 4]))
        thirds = "thirds" in r.devices and (name == "B" or rng.random() < 0.3)
        return _Phrase(tuple(chords), tuple(p[0] for p in plan), tuple(p[1] for p in plan), shift, thirds)

    def _motif(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """One bar: onsets drawn by metrical weight at the piece's density, and a contour of steps and leaps."""
        rng, r, slots = self.rng, self.rules, self.metre.slots
        wanted = int(np.clip(round(self.density * self.bar_seconds + rng.normal(0, 0.3)), 2, slots))
        weights = np.array([self.metre.strength(s) for s in range(slots)])
        sixteenths = np.arange(slots) % 2 == 1
        if wanted <= slots // 2:
            weights[sixteenths] *= 0.5 * r.syncopation
        scores = np.log(weights) * (1.4 - r.syncopation) + 0.45 * rng.gumbel(size=slots)
        if rng.random() > 0.6 * r.syncopation:
            scores[0] = np.inf  # most motifs start on the bar
        onsets = tuple(sorted(int(s) for s in np.argsort(-scores)[:wanted]))
        contour = []
        direction = int(rng.choice([-1, 1]))
        for _ in onsets:
            if rng.random() < 0.3:
                direction = -direction
            size = int(rng.integers(2, 6)) if rng.random() < r.leap else int(rng.choice([0, 1, 1, 1, 2]))
            contour.append(direction * size)
        return onsets, tuple(contour)

    def _close(self, motif: tuple[int, ...]) -> tuple[int, ...]:
        """A phrase's last bar: the motif's head, then one long note."""
        head = tuple(s for s in motif if s < self.metre.middle)
        return (*head[: max(1, len(head) - 1)], self.metre.middle) if len(head) > 1 else (0, self.metre.middle)

    def _vary(self, phrase: _Phrase) -> _Phrase:
        """The phrase again, with the rhythm and contour of one inner bar changed."""
        rhythms, contours = list(phrase.rhythms), list(phrase.contours)
        n = int(self.rng.integers(len(rhythms) - 1)) if len(rhythms) > 1 else 0
        onsets = set(rhythms[n])
        free = [s for s in range(0, self.metre.slots, 2) if s not in onsets]
        if free and self.rng.random() < 0.5:
            onsets.add(free[int(self.rng.integers(len(free)))])
        elif len(onsets) > 3:
            onsets.remove(sorted(onsets)[int(self.rng.integers(1, len(onsets)))])
        rhythms[n] = tuple(sorted(onsets))
        contours[n] = (*contours[n], 1)
        return replace(phrase, rhythms=tuple(rhythms), contours=tuple(contours))

    # one phrase -> strokes of every voice

    def _play(
        self, phrase: _Phrase, first: int, previous: tuple[int, ...], closes: bool, varied: bool
    ) -> tuple[int, ...]:
        """Add a phrase that starts at bar `first` to every voice; returns its last voicing."""
        r, slots, count = self.rules, self.metre.slots, len(phrase.rhythms)
        scale = Scale((self.tonic + phrase.shift) % 12, self.scale.mode)
        chords = list(phrase.chords)
        if closes:
            chords[-2:] = [(*chords[n][:2], r.cadence[n] - 1) for n in (-2, -1)]
        elif not varied:
            chords[-1] = (*chords[-1][:2], 4)  # a half cadence on the dominant
        closing = len(chords) - 2
        built = [(bar, slot, chord(scale, d, self.kind, n >= closing)) for n, (bar, slot, d) in enumerate(chords)]
        spans: list[list[Span]] = [[] for _ in range(count)]
        for n, (bar, slot, harmony) in enumerate(built):
            end = built[n + 1][1] if n + 1 < len(built) and built[n + 1][0] == bar else slots
            previous = voicing(harmony.classes, previous, self.backing_centre)
            spans[bar].append(Span(slot, end, harmony, previous, near(harmony.root, self.bass_centre)))
        self._melody(phrase, scale, spans, first, closes)
        for n in range(count):
            following = spans[n + 1][0].bass if n + 1 < count else near(scale.tonic, self.bass_centre)
            last = n == count - 1
            bar = Bar(self.metre, tuple(spans[n]), scale.tonic, following, last, n == 0, self.habit)
            start = (first + n) * slots
            if last and closes:
                final = spans[n][-1]
                self.backing += [Stroke(start, slots, p, held=True) for p in final.voiced]
                self.bass.append(Stroke(start, slots, final.bass, held=True))
                self.drums += [Stroke(start, 2, 36), Stroke(start, 4, 49)] if self.beat else []
                continue
            self.backing += _moved(ACCOMPANIMENT[self.figure](bar), start)
            self.bass += _moved(BASSLINE[self.bassline](bar), start)
            if self.beat:
                self.drums += _moved(drum_bar(self.beat, bar, self.rng), start)
        return previous

    def _melody(self, phrase: _Phrase, scale: Scale, spans: list[list[Span]], first: int, closes: bool) -> None:
        """Walk the contours through the scale; strong and long notes land on chord tones."""
        slots, rng = self.metre.slots, self.rng
        allowed = scale.steps(self.low, self.high)
        at = scale.step((2 * self.low + self.high) // 3 + phrase.shift)
        strokes: list[Stroke] = []
        for n, (onsets, contour) in enumerate(zip(phrase.rhythms, phrase.contours, strict=True)):
            last_bar = n == len(phrase.rhythms) - 1
            for k, slot in enumerate(onsets):
                length = (onsets[k + 1] if k + 1 < len(onsets) else slots) - slot
                span = next(s for s in spans[n] if s.start <= slot < s.end)
                final = last_bar and k == len(onsets) - 1
                before, at = at, _reflect(at + contour[k % len(contour)], allowed)
                if final or length >= 6 or self.metre.strength(slot) >= 0.65:
                    shunned = before if contour[k % len(contour)] else None
                    at = _nearest_tone(scale, at, span.chord, allowed, shunned, final and closes)
                pitch = scale.pitch(at)
                if span.chord.raised is not None and pitch % 12 == span.chord.raised:
                    pitch += 1
                start = (first + n) * slots + slot
                if "grace_notes" in self.rules.devices and length >= 4 and rng.random() < 0.4:
                    strokes.append(Stroke(start, 0.5, pitch - 1, -8.0))
                    start, length = start + 0.5, length - 0.5
                strokes.append(Stroke(start, length, pitch, held=final))
                if phrase.thirds and length >= 2:
                    self.second.append(Stroke(start, length, scale.pitch(at - 2), -10.0, held=final))
        self.melody += strokes

    # strokes -> sounds

    def _finish(self, bars: int) -> Piece:
        r, rng, slots = self.rules, self.rng, self.metre.slots
        programs = lexicon().instruments
        lead, backing, bass = (programs[_pick(rng, names)] for names in (r.lead, r.backing, r.bass))
        silences = self._silences(bars) if "sudden_rests" in r.devices else []
        shocks = self._shocks(bars, silences) if "sforzando" in r.devices else frozenset()
        voices = [
            self._voice("melody", lead, self.melody, 5.0, bars, silences, shocks),
            self._voice("second voice", lead, self.second, 0.0, bars, silences, shocks),
            self._voice("backing", backing, self.backing, -7.0, bars, silences, shocks),
            self._voice("bass", bass, self.bass, -1.0, bars, silences, shocks),
            self._voice(_DRUM_VOICE, 0, self.drums, 0.0, bars, silences, shocks),
        ]
        pace = self.tempo * self.metre.quarters_a_beat
        tempi = [(0.0, pace)]
        if "ritardando" in r.devices:
            tempi += [((bars - 2) * slots / 4, pace * 0.94), ((bars - 1) * slots / 4, pace * 0.84)]
        return Piece(
            self.emotion,
            f"{self.emotion} {self.index + 1}",
            self.tonic,
            self.scale.mode,
            self.metre,
            bars,
            tuple(tempi),
            tuple(v for v in voices if v.sounds),
        )

    def _silences(self, bars: int) -> list[tuple[int, int]]:
        """General pauses: a beat or two before a few bar lines, as (first, last + 1) slots."""
        chosen = self.rng.choice(np.arange(1, bars - 1), size=max(1, bars // 5), replace=False)
        cut = self.metre.slots - self.metre.beats[-1]
        return [(int(b) * self.metre.slots - cut, int(b) * self.metre.slots) for b in sorted(chosen)]

    def _shocks(self, bars: int, silences: list[tuple[int, int]]) -> frozenset[int]:
        """Slots at which every voice is struck hard: after the pauses, and one or two bar lines more."""
        more = self.rng.choice(np.arange(1, bars), size=max(1, bars // 8), replace=False)
        return frozenset([end for _, end in silences] + [int(b) * self.metre.slots for b in more])

    def _voice(
        self,
        name: str,
        program: int,
        strokes: list[Stroke],
        louder: float,
        bars: int,
        silences: list[tuple[int, int]],
        shocks: frozenset[int],
    ) -> Voice:
        slots, accent = self.metre.slots, self.rules.accent
        drum = name == _DRUM_VOICE
        sounds: dict[tuple[float, int], Sound] = {}
        for stroke in sorted(strokes, key=lambda s: (s.slot, s.pitch)):
            begin, length = stroke.slot, stroke.length
            hole = next((h for h in silences if begin < h[1] and begin + length > h[0]), None)
            if hole and begin >= hole[0]:
                continue
            if hole:
                length = hole[0] - begin
            strength = self.metre.strength(int(begin) % slots)
            arch = np.sin(np.pi * min(1.0, (begin / slots % 4) / 4 + 0.15)) - 0.6  # each four bars swell and fall
            velocity = self.loudness + louder + stroke.louder + accent * (strength - 0.5) + 5 * arch
            if begin in shocks:
                velocity += 1.6 * accent
            velocity += self.rng.normal(0, 1.5)
            if not (stroke.held or drum):
                length *= self.touch
            pitch = stroke.pitch if drum else _within(stroke.pitch)
            sound = Sound(begin / 4, length / 4, pitch, int(np.clip(round(velocity), 1, 127)))
            sounds.setdefault((begin, pitch), sound)
        return Voice(name, program, drum, tuple(_untangled(list(sounds.values()))))


def _moved(strokes: Iterable[Stroke], start: int) -> list[Stroke]:
    return [replace(stroke, slot=stroke.slot + start) for stroke in strokes]


def _within(pitch: int) -> int:
    """Move a pitch by octaves into the range of instruments."""
    while pitch < 24:
        pitch += 12
    while pitch > 103:
        pitch -= 12
    return pitch


def _reflect(step: int, allowed: range) -> int:
    if step < allowed[0]:
        step = 2 * allowed[0] - step
    if step > allowed[-1]:
        step = 2 * allowed[-1] - step
    return min(max(step, allowed[0]), allowed[-1])


def _nearest_tone(scale: Scale, step: int, harmony: Chord, allowed: range, shunned: int | None, root_only: bool) -> int:
    """The allowed step nearest to `step` that is a tone of the chord (its root, for the last note of all).

    `shunned`: the previous step, if the contour moves; it is chosen only if every other is more than a third away.
    """
    wanted = {harmony.root} if root_only else set(harmony.classes)
    if harmony.raised is not None:
        wanted = wanted | {harmony.raised}
    tones = [s for s in allowed if scale.pitch(s) % 12 in wanted]
    return min(tones, key=lambda s: (abs(s - step) + 2 * (s == shunned), s)) if tones else step


def _untangled(sounds: list[Sound]) -> list[Sound]:
    """Shorten each sound to end where the same pitch starts again."""
    upcoming: dict[int, float] = {}
    out = []
    for sound in reversed(sounds):
        until = upcoming.get(sound.pitch, np.inf)
        upcoming[sound.pitch] = sound.onset
        out.append(replace(sound, duration=min(sound.duration, until - sound.onset)))
    return out[::-1]
