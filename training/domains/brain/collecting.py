"""Collects the BOLD of all runs: decodes it, and refuses what does not fit the rest, each with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.data.encode import Quarantined, encode_files
from training.data.files import printable
from training.data.store import Record
from training.domain import Job
from training.domains.brain.bold import masks
from training.domains.brain.bold.files import Run, entities, in_bids, in_folder
from training.domains.brain.bold.reading import ENCODER
from training.domains.brain.bold.timing import Repetition, repetition
from training.errors import DataError, UsageError

_LEAST_SHARE = 0.8  # of the voxels of a mask, or of the majority, that a run must have
_MOST_NONFINITE = 0.05  # of the voxels of a run


@dataclass(frozen=True, eq=False)
class Collected:
    """The runs that are used, in order of run and subject, all on one grid with one TR."""

    runs: tuple[Run, ...]
    records: Mapping[Path, Record]
    tr: Repetition
    voxels: np.ndarray  # int32, indices of the flattened grid, ascending
    shape: tuple[int, int, int]
    affine: np.ndarray  # float64 [4, 4]
    mask: str  # "given", "voted", or "fMRIPrep's"
    quarantine: tuple[Quarantined, ...]
    notes: tuple[str, ...]  # conflicts and remarks, for the user

    def of_run(self, name: str) -> tuple[Run, ...]:
        return tuple(run for run in self.runs if run.run == name)


def collect(job: Job) -> Collected:
    """Decode and check all files. Raises UsageError for options, DataError if no run is left."""
    runs = _found(job)
    paths = [run.path for run in runs]
    records, refused = encode_files(paths, ENCODER, job.workspace.cache, job.workers, job.say)
    quarantine = list(refused.values())
    kept = [run for run in runs if run.path in records]

    def refuse(reasons: Mapping[Path, str]) -> None:
        quarantine.extend(Quarantined(printable(path), "bold", why) for path, why in reasons.items())
        kept[:] = [run for run in kept if run.path not in reasons]
        if not kept:
            raise DataError(
                "No BOLD file can be used.\n" + "\n".join(f"  {bad.path}: {bad.reason}" for bad in quarantine)
            )

    refuse({})
    refuse(_misplaced(kept, records))
    repetitions, unknown = _repetitions(job, kept, records)
    refuse(unknown)
    tr = _agreed(repetitions, kept)
    refuse({
        run.path: f"its TR is {repetitions[run.path].seconds:g} s, that of the others {tr.seconds:g} s"
        for run in kept if abs(repetitions[run.path].seconds - tr.seconds) > 0.01 * tr.seconds
    })  # fmt: skip
    refuse(_unfit(kept, records))
    voxels, kind, poor = _voxels(job, kept, records)
    refuse(poor)
    if poor and kind == "voted":
        voxels = masks.voted([records[run.path] for run in kept])
    if kind == "given":
        for run in kept:
            voxels = np.intersect1d(voxels, records[run.path]["index"])
    if len(voxels) < masks.LEAST_VOXELS:
        raise DataError(
            f"Only {len(voxels)} voxels hold signal in every run: check that the files are of one space and that the "
            "mask covers the brain (--mask)."
        )
    one = records[kept[0].path]
    notes = [
        *dict.fromkeys(note for run in kept for note in repetitions[run.path].notes), *_remarks(kept, records),
        *_missing(kept), *_unaligned(job, kept),
    ]  # fmt: skip
    return Collected(
        tuple(kept), records, tr, voxels.astype(np.int32), tuple(int(n) for n in one["shape"]),
        np.array(one["affine"]), kind, tuple(quarantine), tuple(notes),
    )  # fmt: skip


def _found(job: Job) -> list[Run]:
    folder, bids = job.path("fmri"), job.path("bids")
    if (folder is None) == (bids is None):
        raise UsageError("Name the BOLD by either --fmri (a folder of .nii.gz) or --bids (a BIDS data set).")
    return in_folder(folder) if folder else in_bids(bids, job.options.get("task"), job.options.get("space"))


def _misplaced(runs: Sequence[Run], records: Mapping[Path, Record]) -> dict[Path, str]:
    """The runs that are not on the grid of most, with the reason."""
    grids = Counter(tuple(records[run.path]["shape"].tolist()) for run in runs)
    shape = grids.most_common(1)[0][0]
    first = next(run for run in runs if tuple(records[run.path]["shape"].tolist()) == shape)
    affine = _common_affine([records[run.path] for run in runs if tuple(records[run.path]["shape"].tolist()) == shape])
    found = {run.path: masks.same_place(records[run.path], shape, affine) for run in runs}
    remedy = f"; resample it to the grid of {first.path.name} (3dresample, or nilearn's resample_to_img)"
    return {path: why + remedy for path, why in found.items() if why}


def _common_affine(records: Sequence[Record]) -> np.ndarray:
    """The affine that most of the files have, by three digits."""
    counts = Counter(tuple(np.round(record["affine"], 3).ravel().tolist()) for record in records)
    return np.array(counts.most_common(1)[0][0]).reshape(4, 4)


def _repetitions(
    job: Job, runs: Sequence[Run], records: Mapping[Path, Record]
) -> tuple[dict[Path, Repetition], dict[Path, str]]:
    """(path -> its TR, path -> why it has none that can be used)."""
    flag = job.options.get("tr")
    found, bad = {}, {}
    for run in runs:
        record = records[run.path]
        try:
            one = repetition(
                None if flag is None else float(flag),
                run.sidecar,
                float(record["tr"][0]),
                float(record["unit_value"][0]),
            )
        except DataError as error:
            bad[run.path] = str(error)
            continue
        found[run.path] = one
    return found, bad


def _agreed(repetitions: Mapping[Path, Repetition], runs: Sequence[Run]) -> Repetition:
    """The TR of most runs."""
    counts = Counter(round(repetitions[run.path].seconds, 4) for run in runs)
    most = counts.most_common(1)[0][0]
    return next(repetitions[run.path] for run in runs if round(repetitions[run.path].seconds, 4) == most)


def _unfit(runs: Sequence[Run], records: Mapping[Path, Record]) -> dict[Path, str]:
    found = {}
    for run in runs:
        record = records[run.path]
        nonfinite, size = int(record["nonfinite"][0]), len(record["index"])
        if nonfinite > _MOST_NONFINITE * (size + nonfinite):
            found[run.path] = (
                f"{nonfinite:,} of {size + nonfinite:,} voxels hold NaN or infinity at some time: repeat the step "
                "of preprocessing that made them, or leave the run out"
            )
    return found


def _voxels(job: Job, runs: Sequence[Run], records: Mapping[Path, Record]) -> tuple[np.ndarray, str, dict[Path, str]]:
    """The voxels, how they were chosen, and the runs that would cost too many of them."""
    path = job.path("mask")
    of_runs = [records[run.path] for run in runs]
    if path is None and all(run.mask is not None for run in runs):
        return _derived(job, runs, records)
    if path is None:
        shares = masks.agreement(of_runs)
        poor = {
            run.path: f"holds signal in only {share:.0%} of the voxels that most runs have: it may be of another "
            "space or cut off; give a --mask to keep it"
            for run, share in zip(runs, shares, strict=True) if share < _LEAST_SHARE
        }  # fmt: skip
        return masks.voted(of_runs), "voted", poor
    given, refused = encode_files([path], masks.GIVEN, job.workspace.cache, job.workers, job.say)
    if path in refused:
        raise DataError(f"--mask {printable(path)} {refused[path].reason}.")
    record, one = given[path], of_runs[0]
    why = masks.same_place(record, one["shape"], np.array(one["affine"]))
    if why:
        raise DataError(
            f"--mask {printable(path)}: {why}. Resample it to the grid of {runs[0].path.name}, with nearest-neighbour "
            "interpolation."
        )
    voxels = np.flatnonzero(np.asarray(record["values"]).ravel())
    if not len(voxels):
        raise DataError(f"--mask {printable(path)} is empty: it must be 1 in the voxels that are used.")
    poor = {}
    for run in runs:
        share = np.isin(voxels, records[run.path]["index"]).mean()
        if share < _LEAST_SHARE:
            poor[run.path] = f"holds signal in only {share:.0%} of the mask: it may be of another space or cut off"
    return voxels, "given", poor


def _derived(job: Job, runs: Sequence[Run], records: Mapping[Path, Record]) -> tuple[np.ndarray, str, dict[Path, str]]:
    """The voxels that are in the brain mask of every run, as fMRIPrep wrote them beside the BOLD."""
    given, refused = encode_files([run.mask for run in runs], masks.GIVEN, job.workspace.cache, job.workers, job.say)
    voxels, poor = None, {}
    for run in runs:
        record = records[run.path]
        why = refused[run.mask].reason if run.mask in refused else masks.same_place(
            given[run.mask], record["shape"], np.array(record["affine"])
        )  # fmt: skip
        if why:
            poor[run.path] = f"its mask {run.mask.name} cannot be used: {why}; give one for all by --mask"
            continue
        own = np.intersect1d(np.flatnonzero(np.asarray(given[run.mask]["values"]).ravel()), record["index"])
        voxels = own if voxels is None else np.intersect1d(voxels, own)
    return np.zeros(0, np.int64) if voxels is None else voxels, "fMRIPrep's", poor


def _remarks(runs: Sequence[Run], records: Mapping[Path, Record]) -> list[str]:
    """What the user should know about files that are used."""
    out = []
    for run in runs:
        record = records[run.path]
        name = printable(run.path.name)
        if int(record["nonfinite"][0]):
            out.append(f"{name}: {int(record['nonfinite'][0]):,} voxels with NaN or infinity are left out.")
        if int(record["constant"][0]):
            out.append(f"{name}: {int(record['constant'][0]):,} voxels that never change are left out.")
        if float(record["mean_size"][0]) < 1e-3 and abs(float(record["mean_spread"][0]) - 1) < 0.01:
            out.append(
                f"{name} is already z-scored over all of its volumes, held-out ones included: their mean and spread "
                "are in the training rows. Use the file from before the standardisation: it is done here."
            )
    return out


def _missing(runs: Sequence[Run]) -> list[str]:
    """A note for each subject without a run that others have."""
    names = [*dict.fromkeys(run.run for run in runs)]
    have: dict[str, set[str]] = {}
    for run in runs:
        have.setdefault(run.subject, set()).add(run.run)
    return [
        f"subject {subject} has no run {', '.join(name for name in names if name not in of)}: held-out results are of "
        "the runs that all subjects have"
        for subject, of in have.items() if len(of) < len(names)
    ]  # fmt: skip


def _unaligned(job: Job, runs: Sequence[Run]) -> list[str]:
    if job.path("bids") is None or any("space" in entities(run.path) for run in runs):
        return []
    return [
        "the files have no space- in their names: BOLD that is not preprocessed, in each subject's own space. Ceilings "
        "between subjects and regions then compare different places; run fMRIPrep, and give --space NAME"
    ]


def facts(collected: Collected) -> dict[str, Any]:
    """What summary.json holds about the BOLD."""
    subjects = dict.fromkeys(run.subject for run in collected.runs)
    return {
        "subjects": [*subjects], "runs": [*dict.fromkeys(run.run for run in collected.runs)],
        "tr": collected.tr.seconds, "tr_source": collected.tr.source, "voxels": len(collected.voxels),
        "grid": list(collected.shape), "mask": collected.mask,
    }  # fmt: skip
