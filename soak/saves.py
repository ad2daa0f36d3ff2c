"""Rows 2 and 6: a save that is cut short anywhere, and checkpoints that were damaged afterwards."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from soak import power
from soak.harness import Mutant, Row, Trial, patched, several
from soak.processes import expect, forked
from soak.runs import beside, expect_done, expect_same, folder_of, train
from training.engine.checkpoints import checkpoint_file, checkpoint_folder, index
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.engine.checkpoints.index import BEFORE_LAST, LAST, TEMPORARY

#: The acts of a save, in order; `name` and `link` make before_last.pt, best.pt and the epoch checkpoints.
PHASES = ("write", "fsync", "link", "name", "rename", "fsync the folder", "write the index", "fsync the index", "list",
          "unlink")  # fmt: skip


# -- row 2 ---------------------------------------------------------------------------------------------------------


def cut_short(trial: Trial) -> None:
    """SIGKILL at one act of one save, from the second save on; in every second round of the phases with a power cut."""
    phase, power_too = _phase(trial.index)
    acts = _acts(trial.soak.folder / "watched")
    first = acts.index("list")  # the end of the first save, before the folder's fsync: before it no checkpoint exists
    first += acts[first + 1] == "fsync the folder"
    chosen = trial.random.choice([at for at, act in enumerate(acts) if act == phase and at > first])
    root, record = trial.folder / "run", trial.folder / "record"
    folder = folder_of(root)
    ended = forked(partial(_watched, root, record, chosen))
    expect(ended.code == -signal.SIGKILL, f"act {chosen} ({phase}) was not reached\n{ended.tail}")
    if power_too:
        power.cut(folder, record, trial.random)
    label, done = f"killed at act {chosen} ({phase}){', power cut' * power_too}", power.saves_done(record)
    newest = CheckpointFolder(folder).latest()
    expect(newest is not None, f"{label}: no verified checkpoint; {sorted(p.name for p in folder.iterdir())}")
    progress = checkpoint_file.read(newest)["progress"]
    step = progress["step"]
    expect(step >= done, f"{label}: the newest verified checkpoint is of step {step}; {done} had been saved")
    if done > 6:  # after the first epoch, so there was a best checkpoint
        expect(CheckpointFolder(folder).best() is not None, f"{label}: no verified best checkpoint")
    ended = forked(partial(train, root))
    expect_done(ended)
    resumed = f"resumed at step {step} " in ended.output or progress["finished"]
    expect(resumed, f"{label}: did not resume at step {step}\n{ended.tail}")
    expect_same(root, trial.soak.folder / "watched" / "run")
    litter = [path.name for path in folder.iterdir() if path.name.startswith(TEMPORARY)]
    expect(not litter, f"{label}: left behind: {litter}")


def _phase(index: int) -> tuple[str, bool]:
    return PHASES[index % len(PHASES)], bool(index // len(PHASES) % 2)


def _label(index: int) -> str:
    phase, power_too = _phase(index)
    return f"at {phase}{', power cut' * power_too}"


def _watched(root: Path, record: Path, last: int | None = None) -> list[str]:
    folder_of(root).mkdir(parents=True)
    watch = power.Watch(folder_of(root), record, last)
    train(root)
    return watch.acts


def _watch_uncut(folder: Path) -> None:
    folder.mkdir()
    (folder / "acts").write_text("\n".join(_watched(folder / "run", folder / "record")))


def _acts(folder: Path) -> list[str]:
    return (folder / "acts").read_text().splitlines()


def _without_before_last(source: Path, name: Path, link: Any = checkpoint_file.link) -> None:
    if name.name != BEFORE_LAST:
        link(source, name)


def _without_fsync(path: Path, state: Any) -> str:
    with path.open("wb") as file:
        hashed = checkpoint_file.HashedFile(file)
        torch.save(dict(state), hashed)
    return hashed.sha256.hexdigest()


def _in_place(path: Path, state: Any) -> str:
    last = path.with_name(LAST)
    with last.open("wb") as file:
        hashed = checkpoint_file.HashedFile(file)
        torch.save(dict(state), hashed)
        file.flush()
        os.fsync(file.fileno())
    os.link(last, path)
    return hashed.sha256.hexdigest()


# -- row 6 ---------------------------------------------------------------------------------------------------------

FLIPPED = 5 / 7  # of the trials; the others are cut short


def damaged(trial: Trial) -> None:
    """One bit flipped, or cut short, anywhere in last.pt; in every second trial last.pt is best.pt as well."""
    complete = trial.soak.folder / ("middle" if trial.index % 2 else "end")
    root = trial.folder / "run"
    shutil.copytree(complete, root, copy_function=_link_or_copy(complete, root))
    folder = folder_of(root)
    last = folder / LAST
    entries = CheckpointFolder(folder).listed()
    content = bytearray(last.read_bytes())
    if trial.index < FLIPPED * trial.soak.count:
        bit = trial.random.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        label = f"bit {bit} of {8 * len(content)}"
        with last.open("r+b") as file:  # in place: hard links to this file are damaged too
            file.write(content)
    else:
        size = trial.random.randrange(len(content))
        label = f"cut to {size} of {len(content)} bytes"
        os.truncate(last, size)
    expect(checkpoint_file.listed_entry(last) is None, f"{label}: not noticed")
    newest = CheckpointFolder(folder).latest()
    expect(newest == folder / BEFORE_LAST, f"{label}: falls back to {newest}")
    step = checkpoint_file.read(newest)["progress"]["step"]
    expect(step == entries[LAST].step - 1, f"{label}: falls back to step {step}")
    if trial.index % 50 == 0:
        ended = forked(partial(train, root))
        expect_done(ended)
        expect("damaged or missing, and passed over: last.pt" in ended.output, f"{label}: not reported\n{ended.tail}")
        expect_same(root, trial.soak.folder / "end")


def _link_or_copy(complete: Path, root: Path) -> Any:
    """A copy function for shutil.copytree that keeps hard links: names of one file stay names of one file."""
    copies: dict[int, str] = {}

    def copy(source: str, target: str) -> None:
        number = Path(source).stat().st_ino
        if number in copies:
            os.link(copies[number], target)
        else:
            copies[number] = shutil.copyfile(source, target)

    return copy


def _until_the_middle(root: Path) -> None:
    """A run that is killed right after its tenth save, which is not at the end of an epoch."""
    saves = [*range(10)]

    def killed(real: Any, *arguments: Any) -> None:
        real(*arguments)
        saves.pop()
        if not saves:
            os.kill(os.getpid(), signal.SIGKILL)

    real = CheckpointFolder.apply_retention
    CheckpointFolder.apply_retention = lambda *arguments: killed(real, *arguments)  # type: ignore[method-assign]
    train(root)


def _stopped_in_the_middle(root: Path) -> None:
    ended = forked(partial(_until_the_middle, root))
    expect_done(ended, -signal.SIGKILL)


def _by_loading(path: Path) -> str:
    """Only damage that torch.load notices: the listed digest is returned for every file that can be loaded."""
    try:
        torch.load(path, weights_only=True)
    except Exception:  # noqa: BLE001  any error means that the damage was noticed
        return "damaged"
    return _trusted(path)


def _trusted(path: Path) -> str:
    entry = CheckpointFolder(path.parent).listed().get(path.name)
    return entry.sha256 if entry else ""


def _digests(stand_in: Callable[[Path], str]) -> Callable[[], AbstractContextManager[None]]:
    """A fault: `stand_in` computes the digest with which checkpoints are verified."""
    return several(patched(checkpoint_file, "sha256", stand_in), patched(checkpoint_folder, "sha256", stand_in))


ROWS = (
    Row(
        2, "kill -9 inside each phase of a save: write, fsync, link, rename, list; half of them with a power cut",
        "resumes from a verified checkpoint, never one before the newest save that was done; same bits at the end",
        beside({"watched": _watch_uncut}, cut_short, name=_label), full=60, small=20,
        mutants=(
            Mutant("no before_last.pt", patched(checkpoint_folder, "link", _without_before_last), 20),
            Mutant("no fsync of the file", patched(checkpoint_folder, "write_state", _without_fsync), 20),
            Mutant("no fsync of the folder", several(
                patched(checkpoint_folder, "sync", lambda path: None), patched(index, "sync", lambda path: None)), 20),
            Mutant("written in place", patched(checkpoint_folder, "write_state", _in_place), 20),
        ),
    ),
    Row(
        6, "newest checkpoint: a bit flipped (5 of 7), or cut short (2 of 7)",
        "noticed, and the one before is used",
        beside({"end": train, "middle": _stopped_in_the_middle}, damaged), full=700, small=28,
        mutants=(
            Mutant("the digest is not looked at", _digests(_trusted)),
            Mutant("torch's own checks in place of the digest", _digests(_by_loading)),
        ),
    ),
)  # fmt: skip
