"""Music's checks of the host for `doctor`: ffmpeg, and the disk space that the stores will take."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from training.data.files import scan
from training.domain import Finding, Job

# Bytes in the store per byte of the source file. A second of audio takes 11 kB in the store; as source, it takes 176 kB
# in a wav, 16 kB in an mp3 of 128 kbit/s, and about 100 kB in a flac.
STORE_SHARE = {
    **dict.fromkeys((".wav", ".aiff", ".aif", ".au", ".caf", ".w64"), 0.07), ".flac": 0.15, ".mp3": 0.7,
    **dict.fromkeys((".ogg", ".opus", ".m4a", ".aac"), 0.9), ".mid": 4, ".midi": 4, ".kar": 4,
}  # fmt: skip
NEEDS_FFMPEG = (".m4a", ".aac")


def checks(job: Job) -> Iterator[Finding]:
    if shutil.which("ffmpeg"):
        yield Finding("ok", "ffmpeg", "installed")
    elif any(suffix in NEEDS_FFMPEG for suffix in _sizes(job)):
        yield Finding(
            "fails", "ffmpeg", "missing, and there are m4a or aac files",
            "On Debian or Ubuntu: sudo apt-get install ffmpeg",
        )  # fmt: skip
    else:
        yield Finding("note", "ffmpeg", "missing; needed for m4a and aac only")


def store_bytes(job: Job) -> int:
    """Expected size of the stores of all files under the audio and MIDI roots."""
    return int(sum(size * STORE_SHARE[suffix] for suffix, size in _sizes(job).items()))


def _sizes(job: Job) -> dict[str, int]:
    """Bytes of the source files by (lower-case) suffix."""
    sizes: dict[str, int] = {}
    for root in (job.path("audio_root"), job.path("midi_root")):
        try:
            found = [] if root is None else scan(root, STORE_SHARE)[0]
        except OSError:  # no such folder, or not readable: `doctor` itself reports that
            continue
        for file in found:
            suffix = file.suffix.lower()
            sizes[suffix] = sizes.get(suffix, 0) + os.stat(file.place).st_size  # noqa: PTH116 - a million files
    return sizes
