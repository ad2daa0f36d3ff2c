"""Generated scores and recordings for benchmarks: all different, and of realistic sizes."""

from __future__ import annotations

import struct
import wave
from pathlib import Path

import numpy as np
import soundfile

_TICKS = 480  # a beat; a beat is half a second


def score(path: Path, seed: int, notes: int, seconds: float, tracks: int = 4) -> None:
    """A standard MIDI file of format 1: a tempo, and `notes` notes over `seconds`, distributed to `tracks` channels."""
    random = np.random.default_rng((1, seed))
    parts = [b"\x00\xff\x51\x03" + (500_000).to_bytes(3, "big")]
    for track in range(tracks):
        count = notes // tracks
        begin = np.sort(random.integers(0, int(seconds * 2 * _TICKS), count))
        end = begin + random.integers(_TICKS // 8, _TICKS, count)
        pitch, velocity = random.integers(36, 96, count), random.integers(30, 120, count)
        time = np.concatenate([begin, end])
        events = sorted(
            zip(time.tolist(), [1] * count + [0] * count, [*pitch.tolist()] * 2, [*velocity.tolist()] * 2, strict=True)
        )
        data, now = bytearray(b"\x00" + bytes([0xC0 | track, 8 * track])), 0
        for tick, is_on, key, strength in events:
            data += _varying(tick - now) + bytes([(0x90 if is_on else 0x80) | track, key, strength])
            now = tick
        parts.append(bytes(data))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.write(b"MThd" + struct.pack(">IHHH", 6, 1, len(parts), _TICKS))
        for part in parts:
            part += b"\x00\xff\x2f\x00"
            stream.write(b"MTrk" + struct.pack(">I", len(part)) + part)


def _varying(number: int) -> bytes:
    out = [number & 127]
    while number := number >> 7:
        out.append(number & 127 | 128)
    return bytes(reversed(out))


def noise(path: Path, seed: int, seconds: int, rate: int = 22050) -> None:
    """A WAV with one channel and 8 bits: the most seconds per byte, and quick to make."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng((3, seed)).integers(0, 256, seconds * rate, np.uint8).tobytes()
    with wave.open(str(path), "wb") as stream:
        stream.setparams((1, 1, rate, 0, "NONE", ""))
        stream.writeframes(samples)


def recording(path: Path, seed: int, seconds: float, rate: int = 44100, channels: int = 2) -> None:
    """Chords of decaying tones and a little noise; the format follows from the path's extension."""
    random = np.random.default_rng((2, seed))
    time = np.arange(int(seconds * rate)) / rate
    sound = np.zeros((len(time), channels), np.float32)
    decay = np.exp(-4 * (time % 0.5)).astype(np.float32)
    for _ in range(6):
        tone = np.sin(2 * np.pi * random.uniform(60, 3000) * time, dtype=np.float32) * decay
        sound += tone[:, None] * random.uniform(0.02, 0.12, channels).astype(np.float32)
    sound += random.normal(0, 0.003, sound.shape).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, rate)
