"""Sound files to blocks of samples: by soundfile, or by ffmpeg where soundfile cannot read all of a file.

No length in a header is trusted: the bytes are scanned first (source.py), and what was decoded is compared with it.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from training.domains.music.sound.source import Contents, contents, mpeg_contents
from training.errors import HostError

BLOCK = 1 << 20  # samples decoded at a time
#: Bytes per second below which a duration is not credible; the smallest real encodings have twice as many. A file that
#: declares more sound for its size is hostile (a FLAC of constant blocks packs a day into a megabyte) and would keep a
#: decoder busy for hours, so it is refused. The first minute is always allowed.
_LEAST_BYTES, _FREE_SECONDS = 500, 60
#: Sound that may be missing without a remark, in seconds and as a share: what encoders add at both ends.
_MISSING_SECONDS, _MISSING_SHARE = 0.1, 0.01
_KNOWN = 1 << 60  # libsndfile declares more frames than this where it does not know their number
_INSTALL_FFMPEG = "install it with: sudo apt-get install -y ffmpeg"
#: The formats that ffmpeg may detect. None is a playlist or a script, which could make it open other files.
_CONTAINERS = "mov,mp4,m4a,aac,mp3,ogg,flac,wav,w64,aiff,au,caf,matroska,asf"
_ONLY_FFMPEG = (".m4a", ".aac")


def longest(path: Path) -> float:
    """Upper bound of the seconds of sound in a file of this size."""
    return _FREE_SECONDS + path.stat().st_size / _LEAST_BYTES


def too_dense(path: Path, seconds: float) -> str:
    """Why a file with so many seconds is refused."""
    return f"claims {seconds / 60:,.0f} minutes of sound in {path.stat().st_size:,} bytes; no recording is that small"


def open_sound(path: Path) -> Iterator:
    """First the file's sample rate, then blocks float32 [n, channels].

    Raises ValueError (with the reason) if the file cannot be read to its end, HostError if ffmpeg is needed and
    missing.
    """
    import soundfile

    if not path.is_file():
        raise ValueError("is not a regular file")
    if path.stat().st_size == 0:
        raise ValueError("is an empty file")
    found = contents(path)
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        yield from by_ffmpeg(path, found, str(error.error_string))
        return
    with file:
        if file.format == "MP3":
            found = mpeg_contents(path)
        if found.complete or not shutil.which("ffmpeg"):
            if not found.complete and file.format != "MP3":
                raise ValueError(_needs_ffmpeg(found))
            yield from _libsndfile(path, file, found)
            return
    yield from by_ffmpeg(path, found, "")


def _libsndfile(path: Path, file, found: Contents) -> Iterator:
    import soundfile

    yield file.samplerate
    declared = file.frames if 0 < file.frames < _KNOWN and found.complete else None  # else it is a guess
    if declared is not None and declared > longest(path) * file.samplerate:
        raise ValueError(too_dense(path, declared / file.samplerate))
    held, most = 0, BLOCK // file.channels
    try:
        # Stop at the first short block: after a damaged OGG page, libsndfile returns samples that the file does
        # not hold.
        while len(block := file.read(most, dtype="float32", always_2d=True)):
            held += len(block)
            yield block
            if len(block) < most:
                break
    except soundfile.LibsndfileError as error:
        raise ValueError(f"breaks off: {error.error_string}") from error
    if not found.complete and (found.seconds is None or _is_short(held / file.samplerate, found.seconds)):
        raise ValueError(_needs_ffmpeg(found))
    if declared is not None and _is_short(held / file.samplerate, declared / file.samplerate):
        expected, there = declared / file.samplerate, held / file.samplerate
        raise ValueError(f"is truncated: its header declares {expected:.1f} s of sound; {there:.1f} s can be read")


def _needs_ffmpeg(found: Contents) -> str:
    return f"cannot be read to its end without ffmpeg ({found.why}); {_INSTALL_FFMPEG}"


def _is_short(seconds: float, expected: float) -> bool:
    return expected - seconds > min(_MISSING_SECONDS, _MISSING_SHARE * expected)


def by_ffmpeg(path: Path, found: Contents = Contents(), reason: str = "") -> Iterator:  # noqa: B008  frozen
    """As `open_sound`, from ffmpeg's first audio stream. `found`: what a scan showed; `reason`: soundfile's error."""
    program = shutil.which("ffmpeg")
    if program is None:
        if path.suffix.lower() in _ONLY_FFMPEG:
            raise HostError(f"{path}: ffmpeg decodes {path.suffix} files and is missing; {_INSTALL_FFMPEG}")
        raise ValueError(f"cannot be decoded: {reason}")
    command = [program, "-nostdin", "-hide_banner", "-v", "error", "-threads", "1", *(["-xerror"] * found.strict)]
    command += ["-protocol_whitelist", "file,pipe", "-format_whitelist", _CONTAINERS, "-i", f"file:{path.absolute()}"]
    # The AU format is a header of six numbers and then samples, so rate, channels and sound come through one pipe.
    command += ["-map", "0:a:0", "-vn", "-sn", "-dn", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        try:
            header = process.stdout.read(24)
            if len(header) < 24:
                process.wait()
                raise ValueError(f"cannot be decoded; ffmpeg: {_first_error(errors)}")
            _, offset, _, _, rate, channels = struct.unpack(">6I", header)
            process.stdout.read(offset - 24)
            yield rate
            width, held = 4 * channels, 0
            while data := process.stdout.read(BLOCK // channels * width):
                complete = len(data) - len(data) % width
                held += complete // width
                yield np.frombuffer(data[:complete], ">f4").astype(np.float32).reshape(-1, channels)
            if process.wait() != 0:
                raise ValueError(f"breaks off; ffmpeg: {_first_error(errors)}")
            if b"partial file" in _all(errors):  # ffmpeg's message for an MP4 whose index declares more data
                raise ValueError("is truncated: its index declares more sound than the file holds")
            # ffmpeg leaves out what encoders add at both ends of every joined part.
            if found.seconds is not None and held / rate < 0.99 * found.seconds - _MISSING_SECONDS:
                raise ValueError(f"breaks off: of {found.seconds:.1f} s of sound, {held / rate:.1f} s can be read")
        finally:
            process.kill()


def _first_error(stream) -> str:
    """The first line of ffmpeg's error output, without its "[decoder @ address]" prefix and the path."""
    lines = _all(stream).decode(errors="replace").strip().splitlines()
    return re.sub(r"^(\[[^]]*\]|file:.*:(?= ))\s*", "", lines[0])[:200] if lines else "no reason given"


def _all(stream) -> bytes:
    stream.seek(0)
    return stream.read()
