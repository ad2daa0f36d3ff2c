"""The recording of synthetic plucks that replaces a guitar where no --di is given."""

from __future__ import annotations

from pathlib import Path

from training.data.files import write_atomic
from training.domain import Job
from training.domains.amp.plucks import playing

SECONDS, RATE = 60.0, 48_000


def plucked_folder(job: Job, seconds: float = SECONDS) -> Path:
    """data/plucks/ with one recording, which is made once."""
    import soundfile

    folder = job.workspace.root / "data" / "plucks"
    path = folder / f"plucks_{job.seed}_{seconds:g}s.wav"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        sound = playing(seconds, RATE, job.seed)
        write_atomic(path, lambda place: soundfile.write(place, sound, RATE, "PCM_24", format="WAV"))
        job.say(f"  no --di: made {seconds:g} s of synthetic plucks in {job.workspace.relative(path)}")
    return folder
