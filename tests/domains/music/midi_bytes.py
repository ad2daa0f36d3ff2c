"""MIDI files written byte by byte, for what no library would write."""

from __future__ import annotations

import struct
from collections.abc import Iterable

END = b"\x00\xff\x2f\x00"
Event = tuple[int, bytes]  # ticks since the last event, and the bytes after the delta time


def number(value: int) -> bytes:
    """A variable-length number."""
    out = [value & 0x7F]
    while value := value >> 7:
        out.append(value & 0x7F | 0x80)
    return bytes(reversed(out))


def track(events: Iterable[Event], end: bytes = END) -> bytes:
    body = b"".join(number(delta) + event for delta, event in events) + end
    return chunk(body)


def chunk(body: bytes, name: bytes = b"MTrk") -> bytes:
    return name + struct.pack(">I", len(body)) + body


def song(*tracks: bytes, per_quarter: int = 480, announced: int | None = None) -> bytes:
    count = len(tracks) if announced is None else announced
    return chunk(struct.pack(">HHH", 1, count, per_quarter), b"MThd") + b"".join(tracks)


def on(pitch: int, velocity: int = 80, channel: int = 0) -> bytes:
    return bytes([0x90 | channel, pitch, velocity])


def off(pitch: int, channel: int = 0) -> bytes:
    return bytes([0x80 | channel, pitch, 64])


def control(controller: int, value: int, channel: int = 0) -> bytes:
    return bytes([0xB0 | channel, controller, value])


def program(value: int, channel: int = 0) -> bytes:
    return bytes([0xC0 | channel, value])


def meta(kind: int, data: bytes) -> bytes:
    return bytes([0xFF, kind]) + number(len(data)) + data


def tempo(microseconds: int) -> bytes:
    return meta(0x51, microseconds.to_bytes(3, "big"))


def metre(numerator: int, power: int) -> bytes:
    return meta(0x58, bytes([numerator, power, 24, 8]))


def packet(data: bytes, first: bool = True) -> bytes:
    """A sysex event; a message ends with F7 in its last packet."""
    return (b"\xf0" if first else b"\xf7") + number(len(data)) + data


def sysex(*data: int) -> bytes:
    return packet(bytes(data) + b"\xf7")
