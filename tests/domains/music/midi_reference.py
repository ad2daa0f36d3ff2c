"""A reference reader of MIDI files (with mido, note by note, in exact fractions), and random files to read."""

from __future__ import annotations

import bisect
import random
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import mido


class Heard(NamedTuple):
    """A note as mido and exact fractions give it."""

    onset: Fraction  # seconds
    end: Fraction | None  # seconds; None: it has no note-off
    pitch: int
    velocity: int
    program: int
    drum: bool
    start: int  # ticks
    stop: int | None


def heard(file: mido.MidiFile) -> list[Heard]:
    """The notes of a file in file order: note-offs end the oldest note of their track, programs go by channel, in the
    order of mido.merge_tracks. Drums are channel 10 (mido does not interpret sysex messages and banks)."""
    tempi: list[tuple[int, int]] = []
    programs: list[tuple[tuple[int, int], int, int]] = []  # (tick, place in the file), channel, program
    notes: list[list] = []
    place = 0
    for track in file.tracks:
        tick, sounding = 0, {}
        for message in track:
            tick += message.time
            place += 1
            if message.type == "set_tempo":
                tempi.append((tick, message.tempo))
            elif message.type == "program_change":
                programs.append(((tick, place), message.channel, message.program))
            elif message.type == "note_on" and message.velocity:
                note = [(tick, place), None, message.note, message.velocity, message.channel]
                notes.append(note)
                sounding.setdefault((message.channel, message.note), []).append(note)
            elif message.type in ("note_on", "note_off") and sounding.get((message.channel, message.note)):
                sounding[message.channel, message.note].pop(0)[1] = tick
    seconds = seconds_of(tempi, file.ticks_per_beat)
    by_channel = {channel: sorted(row for row in programs if row[1] == channel) for channel in range(16)}
    out = []
    for when, stop, pitch, velocity, channel in notes:
        at = bisect.bisect_left(by_channel[channel], (when,))
        program = by_channel[channel][at - 1][2] if at and channel != 9 else 0
        end = None if stop is None else seconds(Fraction(stop))
        out.append(Heard(seconds(Fraction(when[0])), end, pitch, velocity, program, channel == 9, when[0], stop))
    return out


def seconds_of(tempi: list[tuple[int, int]], per_quarter: int) -> Callable[[Fraction], Fraction]:
    """Seconds at a tick; of several tempi at one tick the last in the file is used."""
    knots = [(0, 500_000, Fraction(0))]
    for at, value in sorted(tempi, key=lambda event: event[0]):
        before, tempo, total = knots[-1]
        knots.append((at, value, total + Fraction((at - before) * tempo, 1_000_000 * per_quarter)))
    ticks = [knot[0] for knot in knots]

    def seconds(tick: Fraction) -> Fraction:
        at, tempo, total = knots[bisect.bisect_right(ticks, tick) - 1]
        return total + (tick - at) * tempo / 1_000_000 / per_quarter

    return seconds


def slow_read(path: Path) -> tuple[list[tuple], bool]:
    """(bar, position, length in bars, onset s, duration s, pitch, velocity, program, drum) of each note, sorted, on the
    bars as written; and whether these are the bars of a `Score`: of 1 to 6 seconds, without a large change of tempo."""
    file = mido.MidiFile(path)
    tempi: list[tuple[int, int]] = []
    metres: list[tuple[int, int, int]] = []
    for track in file.tracks:
        tick = 0
        for message in track:
            tick += message.time
            if message.type == "set_tempo":
                tempi.append((tick, message.tempo))
            elif message.type == "time_signature":
                metres.append((tick, message.numerator, message.denominator))
    metres.sort(key=lambda event: event[0])
    notes = heard(file)
    last = max((note.start for note in notes), default=0)
    lines = _bar_lines(metres, file.ticks_per_beat, last)
    seconds = seconds_of(tempi, file.ticks_per_beat)
    times = [seconds(line) for line in lines]

    def bars(tick: Fraction) -> Fraction:
        bar = min(bisect.bisect_right(lines, tick), len(lines) - 1) - 1
        return bar + (tick - lines[bar]) / (lines[bar + 1] - lines[bar])

    used = [(a, b) for a, b, line in zip(times, times[1:], lines, strict=False) if line <= last]
    as_written = all(0.996 <= b - a <= 6.024 for a, b in used)
    for tick, _ in tempi:
        if tick <= last:
            x = bars(Fraction(tick))
            bar = int(x)
            on_line = times[bar] + (x - bar) * (times[bar + 1] - times[bar])
            as_written = as_written and abs(on_line - seconds(Fraction(tick))) <= 0.125

    out = []
    for note in notes:
        x = bars(Fraction(note.start))
        bar = int(x)
        end = Fraction(note.stop) if note.stop > note.start else note.start + (lines[bar + 1] - lines[bar]) / 128
        end = min(end, lines[-1])
        row = (bar, x - bar, bars(end) - x, note.onset, seconds(end) - note.onset)
        out.append((*row, note.pitch, note.velocity, note.program, note.drum))
    return sorted(out, key=lambda r: (r[3], r[7], r[5], r[8], r[6], r[4])), as_written


def _bar_lines(metres: list[tuple[int, int, int]], per_quarter: int, last: int) -> list[Fraction]:
    """Bar by bar: each has the length of the latest metre, unless the next metre event cuts it; nine bars past the
    last onset."""
    lines, length, over = [Fraction(0)], Fraction(4 * per_quarter), 0
    while over < 9:
        here = lines[-1]
        for tick, numerator, denominator in metres:
            if tick <= here:
                length = Fraction(4 * per_quarter * numerator, denominator)
        cut = [Fraction(tick) for tick, _, _ in metres if here < tick < here + length]
        lines.append(min(cut, default=here + length))
        over += here > last
    return lines


def random_file(seed: int, path: Path) -> None:
    """A file with every difficult case: odd metres, metre changes inside bars, two tempi at one tick, program changes
    during notes, overlaps of one pitch, notes of length zero, drums, several channels per track."""
    rng = random.Random(seed)
    per_quarter = rng.choice([1, 24, 96, 480, 480, 960])
    grain = max(1, per_quarter // 4)
    length = per_quarter * rng.choice([8, 40, 120])
    tracks: list[list[tuple[int, mido.Message | mido.MetaMessage]]] = [[] for _ in range(rng.randint(1, 5))]

    def when() -> int:
        return rng.randrange(0, length, grain)

    for _ in range(rng.choice([0, 1, 2, 5, 30])):
        tempo = mido.MetaMessage("set_tempo", tempo=rng.randint(150_000, 1_500_000))
        rng.choice(tracks).append((rng.choice([0, when(), rng.randrange(length)]), tempo))
    for _ in range(rng.choice([0, 1, 2, 5])):
        metre = {"numerator": rng.randint(1, 7), "denominator": rng.choice([2, 4, 8, 16])}
        rng.choice(tracks).append((rng.choice([0, when()]), mido.MetaMessage("time_signature", **metre)))
    for track in tracks:
        channels = [rng.choice([0, 1, 2, 9, 15]) for _ in range(2)]
        for _ in range(rng.choice([0, 1, 4])):
            track.append(
                (when(), mido.Message("program_change", channel=rng.choice(channels), program=rng.randrange(128)))
            )
        for _ in range(rng.choice([0, 5, 60])):
            channel, pitch = rng.choice(channels), rng.choice([0, 127, rng.randrange(128), 60, 60, 60])
            start = rng.choice([when(), rng.randrange(length)])
            stop = start + rng.choice([0, 1, grain, per_quarter, rng.randrange(1, length), 50 * per_quarter])
            velocity = rng.choice([1, 127, rng.randint(1, 127)])
            off = rng.choice(["note_on", "note_off"])
            track.append((start, mido.Message("note_on", channel=channel, note=pitch, velocity=velocity)))
            track.append((stop, mido.Message(off, channel=channel, note=pitch, velocity=0)))
    file = mido.MidiFile(type=1, ticks_per_beat=per_quarter)
    for track in tracks:
        track.sort(key=lambda event: event[0])
        now, written = 0, mido.MidiTrack()
        for tick, message in track:
            written.append(message.copy(time=tick - now))
            now = tick
        file.tracks.append(written)
    file.save(path)


def raw_file(body: bytes, division: int = 480, form: int = 0, length: int | None = None) -> bytes:
    """One track of raw event bytes, with a header that may be wrong."""
    size = len(body) if length is None else length
    return b"MThd" + struct.pack(">IHHH", 6, form, 1, division) + b"MTrk" + struct.pack(">I", size) + body


NOTE_BODY = bytes([0, 0x90, 60, 64, 16, 0x80, 60, 0, 0, 0xFF, 0x2F, 0])
