"""Finds the BOLD files of subjects and runs: in a folder, in a BIDS data set, or in derivatives of fMRIPrep."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training.data.files import printable
from training.domains.brain.bold.reading import SUFFIXES
from training.errors import DataError, UsageError

_ENTITY = re.compile(r"(?:^|_)(sub|ses|task|run|space|desc|res|echo|part)-([A-Za-z0-9]+)")
_SHERLOCK = re.compile(r"_s(\d+)$")  # sherlock_movie_s7
_DERIVATIVE = "preproc"  # desc- of what fMRIPrep writes


@dataclass(frozen=True)
class Run:
    """One file of one subject. `sidecar`: JSON beside it, or that applies to it by inheritance; `mask`: its own."""

    subject: str
    run: str
    path: Path
    sidecar: Path | None = None
    mask: Path | None = None

    @property
    def name(self) -> str:
        return f"sub-{self.subject} run-{self.run}"


def entities(path: Path) -> dict[str, str]:
    """The BIDS entities in a file's name: {"sub": "01", "task": "movie"}."""
    return dict(_ENTITY.findall(_stem(path)))


def _stem(path: Path) -> str:
    name = path.name
    return next((name[: -len(suffix)] for suffix in reversed(SUFFIXES) if name.endswith(suffix)), path.stem)


def in_folder(folder: Path) -> list[Run]:
    """Every .nii and .nii.gz of a folder. The subject is `sub-` in the name, or the number after its last `_s`, or
    else the name. Raises UsageError if there is none, DataError for two files of one subject and run."""
    paths = sorted(path for path in folder.iterdir() if path.name.endswith(SUFFIXES) and not path.name.startswith("."))
    if not paths:
        raise UsageError(f"{printable(folder)} holds no .nii or .nii.gz file. --fmri names the folder that has them.")
    runs = []
    for path in paths:
        found = entities(path)
        number = _SHERLOCK.search(_stem(path))
        subject = found.get("sub") or (number[1] if number else _stem(path))
        runs.append(Run(subject, found.get("run", "1"), path, _sidecar(path, folder)))
    return _ordered(runs)


def in_bids(root: Path, task: str | None, space: str | None) -> list[Run]:
    """The BOLD of a task in a BIDS data set; with a space, what fMRIPrep derived from it in that space.

    Looks in the data set, in `derivatives/*` below it, and in a folder of derivatives that is named itself. Raises
    UsageError if nothing, or more than one task or space, is found, and names what there is.
    """
    every = list(_bold(root))
    derived = [path for path in every if entities(path).get("desc") == _DERIVATIVE]
    chosen = derived if space is not None or (derived and len(derived) == len(every)) else \
        [path for path in every if "desc" not in entities(path) and "space" not in entities(path)]  # fmt: skip
    if not chosen:
        where = f" in space {space}" if space else ""
        raise UsageError(
            f"{printable(root)} holds no *_bold.nii.gz{where}: --bids names a BIDS data set or derivatives."
        )
    task = _one("task", task, chosen)
    chosen = [path for path in chosen if entities(path).get("task") == task]
    if space is not None or any("space" in entities(path) for path in chosen):
        space = _one("space", space, chosen)
        chosen = [path for path in chosen if entities(path).get("space") == space]
    _refuse_several(chosen)
    return _ordered([_bids_run(path, root) for path in chosen])


def _bold(root: Path) -> Iterator[Path]:
    folders = [root, *sorted(path for path in (root / "derivatives").glob("*") if path.is_dir())]
    for folder in folders:
        for subject in sorted(folder.glob("sub-*")):
            for suffix in SUFFIXES:
                yield from sorted(subject.glob(f"**/func/*_bold{suffix}"))


def _one(entity: str, wanted: str | None, paths: list[Path]) -> str:
    known = sorted({entities(path).get(entity, "") for path in paths} - {""})
    if wanted is None and len(known) == 1:
        return known[0]
    if wanted not in known:
        given = "is needed" if wanted is None else f"{wanted} is not there"
        raise UsageError(f"--{entity} {given}: the data set has {', '.join(known) or 'none'}.")
    return wanted


def _refuse_several(paths: list[Path]) -> None:
    for entity, remedy in (("echo", "combine the echoes first"), ("res", "keep one resolution")):
        if len({entities(path).get(entity) for path in paths}) > 1:
            raise UsageError(
                f"The files differ in {entity}-: {remedy}, or name a folder with the wanted files by --fmri."
            )


def _bids_run(path: Path, root: Path) -> Run:
    found = entities(path)
    session = found.get("ses")
    run = found.get("run", "1") if session is None else f"{session}.{found.get('run', '1')}"
    mask = path.with_name(re.sub(r"desc-[A-Za-z0-9]+_bold", "desc-brain_mask", path.name))
    own = mask if mask != path and mask.is_file() else None
    return Run(found["sub"], run, path, _sidecar(path, root), own)


def _sidecar(path: Path, root: Path) -> Path | None:
    """The JSON that applies to a file: beside it, or in a folder above it with a subset of its entities (the BIDS
    inheritance principle); the nearest one."""
    beside = path.with_name(f"{_stem(path)}.json")
    if beside.is_file():
        return beside
    own = set(_stem(path).split("_"))
    folder = path.parent
    while True:
        for candidate in sorted(folder.glob("*_bold.json"), key=lambda one: -len(one.stem.split("_"))):
            if set(candidate.stem.split("_")) <= own:
                return candidate
        if folder in (root, folder.parent):
            return None
        folder = folder.parent


def _ordered(runs: list[Run]) -> list[Run]:
    """By run and subject, numbers in their order. Raises DataError for two files of one subject and run."""
    seen: dict[tuple[str, str], Path] = {}
    for run in runs:
        before = seen.setdefault((run.subject, run.run), run.path)
        if before != run.path:
            raise DataError(
                f"{printable(before)} and {printable(run.path)} are both run {run.run} of subject {run.subject}: keep "
                "one of them, or add run-1, run-2 to the names."
            )
    return sorted(runs, key=lambda run: (natural(run.run), natural(run.subject)))


def natural(text: str) -> list[tuple[int, int, str]]:
    """A sort key by which s2 comes before s10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]
