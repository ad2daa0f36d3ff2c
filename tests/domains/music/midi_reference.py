"""A reference reader of MIDI files (with mido, note by note, in exact fractions), and random files to read."""

from __future__ import annotations

import random
import struct
from fractions import Fraction
from pathlib import Path

import mido


def slow_read(path: Path) -> list[tuple]:
    """(bar, position, length in bars, onset s, duration s, pitch, velocity, program, drum) of each note, sorted."""
    file = mido.MidiFile(path)
    tempi: list[tuple[int, int]] = []
    metres: list[tuple[int, int, int]] = []
    notes = []
    for track in file.tracks:
        tick, programs, sounding = 0, {}, {}
        for message in track:
            tick += message.time
            if message.type == "set_tempo":
                tempi.append((tick, message.tempo))
            elif message.type == "time_signature":
                metres.append((tick, message.numerator, message.denominator))
            elif message.type == "program_change":
                programs[message.channel] = message.program
            elif message.type == "note_on" and message.velocity:
                program = programs.get(message.channel, 0)
                sounding.setdefault((message.channel, message.note), []).append((tick, message.velocity, program))
            elif message.type in ("note_on", "note_off") and sounding.get((message.channel, message.note)):
                start, velocity, program = sounding[message.channel, message.note].pop(0)
                notes.append((start, tick, message.note, velocity, program, message.channel == 9))
    tempi.sort(key=lambda event: event[0])
    metres.sort(key=lambda event: event[0])
    last = max((note[0] for note in notes), default=0)
    lines = _bar_lines(metres, file.ticks_per_beat, last)

    def seconds(tick: Fraction) -> Fraction:
        total, now, tempo = Fraction(0), Fraction(0), 500_000
        for at, value in tempi:
            if at >= tick:
                break
            total += (at - now) * tempo
            now, tempo = Fraction(at), value
        return (total + (tick - now) * tempo) / 1_000_000 / file.ticks_per_beat

    def bars(tick: Fraction) -> Fraction:
        bar = max(n for n in range(len(lines) - 1) if lines[n] <= tick)
        return bar + (tick - lines[bar]) / (lines[bar + 1] - lines[bar])

    out = []
    for start, stop, pitch, velocity, program, drum in notes:
        x = bars(Fraction(start))
        bar = int(x)
        end = Fraction(stop) if stop > start else start + (lines[bar + 1] - lines[bar]) / 128
        end = min(end, lines[-1])
        row = (bar, x - bar, bars(end) - x, seconds(Fraction(start)), seconds(end) - seconds(Fraction(start)))
        out.append((*row, pitch, velocity, 0 if drum else program, drum))
    return sorted(out, key=lambda r: (r[3], r[7], r[5], r[8], r[6], r[4]))


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
