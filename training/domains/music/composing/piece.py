"""A composed piece: voices in score time, with conversion to notes in seconds and to a MIDI file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mido
import numpy as np

from training.domains.music.composing.harmony import Metre
from training.domains.music.midi.notes import NOTE

TICKS = 480  # a quarter note


@dataclass(frozen=True)
class Sound:
    """A note in score time: quarter notes from the start."""

    onset: float
    duration: float
    pitch: int
    velocity: int


@dataclass(frozen=True)
class Voice:
    name: str
    program: int  # General MIDI 0..127; 0 for drums
    drum: bool
    sounds: tuple[Sound, ...]


@dataclass(frozen=True)
class Piece:
    """A finished piece. `tempi` are (quarters from the start, quarter notes a minute), the first at 0."""

    emotion: str
    title: str
    tonic: int  # pitch class
    mode: str
    metre: Metre
    bars: int
    tempi: tuple[tuple[float, float], ...]
    voices: tuple[Voice, ...]

    @property
    def tempo(self) -> float:
        """Beats a minute at the start (the beat of 6/8 is its dotted quarter)."""
        return self.tempi[0][1] / self.metre.quarters_a_beat

    @property
    def seconds(self) -> float:
        """Time of the last bar line."""
        return float(self.at(np.array([self.bars * self.metre.slots / 4]))[0])

    def at(self, quarters: np.ndarray) -> np.ndarray:
        """Score time (quarters) -> seconds."""
        starts = np.array([q for q, _ in self.tempi])
        pace = 60.0 / np.array([bpm for _, bpm in self.tempi])
        origin = np.concatenate([[0.0], np.cumsum(np.diff(starts) * pace[:-1])])
        which = np.searchsorted(starts, quarters, "right") - 1
        return origin[which] + (quarters - starts[which]) * pace[which]

    def notes(self) -> np.ndarray:
        """The piece as an array of NOTE, sorted by (onset, program, pitch)."""
        flat = [(s, v.program, v.drum) for v in self.voices for s in v.sounds]
        out = np.zeros(len(flat), NOTE)
        onset = np.array([s.onset for s, _, _ in flat])
        out["onset"] = self.at(onset)
        out["duration"] = self.at(onset + np.array([s.duration for s, _, _ in flat])) - out["onset"]
        out["pitch"] = [s.pitch for s, _, _ in flat]
        out["velocity"] = [s.velocity for s, _, _ in flat]
        out["program"] = [program for _, program, _ in flat]
        out["drum"] = [drum for _, _, drum in flat]
        return out[np.lexsort((out["pitch"], out["program"], out["onset"]))]

    def midi(self) -> mido.MidiFile:
        """The piece as a MIDI file of format 1: a conductor track, then one track per voice."""
        file = mido.MidiFile(type=1, ticks_per_beat=TICKS)
        conductor = file.add_track(self.title)
        conductor.append(mido.MetaMessage("text", text=f"synthetic: composed by rules for {self.emotion}"))
        conductor.append(
            mido.MetaMessage("time_signature", numerator=self.metre.numerator, denominator=self.metre.denominator)
        )
        now = 0
        for quarter, bpm in self.tempi:
            tick = round(quarter * TICKS)
            conductor.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(bpm), time=tick - now))
            now = tick
        channels = iter([c for c in range(16) if c != 9])
        for voice in self.voices:
            _write_track(file.add_track(voice.name), voice, 9 if voice.drum else next(channels))
        return file

    def write(self, path: Path) -> None:
        self.midi().save(path)


def _write_track(track: mido.MidiTrack, voice: Voice, channel: int) -> None:
    if not voice.drum:
        track.append(mido.Message("program_change", program=voice.program, channel=channel))
    events = []
    for sound in voice.sounds:
        start, end = round(sound.onset * TICKS), round((sound.onset + sound.duration) * TICKS)
        events.append((start, 1, sound.pitch, sound.velocity))
        events.append((max(end, start + 1), 0, sound.pitch, 0))  # a pitch ends before it starts again
    now = 0
    for tick, on, pitch, velocity in sorted(events):
        kind = "note_on" if on else "note_off"
        track.append(mido.Message(kind, note=pitch, velocity=velocity, channel=channel, time=tick - now))
        now = tick
