"""Checks of the data for `doctor`."""

from __future__ import annotations

from collections.abc import Iterator

from training.domain import Finding, Job
from training.domains.brain.bold.files import Run, in_bids, in_folder
from training.errors import AthanorError

PACKED = 2.2  # bytes in the store per byte of a .nii.gz
PLAIN = 0.6  # the same of a .nii of int16: voxels outside of the head are not stored


def checks(job: Job) -> Iterator[Finding]:
    """The files of BOLD that would be read."""
    if job.path("fmri") is None and job.path("bids") is None:
        return
    try:
        runs = _runs(job)
    except AthanorError as error:
        yield Finding("fails", "BOLD", str(error), exit_code=error.exit_code)
        return
    subjects, names = {run.subject for run in runs}, {run.run for run in runs}
    yield Finding("ok", "BOLD", f"{len(runs)} files of {len(subjects)} subjects, {len(names)} runs")
    if len(runs) != len(subjects) * len(names):
        yield Finding("note", "BOLD", "not every subject has every run", "What is there is used.")
    if len(subjects) == 1:
        yield Finding("note", "ceiling", "one subject: no ceiling between subjects can be found")


def store_bytes(job: Job) -> int:
    """Expected size of the store of BOLD."""
    try:
        runs = _runs(job)
    except AthanorError:
        return 0  # `checks` reports it
    return sum(int(run.path.stat().st_size * (PACKED if run.path.suffix == ".gz" else PLAIN)) for run in runs)


def _runs(job: Job) -> list[Run]:
    folder, bids = job.path("fmri"), job.path("bids")
    if folder is not None:
        return in_folder(folder)
    return in_bids(bids, job.options.get("task"), job.options.get("space")) if bids is not None else []
