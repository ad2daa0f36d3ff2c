"""The bytes of a file, and what a scan of them shows about its sound."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

WINDOW = 1 << 16
_FIRST_SEARCHED, _SEARCHED = 1 << 12, 1 << 20  # bytes that are searched at a time: first, and at most


@dataclass(frozen=True)
class Contents:
    """What the bytes of a sound file show without decoding. Where nothing is known: the defaults."""

    seconds: float | None = None  # of sound, counted; None: not counted
    complete: bool = True  # libsndfile reads all of it; False: it would stop early, so ffmpeg decodes the file
    strict: bool = False  # every error that ffmpeg reports is damage
    why: str = ""  # where libsndfile would stop early: the reason


class Source:
    """Random access to a file's bytes through a small window. (A mapping of a large file would exceed the address space
    of a decoding worker.)"""

    def __init__(self, stream: BinaryIO, size: int):
        self._stream, self.size = stream, size
        self._window, self._at = b"", 0

    def read(self, at: int, count: int) -> bytes:
        """`count` bytes from offset `at` on; fewer at the end of the file."""
        begin = at - self._at
        if begin < 0 or begin + count > len(self._window):
            self._stream.seek(at)
            self._window, self._at, begin = self._stream.read(max(count, WINDOW)), at, 0
        return self._window[begin : begin + count]

    def find(self, pattern: bytes, at: int) -> int:
        """The offset of the first `pattern` from `at` on; -1: there is none."""
        count = _FIRST_SEARCHED
        while at < self.size:
            self._stream.seek(at)
            block = self._stream.read(count)
            place = block.find(pattern)
            if place >= 0:
                return at + place
            if len(block) < count:
                break
            at += len(block) - len(pattern) + 1
            count = min(4 * count, _SEARCHED)
        return -1

    def last(self, patterns: tuple[bytes, ...], begin: int, end: int) -> int:
        """The offset of the last of some patterns of equal length that begins in [begin, end); -1: there is none."""
        while end > begin:
            start = max(begin, end - WINDOW)
            self._stream.seek(start)
            block = self._stream.read(end - start + len(patterns[0]) - 1)
            place = max(block.rfind(pattern) for pattern in patterns)
            if place >= 0:
                return start + place
            end = start
        return -1


def after_id3(source: Source, at: int = 0) -> int:
    """The offset after an ID3v2 tag at `at`; `at` itself if there is none."""
    head = source.read(at, 10)
    if head[:3] != b"ID3" or len(head) < 10:
        return at
    size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    return at + 10 + size + (10 if head[5] & 0x10 else 0)


def contents(path: Path) -> Contents:
    """Scan a file. Raises ValueError, with the reason, if it is truncated, or holds sound that its header does not
    declare and that no decoder would read."""
    from training.domains.music.sound import chunks, frames

    with path.open("rb", buffering=0) as stream:
        source = Source(stream, path.stat().st_size)
        magic = source.read(0, 12)
        if magic[:4] == b"OggS":
            return frames.ogg(source)
        if (at := after_id3(source)) < source.size and source.read(at, 4) == b"fLaC":
            return frames.flac(source, at)
        return chunks.scan(source, magic)


def mpeg_contents(path: Path) -> Contents:
    """Scan a file that libsndfile takes for MPEG audio (it has no magic number that `contents` could trust)."""
    from training.domains.music.sound import frames

    with path.open("rb", buffering=0) as stream:
        return frames.mpeg(Source(stream, path.stat().st_size))
