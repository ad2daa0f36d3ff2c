"""Rule-based performances of real scores, solo or by a band. Used by benchmarks/music/real_music.py.

Editions of old music have no dynamics and mostly no tempo, which a player adds and from which a listener infers the
emotion. So each piece is assigned one of four emotions that performers were instructed to express in studies (Juslin
2000, "Cue utilization in communication of emotion in music performance"): happy for major; sad, angry or fearful for
minor. Tempo, loudness, accents and articulation follow the rules for that emotion in
training/domains/music/emotions.yaml. In addition, for every emotion, two rules of the KTH system apply (Friberg,
Bresin, Sundberg 2006, "Overview of the KTH rule system for musical performance"): phrases rise and fall in loudness,
and higher notes of a melody are louder. Loudness also changes in terraces of eight bars. Random numbers are seeded by
the file's name.

    solo   a tune on one instrument, in the octave that suits it
    band   all voices of a score, one instrument each, from highest to lowest
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import mido
import numpy as np

from training.domains.music import emotion
from training.domains.music.emotion import ProductionRules
from training.errors import DataError

EMOTIONS = {"major": ("happy",), "minor": ("sad", "angry", "fear")}
PER_QUARTER = 480  # ticks

#: An instrument of the lexicon, and the median MIDI pitch at which it plays a tune.
SOLOISTS = {"piccolo": 86, "flute": 77, "violin": 74, "oboe": 72, "trumpet": 68, "clarinet": 67, "piano": 65,
            "viola": 62, "nylon_guitar": 58, "trombone": 54, "cello": 53, "bassoon": 51, "contrabass": 42}  # fmt: skip
#: Instruments of a band, highest voice to lowest; the inner ones are repeated if a score has more voices.
BANDS = {
    "strings": ("violin", "violin", "viola", "cello"),
    "winds": ("flute", "oboe", "clarinet", "bassoon"),
    "brass": ("trumpet", "trumpet", "trombone", "tuba"),
    "rock band": ("overdriven_guitar", "clean_guitar", "organ", "electric_bass"),
    "folk band": ("accordion", "steel_guitar", "nylon_guitar", "acoustic_bass"),
    "jazz band": ("alto_sax", "vibraphone", "piano", "acoustic_bass"),
    "choir": ("choir", "choir", "choir", "choir"),
    "chamber band": ("oboe", "harp", "french_horn", "contrabass"),
}
OCTAVE_BELOW = {"contrabass", "acoustic_bass", "electric_bass"}  # they sound an octave below their notation

PHRASE, TERRACE = 4, 8  # bars
ARCH = (6.0, 14.0)  # MIDI velocity between a phrase's ends and its middle
TERRACES = 7.0  # standard deviation of a terrace's MIDI velocity
HIGH_LOUD = 0.4  # MIDI velocity per semitone above the tune's mean
VOICES = {"highest": 5.0, "inner": -6.0, "lowest": 0.0}  # MIDI velocity in a band


class Sung(NamedTuple):
    """A note as written."""

    start: float  # quarters from the beginning of the first, full bar
    length: float  # quarters
    pitch: int


class Metre(NamedTuple):
    start: float  # quarters
    numerator: int
    denominator: int


@dataclass(frozen=True)
class Written:
    """A score: its voices, highest first, and its metres, the first at 0."""

    voices: Sequence[Sequence[Sung]]
    metres: Sequence[Metre]


@dataclass(frozen=True)
class Performance:
    emotion: str
    players: str  # "cello", or "rock band"
    midi: bytes


def written(score: Any) -> Written:
    """The notes of a music21 score, ties joined, without chord symbols and grace notes. Raises DataError if it has no
    notes."""
    from music21 import harmony, meter

    parts = list(score.parts) if score.hasPartLikeStreams() else [score]
    metres = [
        Metre(float(found.offset), found.numerator, found.denominator)
        for found in parts[0].flatten().getElementsByClass(meter.TimeSignature)
    ] or [Metre(0.0, 4, 4)]
    lead = _upbeat(parts[0], metres[0])
    voices = []
    for part in parts:
        notes = [
            Sung(float(found.offset) + lead, float(found.quarterLength), pitch.midi)
            for found in part.stripTies().flatten().notes
            if not isinstance(found, harmony.Harmony) and found.quarterLength > 0
            for pitch in found.pitches
        ]
        if notes:
            voices.append(sorted(notes))
    if not voices:
        raise DataError("the score has no notes")
    voices.sort(key=lambda notes: -float(np.mean([note.pitch for note in notes])))
    moved = [metre._replace(start=metre.start + lead if metre.start else 0.0) for metre in metres]
    return Written(voices, moved)


def _upbeat(part: Any, metre: Metre) -> float:
    """Quarters of rest before an upbeat, so that bar lines are where they are written."""
    first = part.getElementsByClass("Measure").first()
    bar = 4 * metre.numerator / metre.denominator
    length = float(first.duration.quarterLength) if first is not None else bar
    return bar - length if 0 < length < bar else 0.0


def perform(name: str, mode: str, score: Written, kind: str) -> Performance:
    """A performance of `score`, reproducible by `name`. `kind`: "solo" (its highest voice) or "band"."""
    random = np.random.default_rng(zlib.crc32(f"{kind} {name}".encode()))
    chosen = EMOTIONS[mode][random.integers(len(EMOTIONS[mode]))]
    rules = emotion.rules(chosen)
    if kind == "solo":
        players = list(SOLOISTS)[random.integers(len(SOLOISTS))]
        tune = score.voices[0]
        middle = float(np.median([note.pitch for note in tune]))
        octaves = round((SOLOISTS[players] - middle) / 12)
        parts = [(players, 12 * octaves, tune, 0.0)]
    else:
        players = list(BANDS)[random.integers(len(BANDS))]
        parts = _band(BANDS[players], score.voices)
    return Performance(chosen, players, _midi(parts, score.metres, rules, random))


def _band(names: Sequence[str], voices: Sequence[Sequence[Sung]]) -> list[tuple[str, int, Sequence[Sung], float]]:
    """(instrument, semitones to move by, notes, loudness) of every voice."""
    inner = names[1:-1]
    out = []
    for at, notes in enumerate(voices):
        place = "highest" if at == 0 else "lowest" if at == len(voices) - 1 else "inner"
        name = {"highest": names[0], "lowest": names[-1]}.get(place) or inner[(at - 1) % len(inner)]
        out.append((name, -12 if name in OCTAVE_BELOW else 0, notes, VOICES[place]))
    return out


def _midi(
    parts: Sequence[tuple[str, int, Sequence[Sung], float]],
    metres: Sequence[Metre],
    rules: ProductionRules,
    random: np.random.Generator,
) -> bytes:
    beat = random.uniform(*rules.tempo) * (1.5 if _compound(metres[0]) else 1.0)
    file = mido.MidiFile(type=1, ticks_per_beat=PER_QUARTER)
    file.tracks.append(_conductor(beat, metres))
    base, held = random.uniform(*rules.velocity), min(1.0, random.uniform(*rules.articulation))
    arch = random.uniform(*ARCH)
    bar = 4 * metres[0].numerator / metres[0].denominator
    end = max(note.start + note.length for _, _, notes, _ in parts for note in notes)
    terraces = TERRACES * random.standard_normal(int(end // (TERRACE * bar)) + 1)
    instruments = emotion.lexicon().instruments
    channels = [channel for channel in range(16) if channel != 9]
    for number, (name, semitones, notes, loudness) in enumerate(parts):
        start = np.array([note.start for note in notes])
        pitch = np.array([note.pitch for note in notes])
        phrase = np.sin(np.pi * ((start / (PHRASE * bar)) % 1))
        velocity = base + loudness + arch * (phrase - 0.5) + terraces[(start // (TERRACE * bar)).astype(int)]
        velocity += rules.accent * _strength(start, metres) + HIGH_LOUD * (pitch - pitch.mean())
        loud = np.clip(np.rint(velocity), 10, 126).astype(int)
        channel = channels[number % len(channels)]
        events = []
        for note, value in zip(notes, loud.tolist(), strict=True):
            on = round(note.start * PER_QUARTER)
            off = max(on + 1, round((note.start + held * note.length) * PER_QUARTER))
            key = note.pitch + semitones
            events.append((on, 1, mido.Message("note_on", channel=channel, note=key, velocity=value)))
            events.append((off, 0, mido.Message("note_off", channel=channel, note=key, velocity=0)))
        program = mido.Message("program_change", channel=channel, program=instruments[name])
        file.tracks.append(_track([(0, -1, program), *events]))
    out = io.BytesIO()
    file.save(file=out)
    return out.getvalue()


def _compound(metre: Metre) -> bool:
    return metre.denominator >= 8 and metre.numerator % 3 == 0


def _strength(start: np.ndarray, metres: Sequence[Metre]) -> np.ndarray:
    """1 on the first beat of a bar, .3 on the others, -.5 between beats."""
    at = np.searchsorted([metre.start for metre in metres], start + 1e-6, side="right") - 1
    begin = np.array([metre.start for metre in metres])[at]
    bar = np.array([4 * metre.numerator / metre.denominator for metre in metres])[at]
    beat = np.array([(12 if _compound(metre) else 4) / metre.denominator for metre in metres])[at]
    within = (start - begin) % bar
    on_beat = np.isclose(within % beat, 0, atol=1e-3) | np.isclose(within % beat, beat, atol=1e-3)
    on_bar = np.isclose(within, 0, atol=1e-3) | np.isclose(within, bar, atol=1e-3)
    return np.where(on_bar, 1.0, np.where(on_beat, 0.3, -0.5))


def _conductor(quarters_a_minute: float, metres: Sequence[Metre]) -> mido.MidiTrack:
    events = [(0, 0, mido.MetaMessage("set_tempo", tempo=round(60e6 / quarters_a_minute)))]
    for metre in metres:
        signature = {"numerator": metre.numerator, "denominator": metre.denominator}
        events.append((round(metre.start * PER_QUARTER), 1, mido.MetaMessage("time_signature", **signature)))
    return _track(events)


def _track(events: Sequence[tuple[int, int, Any]]) -> mido.MidiTrack:
    """Events (tick, rank, message) as a track: by time, note-offs before note-ons."""
    track, now = mido.MidiTrack(), 0
    for tick, _, message in sorted(events, key=lambda event: event[:2]):
        track.append(message.copy(time=tick - now))
        now = tick
    return track
