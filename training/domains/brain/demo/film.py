"""Draws and encodes the demo's film."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from training.domains.brain.demo.world import FPS, TONES, Film

WIDTH, HEIGHT = 64, 48
RATE = 8_000  # samples a second
_RADIUS = 7.0  # of the blob, in pixels
_SECONDS = 10  # of sound that is made at a time


def write_film(path: Path, film: Film) -> None:
    """Write an .mp4 (MPEG-4 and AAC). The same film gives the same bytes with the same version of FFmpeg."""
    import av

    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        video = container.add_stream("mpeg4", rate=FPS)
        video.width, video.height, video.pix_fmt, video.bit_rate = WIDTH, HEIGHT, "yuv420p", 400_000
        sound = container.add_stream("aac", rate=RATE, layout="mono", options={"aac_coder": "fast"})
        for stream in (video, sound):
            stream.codec_context.flags |= av.codec.context.Flags.bitexact
            stream.codec_context.thread_count = 1
        frames, samples = _frames(film), _sound(film)
        total = len(film.speed)
        for begin in range(0, total, _SECONDS * FPS):  # pictures and sound alternate, as players expect
            for number in range(begin, min(begin + _SECONDS * FPS, total)):
                frame = av.VideoFrame.from_ndarray(next(frames), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, FPS)
                container.mux(video.encode(frame))
            at, part = next(samples)
            heard = av.AudioFrame.from_ndarray(part[None], format="fltp", layout="mono")
            heard.sample_rate, heard.pts, heard.time_base = RATE, at, Fraction(1, RATE)
            container.mux(sound.encode(heard))
        for stream in (video, sound):
            container.mux(stream.encode(None))


def _frames(film: Film) -> Iterator[np.ndarray]:
    """uint8 [HEIGHT, WIDTH, 3] of every frame: the colour of the scene, and the blob in its complement."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for colour, place in zip(film.colour, film.blob, strict=True):
        distance = (x - place[0] * WIDTH) ** 2 + (y - place[1] * HEIGHT) ** 2
        blob = np.exp(-distance / (2 * _RADIUS**2))[..., None]
        yield (255 * (colour + blob * (1 - 2 * colour))).clip(0, 255).astype(np.uint8)


def _sound(film: Film) -> Iterator[tuple[int, np.ndarray]]:
    """(first sample, float32 samples) of every _SECONDS of the film: tones of varying level."""
    total = round(len(film.speed) / FPS * RATE)
    for begin in range(0, total, _SECONDS * RATE):
        at = np.arange(begin, min(begin + _SECONDS * RATE, total))
        level = film.tone[np.minimum(at * FPS // RATE, len(film.tone) - 1)]
        waves = np.sin(2 * np.pi * np.outer(at / RATE, TONES))
        yield begin, (0.15 * (level * waves).sum(1)).astype(np.float32)
