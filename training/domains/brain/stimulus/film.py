"""Decodes a film, a sound file or a still picture into small pictures and log-mel levels by time. Runs in the sandbox.

The result does not depend on the TR: pictures four times a second, sound ten times a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.data.encode import Encoder

if TYPE_CHECKING:
    import av

HEIGHT, WIDTH = 24, 32  # of the small pictures, in pixels
PICTURES = 4  # a second
LEVELS = 10  # a second, of sound
BANDS = 32  # mel bands
RATE = 16_000  # samples a second, to which sound is resampled
_WINDOW, _HOP = 800, 400  # samples: 50 and 25 ms
_LOW, _HIGH = 60.0, 7_800.0  # Hz
_FLOOR = 1e-8  # of the mean power of a band
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


def decode(path: Path) -> dict[str, np.ndarray]:
    """Pictures and sound of a file, from its first to its last time stamp.

    pictures: uint8 [n, HEIGHT, WIDTH, 3], PICTURES a second, each the mean of the frames in its quarter of a second
    (the one before, where there is none); n is 0 without pictures. levels: float16 [m, BANDS], log10 of the mean power
    in mel bands, LEVELS a second; m is 0 without sound. seconds: float64 [2], duration of pictures and of sound.

    Raises ValueError, with the reason, for a file that FFmpeg cannot read or that holds neither.
    """
    import av

    try:
        with av.open(str(path), metadata_errors="replace") as container:
            return _decoded(container)
    except av.FFmpegError as error:
        raise ValueError(
            f"cannot be decoded by FFmpeg: {error.strerror}. Convert it to .mp4 with H.264 and AAC"
        ) from None


def decode_picture(path: Path) -> dict[str, np.ndarray]:
    """One frame of a folder: picture, uint8 [HEIGHT, WIDTH, 3]. Raises ValueError as `decode`."""
    import av

    try:
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0), None)
            if frame is None:
                raise ValueError("holds no picture")
            return {"picture": _small(frame).round().astype(np.uint8)}
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"cannot be read as a picture: {error}") from None


def _decoded(container: av.container.InputContainer) -> dict[str, np.ndarray]:
    video = next((stream for stream in container.streams.video if not is_cover(stream)), None)
    audio = next(iter(container.streams.audio), None)
    streams = [stream for stream in (video, audio) if stream is not None]
    if not streams:
        raise ValueError("holds neither pictures nor sound")
    for stream in streams:
        stream.thread_count = 1  # threads reserve address space, which the sandbox limits
    pictures, sound = _Pictures(), _Sound()
    for packet in container.demux(streams):
        try:
            frames = packet.decode()
        except invalid_data():
            continue  # a damaged packet costs its frames; the times of the others are their own
        for frame in frames:
            if packet.stream is video:
                pictures.add(frame)
            else:
                sound.add(frame)
    sound.finish()
    if not pictures.number and not len(sound):
        raise ValueError("holds neither a picture nor a second of sound that can be decoded")
    shown = pictures.array()
    levels = sound.levels()
    return {
        "pictures": shown, "levels": levels,
        "seconds": np.array([len(shown) / PICTURES, len(levels) / LEVELS]),
    }  # fmt: skip


def invalid_data() -> type[Exception]:
    import av

    return av.error.InvalidDataError


def is_cover(stream: av.VideoStream) -> bool:
    """Whether it is a cover picture of a sound file."""
    import av

    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _small(frame: av.VideoFrame) -> np.ndarray:
    """A frame, averaged to the small size: float32 [HEIGHT, WIDTH, 3]."""
    small = frame.reformat(width=WIDTH, height=HEIGHT, format="rgb24", interpolation="AREA")
    return small.to_ndarray().astype(np.float32)


@dataclass
class _Pictures:
    """Means of frames by their time stamps."""

    sums: dict[int, np.ndarray] = field(default_factory=dict)  # bin -> float32 [HEIGHT, WIDTH, 3]
    counts: dict[int, int] = field(default_factory=dict)
    number: int = 0

    def add(self, frame: av.VideoFrame) -> None:
        if frame.time is None:
            return
        place = int(frame.time * PICTURES + 1e-6)
        if place < 0:
            return
        picture = _small(frame)
        if place in self.sums:
            self.sums[place] += picture
        else:
            self.sums[place] = picture
        self.counts[place] = self.counts.get(place, 0) + 1
        self.number += 1

    def array(self) -> np.ndarray:
        if not self.sums:
            return np.zeros((0, HEIGHT, WIDTH, 3), np.uint8)
        out = np.zeros((max(self.sums) + 1, HEIGHT, WIDTH, 3), np.uint8)
        before = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        for place in range(len(out)):
            if place in self.sums:
                before = (self.sums[place] / self.counts[place]).round().astype(np.uint8)
            out[place] = before
        return out


class _Sound:
    """Log-mel levels of a stream of sound, at the time of its stamps."""

    def __init__(self) -> None:
        import av

        self.resampler = av.AudioResampler("fltp", "mono", RATE)
        self.bank = mel_bank()
        self.samples = np.zeros(0, np.float32)
        self.powers: list[np.ndarray] = []
        self.begun = False

    def add(self, frame: av.AudioFrame) -> None:
        if not self.begun:  # sound that begins later than the pictures is preceded by silence
            late = max(0.0, frame.time or 0.0)
            self.samples = np.zeros(round(late * RATE), np.float32)
            self.begun = True
        for part in self.resampler.resample(frame):
            self._take(part.to_ndarray()[0])

    def finish(self) -> None:
        if self.begun:
            for part in self.resampler.resample(None):
                self._take(part.to_ndarray()[0])

    def _take(self, samples: np.ndarray) -> None:
        self.samples = np.concatenate([self.samples, np.nan_to_num(samples)])
        count = (len(self.samples) - _WINDOW) // _HOP + 1
        if count < 64:
            return
        self._analyse(count)

    def _analyse(self, count: int) -> None:
        windows = np.lib.stride_tricks.sliding_window_view(self.samples, _WINDOW)[::_HOP][:count]
        spectrum = np.fft.rfft(windows * np.hanning(_WINDOW).astype(np.float32), axis=1)
        self.powers.append((np.abs(spectrum) ** 2 @ self.bank / _WINDOW).astype(np.float32))
        self.samples = self.samples[count * _HOP :]

    def __len__(self) -> int:
        return sum(map(len, self.powers)) + max(0, (len(self.samples) - _WINDOW) // _HOP + 1)

    def levels(self) -> np.ndarray:
        """float16 [m, BANDS]."""
        rest = (len(self.samples) - _WINDOW) // _HOP + 1
        if rest > 0:
            self._analyse(rest)
        if not self.powers:
            return np.zeros((0, BANDS), np.float16)
        power = np.concatenate(self.powers)
        each = RATE // _HOP // LEVELS
        count = -(-len(power) // each)
        starts = np.arange(count) * each
        lengths = np.minimum(starts + each, len(power)) - starts
        means = np.add.reduceat(power, starts) / lengths[:, None]
        return np.log10(np.maximum(means, _FLOOR)).astype(np.float16)


def mel_bank() -> np.ndarray:
    """Triangular filters of equal height on the mel scale, float32 [_WINDOW // 2 + 1, BANDS].

    mel = 2595 log10(1 + f / 700) (O'Shaughnessy 1987, "Speech Communication: Human and Machine").
    """
    frequency = np.fft.rfftfreq(_WINDOW, 1 / RATE)
    mel = 2595 * np.log10(1 + np.array([_LOW, _HIGH]) / 700)
    edges = 700 * (10 ** (np.linspace(*mel, BANDS + 2) / 2595) - 1)
    rising = (frequency[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequency[:, None]) / (edges[2:] - edges[1:-1])
    return np.maximum(np.minimum(rising, falling), 0).astype(np.float32)


def frame_files(folder: Path) -> Iterator[Path]:
    """The pictures of a folder, numbers in their names in order: frame2 before frame10."""
    from training.domains.brain.bold.files import natural

    found = (path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
    yield from sorted(found, key=lambda path: natural(path.name))


FILM = Encoder("film", "film 1", decode, seconds=900.0, processor=60.0, bytes_per_second=100_000.0, megabytes=4096,
               imports=("av",))  # fmt: skip
PICTURE = Encoder("picture", "picture 1", decode_picture, megabytes=2048, imports=("av",))
