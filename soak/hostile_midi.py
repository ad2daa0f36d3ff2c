"""MIDI files: a valid one and its parts, and files that are damaged, or made to attack their reader."""

from __future__ import annotations

import random
import struct

import numpy as np


def length(number: int) -> bytes:
    """A MIDI variable-length quantity."""
    out = [number & 0x7F]
    while number := number >> 7:
        out.append(number & 0x7F | 0x80)
    return bytes(reversed(out))


def track(events: bytes, end: bool = True) -> bytes:
    body = events + (b"\x00\xff\x2f\x00" if end else b"")
    return b"MTrk" + struct.pack(">I", len(body)) + body


def header(tracks: int, division: int = 480, form: int = 1) -> bytes:
    return b"MThd" + struct.pack(">IHHH", 6, form, tracks, division)


def notes(seed: int, count: int = 16) -> bytes:
    """Events of notes, one after another."""
    numbers = random.Random(seed)
    out = bytearray()
    for _ in range(count):
        pitch = numbers.randrange(40, 90)
        out += bytes([0, 0x90, pitch, numbers.randrange(40, 120)]) + length(numbers.choice((120, 240, 480)))
        out += bytes([0x80, pitch, 0])
    return bytes(out)


def song(seed: int) -> bytes:
    """A valid MIDI file."""
    return header(1) + track(notes(seed))


# -- hostile files -------------------------------------------------------------------------------------------------


def tempo_storm(numbers: random.Random, _: str) -> bytes:
    """1.4 million tempo events on one tick, each different."""
    count = 1_400_000
    events = np.zeros((count, 7), np.uint8)
    events[:, 1:4] = (0xFF, 0x51, 3)
    events[:, 4:] = np.random.default_rng(numbers.randrange(99)).integers(1, 255, (count, 3))
    return header(1) + track(events.tobytes() + length(2**28 - 1) + b"\x90\x40\x40" + notes(1))


def metre_storm(numbers: random.Random, _: str) -> bytes:
    """10^6 time signatures, one per tick."""
    count = 1_000_000
    events = np.zeros((count, 8), np.uint8)
    events[:] = (1, 0xFF, 0x58, 4, 4, 2, 24, 8)
    events[:, 4] = np.random.default_rng(numbers.randrange(99)).integers(1, 30, count)
    return header(1) + track(events.tobytes() + notes(1))


def far_notes(numbers: random.Random, _: str) -> bytes:
    """Notes up to 39 times the longest delta time (2^28 ticks) later, with as little as one tick per quarter note."""
    far = b"".join(length(2**28 - 1) + b"\xff\x01\x00" for _ in range(numbers.randrange(2, 40)))
    return header(1, division=numbers.choice((1, 24, 96))) + track(notes(2) + far + notes(3))


def tiny_bars(numbers: random.Random, _: str) -> bytes:
    """Bars of a note of up to 1/2^255: shorter than a tick."""
    denominator = numbers.choice((30, 64, 255))
    metre = b"\x00\xff\x58\x04" + bytes([1, denominator, 24, 8])
    return header(1) + track(metre + notes(4) + length(2**24) + notes(5)[1:])


def no_notes(numbers: random.Random, _: str) -> bytes:
    return numbers.choice((
        header(0), header(1) + track(b""), header(1) + track(b"\x00\xff\x03\x05title"),
        header(1) + track(b"".join(bytes([0, 0x90, p, 0]) for p in range(30, 90))),  # of velocity 0: note-offs
        header(1) + track(b"".join(bytes([10, 0x80, p, 80]) for p in range(30, 90))),
        header(1) + track(b"".join(bytes([10, 0xB0, 7, v]) for v in range(100))),
    ))  # fmt: skip


def odd_header(numbers: random.Random, _: str) -> bytes:
    body = track(notes(numbers.randrange(9)))
    return numbers.choice((
        header(1, division=0) + body, header(1, form=2) + body, header(1, division=0x8000) + body,
        header(1, division=0xFF00 | 10) + body, header(1, division=0xE200) + body, b"RIFF\0\0\0\0RMID" + body,
        b"MThd" + body, header(1)[:9], b"mthd" + header(1)[4:] + body, header(1),
    ))  # fmt: skip


def endless_track(numbers: random.Random, _: str) -> bytes:
    """Tracks and events whose stated length is greater than the file."""
    good = notes(7)
    return numbers.choice((
        header(1) + b"MTrk" + struct.pack(">I", 2**32 - 1) + b"\x00\xf0" + length(2**28 - 1) + b"\x01" * 100,
        header(1) + track(b"\x00\xff\x01" + length(2**28 - 1) + b"x" * 50, end=False),
        header(1) + track(b"\x00\xff\x01\xff\xff\xff\xff\xff\xff" + good, end=False),
        header(1) + track(b"\x00\x40\x40" + good[:3], end=False),  # running status with nothing before it
        header(65535) + b"MTrk\xff\xff\xff\xff" * 3000,
        header(1) + track(b"\xff" * 100_000, end=False),
    ))  # fmt: skip


def zero_tempo(numbers: random.Random, _: str) -> bytes:
    event = numbers.choice((b"\x00\xff\x51\x03\x00\x00\x00", b"\x00\xff\x58\x04\x00\x02\x18\x08"))
    return header(1) + track(event + notes(8))


def big_midi(numbers: random.Random, _: str) -> bytes:
    """65 MB of events."""
    unit = notes(numbers.randrange(9), 4000)
    return header(1) + track(unit * (65 * 2**20 // len(unit) + 1))
