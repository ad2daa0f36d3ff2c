"""The command `render`: guitar through a capture before and after training, and the difference, as 24-bit .wav."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.data.encode import encode_files
from training.data.files import printable, write_atomic
from training.data.summary import summary_of
from training.domain import Job
from training.domains.amp import guitar
from training.domains.amp.captures import Capture, parse_capture
from training.domains.amp.formats.checking import CAPTURE
from training.domains.amp.sounds import Heard, heard
from training.errors import DataError, UsageError


def render(job: Job, words: Sequence[str], load: Callable[[str], Any]) -> None:
    """Write before.wav, after.wav and difference.wav.

    Options: `out` (the folder), `capture` (a file that was trained in the workspace), `di`, `after` (a trained file,
    instead of the workspace's). Raises UsageError, DataError for files that cannot be read.
    """
    if job.path("capture") is None or job.path("di") is None:
        raise UsageError("--capture FILE and --di WAV are needed: the original capture, and guitar.")
    before = _capture(job, job.path("capture"))
    if job.path("after") is not None:
        student = _capture(job, job.path("after")).network
    else:
        student = list(load(f"amp/{_item(job, before)}").model.students)[-1]
    sound = _sound(job, job.path("di"), before.sample_rate)
    both = heard(before.network, student, sound)
    folder = Path(job.options["out"])
    folder.mkdir(parents=True, exist_ok=True)
    for side in ("before", "after", "difference"):
        _write(folder / f"{side}.wav", getattr(both, side), both.rate)
    job.say(_report(both, folder))


def _capture(job: Job, path: Path) -> Capture:
    records, refused = encode_files([path], CAPTURE, job.workspace.cache, 1, job.say)
    if refused:
        raise DataError(f"{printable(path)}: {refused[path].reason}")
    return parse_capture(records[path]["content"].tobytes(), path.stem, _known_rate(job, path))


def _known_rate(job: Job, path: Path) -> int | None:
    """The rate with which `prepare` read a file of this content."""
    return next((of["rate"] for of in _captures(job).values() if of["file"] == path.name), None)


def _captures(job: Job) -> dict[str, dict[str, Any]]:
    return (summary_of(job.workspace) or {}).get("captures", {})


def _item(job: Job, capture: Capture) -> str:
    """The name under which the workspace has trained this capture."""
    for name, about in _captures(job).items():
        if about["sha256"] == capture.digest:
            return name
    raise UsageError(
        f"{capture.name}{capture.suffix} has not been trained in {job.workspace.relative(job.workspace.root)}. "
        "Name the folder of the job with --job DIR, or a trained file with --after FILE."
    )


def _sound(job: Job, path: Path, rate: int) -> np.ndarray:
    records, refused = encode_files([path], guitar.DI, job.workspace.cache, 1, job.say)
    if refused:
        raise DataError(f"{printable(path)}: {refused[path].reason}")
    return guitar.resampled(np.asarray(records[path]["sound"]), int(records[path]["rate"]), rate)


def _write(path: Path, sound: np.ndarray, rate: int) -> None:
    import soundfile

    write_atomic(path, lambda place: soundfile.write(place, sound.clip(-1, 1), rate, "PCM_24", format="WAV"))


def _report(both: Heard, folder: Path) -> str:
    power = [float(np.mean(np.square(one, dtype=np.float64))) for one in (both.difference, both.before)]
    level = 10 * np.log10(max(1e-20, power[0]) / max(1e-20, power[1]))
    return (
        f"{folder}: before.wav ({both.gain:+.1f} dB), after.wav ({both.gain_after:+.1f} dB), at equal loudness; "
        f"difference.wav is {level:.1f} dB of before."
    )
