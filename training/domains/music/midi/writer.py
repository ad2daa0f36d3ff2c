"""Writes MIDI files with mido: in 4/4, with a tempo for each bar that gives it its duration in the score."""

from __future__ import annotations

import heapq
import io
from pathlib import Path
from typing import NamedTuple

import mido
import numpy as np

from training.data.files import write_atomic
from training.domains.music.midi.score import Score

PER_QUARTER = 480  # ticks; a multiple of 32, so that 1/128 of a bar is a whole number of ticks
BAR = 4 * PER_QUARTER
DRUM_CHANNEL = 9  # counted from 0: "channel 10"
CHANNELS = [channel for channel in range(16) if channel != DRUM_CHANNEL]


def write_midi(score: Score, path: Path) -> None:
    """Write `score` as a standard MIDI file (format 1), atomically; the folder is made if it is missing. Raises
    HostError if it cannot be written.

    One track per program, drums on channel 10. Notes that overlap an earlier one of the same pitch go to an additional
    track, so that every reader pairs note-on and note-off as in the score. Onsets are rounded to 1/1920 of a bar; a bar
    has one tempo.
    """
    file = mido.MidiFile(type=1, ticks_per_beat=PER_QUARTER)
    file.tracks.append(_conductor(score.bars))
    notes = score.notes
    start = notes["bar"] + notes["position"]
    onset = np.rint(start * BAR).astype(np.int64)
    end = np.maximum(onset + 1, np.rint((start + notes["length"]) * BAR).astype(np.int64))
    voices = _voices(notes, onset, end)
    channels = _channels(list(voices))
    programs: dict[int, set[int]] = {}
    for voice, channel in channels.items():
        programs.setdefault(channel, set()).add(voice.program)
    for voice, members in voices.items():
        channel = channels[voice]
        file.tracks.append(_track(notes, members, onset, end, voice, channel, len(programs[channel]) > 1))
    contents = io.BytesIO()
    file.save(file=contents)
    write_atomic(path, contents.getvalue())


class _Voice(NamedTuple):
    """A track: notes of one program, of which no two of the same pitch overlap."""

    drum: bool
    program: int
    number: int  # 0; higher for notes that overlap an earlier one of the same pitch


def _voices(notes: np.ndarray, onset: np.ndarray, end: np.ndarray) -> dict[_Voice, list[int]]:
    """Which notes (indices, by onset) each track holds."""
    voices: dict[_Voice, list[int]] = {}
    sounding: dict[tuple[bool, int, int], list[tuple[int, int]]] = {}  # heap of (end, voice number) of each pitch
    rows = zip(notes["drum"].tolist(), notes["program"].tolist(), notes["pitch"].tolist(), strict=True)
    for index, (drum, program, pitch) in enumerate(rows):
        busy = sounding.setdefault((drum, program, pitch), [])
        number = len(busy) if not busy or busy[0][0] > onset[index] else heapq.heappop(busy)[1]
        heapq.heappush(busy, (int(end[index]), number))
        voices.setdefault(_Voice(drum, program, number), []).append(index)
    return dict(sorted(voices.items()))


def _channels(voices: list[_Voice]) -> dict[_Voice, int]:
    """A channel for each track: its own while there are free ones, then its program's, then a shared one."""
    first: dict[int, int] = {}
    for voice in voices:
        if not voice.drum and voice.number == 0:
            first[voice.program] = CHANNELS[len(first) % len(CHANNELS)]
    spare = CHANNELS[len(first) :]
    channels = {}
    for voice in voices:
        if voice.drum:
            channels[voice] = DRUM_CHANNEL
        else:
            channels[voice] = spare.pop(0) if voice.number and spare else first[voice.program]
    return channels


def _conductor(bars: np.ndarray) -> mido.MidiTrack:
    """Metre and tempo: 4/4, and a tempo wherever the bar's length changes."""
    track = mido.MidiTrack([mido.MetaMessage("time_signature", numerator=4, denominator=4)])
    tempi = np.clip(np.rint(bars * (1e6 / 4)), 1, 2**24 - 1).astype(np.int64)
    changed = np.flatnonzero(np.diff(tempi, prepend=0))
    last = 0
    for bar in changed.tolist():
        track.append(mido.MetaMessage("set_tempo", tempo=int(tempi[bar]), time=(bar - last) * BAR))
        last = bar
    return track


def _track(
    notes: np.ndarray, members: list[int], onset: np.ndarray, end: np.ndarray, voice: _Voice, channel: int, shared: bool
) -> mido.MidiTrack:
    """One voice. On a channel `shared` by several programs, a program change precedes each note."""
    events = []
    for index in members:
        pitch, velocity = int(notes["pitch"][index]), int(notes["velocity"][index])
        on = mido.Message("note_on", channel=channel, note=pitch, velocity=velocity)
        off = mido.Message("note_off", channel=channel, note=pitch, velocity=0)
        events += [(int(onset[index]), 1, on), (int(end[index]), 0, off)]
    events.sort(key=lambda event: event[:2])  # at the same tick, note-offs come before note-ons
    program = mido.Message("program_change", channel=channel, program=voice.program)
    track = mido.MidiTrack([program])
    now = 0
    for tick, starts, message in events:
        if starts and shared:
            track.append(program.copy(time=tick - now))
            now = tick
        track.append(message.copy(time=tick - now))
        now = tick
    return track
