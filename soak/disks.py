"""Rows 7 to 9: disks that fill up, turn read-only or disappear during a run. Each is a mounted tmpfs, which requires
root; elsewhere these rows are reported as not run."""

from __future__ import annotations

import gc
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

from soak.harness import Mutant, Row, Soak, Trial, TrialResult, patched, several
from soak.processes import Ended, expect, forked, start
from soak.runs import STEPS, Toy, beside, expect_done, expect_same, folder_of, step_of, train
from training.engine.checkpoints import checkpoint_file, checkpoint_folder
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.engine.checkpoints.index import BEFORE_LAST, BEST, LAST
from training.engine.checkpoints.saver import Saver

LARGE = {"model": {"width": 4000}}  # a checkpoint of more than a megabyte: many blocks of a disk
DISK = 96 << 20
AT = 10  # the step at which the fault happens
LEVELS = 2.5  # the space left on the disk is between none and this many checkpoints


def mount(folder: Path, size: int) -> None:
    folder.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        raise OSError(done.stderr.strip())


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], capture_output=True)


@cache
def unable() -> str:
    """Why no small disk can be mounted on this host; empty if one can."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            mount(Path(scratch) / "disk", 1 << 20)
        except OSError as error:
            return f"mounting a small disk is not allowed here: {error}"
        unmount(Path(scratch) / "disk")
    return ""


def on_a_disk(function: Callable[[Trial, Path], None], size: int = DISK) -> Callable[[Trial], None]:
    """A trial function that runs `function` with a separate small disk of `size` bytes."""

    def run(trial: Trial) -> None:
        disk = trial.folder / "disk"
        mount(disk, size)
        try:
            function(trial, disk)
        finally:
            unmount(folder_of(disk / "run"))
            unmount(disk)

    return run


def leave(disk: Path, left: int) -> None:
    """Fill the disk, as another program might, except for the last `left` bytes."""
    take = shutil.disk_usage(disk).free - left
    # A save writes at the same time, and may have taken the rest.
    with suppress(OSError), (disk / "somebody else's").open("ab", buffering=0) as file:
        for at in range(0, max(0, take), 1 << 20):
            file.write(bytes(min(1 << 20, take - at)))


def with_fault(what: Callable[[], None], again: bool = False) -> type[Toy]:
    """A toy that calls `what` in the middle of step AT; with `again`, at every later step too."""

    class Faulty(Toy):
        done = False

        def before_loss(self, step: int) -> None:
            # Once at step AT, although this is called for each of its two micro-batches.
            if (step == AT and not self.done) or (step > AT and again):
                self.done = True
                what()

    return Faulty


def leftovers(disk: Path) -> list[str]:
    """Names of temporary files that a save left behind."""
    return [path.name for path in disk.rglob(".*") if path.is_file() and path.name != ".lock"]


# -- row 7 ---------------------------------------------------------------------------------------------------------


def filled(trial: Trial, disk: Path) -> None:
    """The disk fills up to one of many levels in the middle of a run that saves at every step. In every second trial
    the space that becomes free is taken too, at every step: deleting checkpoints to make room then helps only once."""
    size = (folder_of(trial.soak.folder / "reference") / LAST).stat().st_size
    left = int(LEVELS * size * trial.index / trial.soak.count)
    root, label = disk / "run", f"{left} bytes left, a checkpoint takes {size}"
    greedy = trial.index % 2 == 0
    ended = forked(partial(train, root, with_fault(partial(leave, disk, left), greedy), **LARGE))
    label += ", and whatever becomes free is taken" * greedy
    expect(ended.code in (0, 6) and not ended.timed_out, f"{label}: ended with {ended.code}\n{ended.tail}")
    newest = CheckpointFolder(folder_of(root)).latest()
    expect(newest is not None, f"{label}: nothing loads")
    step = checkpoint_file.read(newest)["progress"]["step"]
    expect(step >= AT - 1, f"{label}: only step {step} is left")
    expect(CheckpointFolder(folder_of(root)).best() is not None, f"{label}: no best checkpoint")
    expect(not leftovers(disk), f"{label}: left behind: {leftovers(disk)}")
    if ended.code == 6:
        reported = "No space left on device" in ended.output and str(root) in ended.output
        expect(reported, f"{label}: the error does not name the cause\n{ended.tail}")
        expect("is trained" not in ended.output, f"{label}: reported as trained\n{ended.tail}")
    (disk / "somebody else's").unlink()
    expect_done(forked(partial(train, root, **LARGE)))
    expect_same(root, trial.soak.folder / "reference")


def _in_its_place(path: Path, state: Any) -> str:
    """Write the new checkpoint over the old ones: if there is no room, all are lost."""
    for old in (LAST, BEFORE_LAST, BEST):
        if (path.parent / old).exists():
            with (path.parent / old).open("wb"):
                pass
    return _write(path, state)


def _leaves_litter(temporary: Path) -> None:
    """Keep what a failed save has written."""


_write = checkpoint_folder.write_state


# -- row 8 ---------------------------------------------------------------------------------------------------------

KINDS = ("read-only", "detached", "checkpoints deleted", "everything deleted")


def lost(trial: Trial, disk: Path) -> None:
    """The outputs turn read-only, or disappear, in the middle of a run: while a save is under way, or while none is."""
    kind = KINDS[trial.index % len(KINDS)]
    between_saves = trial.index // len(KINDS) % 2 == 0
    root = disk / "run"
    away = {
        "read-only": lambda: _read_only(folder_of(root)),
        "detached": lambda: subprocess.run(["umount", "-l", str(disk)], check=True),
        "checkpoints deleted": lambda: shutil.rmtree(folder_of(root)),
        "everything deleted": lambda: shutil.rmtree(root),
    }[kind]
    ended = forked(partial(train, root, with_fault(_between_saves(away) if between_saves else away), **LARGE))
    expect(ended.code == 6, f"{kind}: ended with {ended.code} in place of 6\n{ended.tail}")
    steps = [line for line in ended.output.splitlines() if line.startswith("step ")]
    done = int(steps[-1].split()[1].split("/")[0])
    expect(done <= AT + 2, f"{kind}: continued to step {done} of {STEPS}, {AT} was the last that could be saved")
    expect(str(folder_of(root)) in ended.output, f"{kind}: the folder is not named\n{ended.tail}")
    expect("is trained" not in ended.output, f"{kind}: reported as trained\n{ended.tail}")
    if kind == "read-only":
        unmount(folder_of(root))
        expect_done(forked(partial(train, root, **LARGE)))
        expect_same(root, trial.soak.folder / "reference")


def _between_saves(away: Callable[[], object]) -> Callable[[], None]:
    """Calls `away` when no save is under way. A save under way would fail anyway; without one, the check before the
    next save must notice the fault."""

    def wait_for_saves() -> None:
        savers = [thing for thing in gc.get_objects() if isinstance(thing, Saver)]
        until = time.monotonic() + 10
        while any(saver.busy for saver in savers) and time.monotonic() < until:
            time.sleep(0.005)
        away()

    return wait_for_saves


def _read_only(folder: Path) -> None:
    """Make `folder` read-only by a bind mount over itself: a disk with files open for writing cannot be remounted."""
    subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
    remount = ["mount", "-o", "remount,bind,ro", str(folder)]
    until = time.monotonic() + 10
    while subprocess.run(remount, capture_output=True).returncode and time.monotonic() < until:
        time.sleep(0.01)  # busy: a save is under way in there
    subprocess.run(remount, check=True)


def _swallowed(self: Saver, content: Any, entry: Any, names: Any) -> None:
    """A save that fails in silence."""
    try:
        _saver_write(self, content, entry, names)
    except Exception as error:  # noqa: BLE001  that is the fault
        print(f"(swallowed: {error})")


_saver_write = Saver._write


# -- row 9 ---------------------------------------------------------------------------------------------------------

EPOCHS = {"training": {"epochs": 50, "keep": 1, "save_minutes": 60, "early_stopping": {"enabled": False}}, **LARGE}


def cramped(soak: Soak) -> Iterator[TrialResult]:
    """A run of as many epochs as there are trials, saved at the end of each, with room for five checkpoints. Meanwhile
    this process keeps checking that a complete newest and a complete best checkpoint exist."""
    disk = soak.folder / "disk"
    mount(disk, DISK)
    try:
        yield from _cramped(soak, disk)
    finally:
        unmount(disk)


def _cramped(soak: Soak, disk: Path) -> Iterator[TrialResult]:
    forked(partial(train, soak.folder / "short", **{**EPOCHS, "training": {"max_steps": 2}}))
    later = (folder_of(soak.folder / "short") / LAST).stat().st_size
    root, settings = disk / "run", {**EPOCHS, "training": {**EPOCHS["training"], "epochs": soak.count}}
    folder = folder_of(root)

    class Cramped(Toy):
        def before_loss(self, step: int) -> None:
            # After the check of the disk's space at the start of the run: otherwise that would end it.
            if step == 1 and not (disk / "somebody else's").exists():
                size = (folder / LAST).stat().st_size
                leave(disk, 5 * later - size + (256 << 10))

    child = start(partial(train, root, Cramped, **settings))
    looks, missing = 0, []
    while child.running:
        if step_of(root) > 6:  # after the first evaluation, from when on there must be a best checkpoint
            looks += 1
            if CheckpointFolder(folder).latest() is None or CheckpointFolder(folder).best() is None:
                missing.append(step_of(root))
        else:
            threading.Event().wait(0.01)
    ended: Ended = child.wait(60)
    epochs = {int(part.split(")")[0]) for part in ended.output.split("(epoch ")[1:]}
    for number in range(1, soak.count + 1):
        held = number in epochs and ended.code == 0 and not missing
        seen = f"exit {ended.code}; looked {looks} times, nothing complete at the steps {missing[:5]}\n{ended.tail}"
        yield TrialResult(f"save {number}", held, "" if held else seen)


def _keeps_all(folder: CheckpointFolder, keep: int) -> None:
    """No retention."""


def _evicts_nothing(folder: CheckpointFolder) -> None:
    """No eviction on a full disk either."""


ROWS = (
    Row(
        7, "the disk fills up during saves, to 50 levels between none and two and a half checkpoints",
        "the old checkpoint loads, no litter, a clear error; with room again the run ends in the same bits",
        beside({"reference": partial(train, **LARGE)}, on_a_disk(filled)), full=50, small=6,
        mutants=(
            Mutant("written over the old ones", patched(checkpoint_folder, "write_state", _in_its_place)),
            # The next save that succeeds deletes most leftovers: only a run whose last save fails shows this mutant.
            Mutant("no clean-up of a failed save", patched(checkpoint_folder, "discard", _leaves_litter), trials=50),
        ),
        unable=unable, note=lambda: "tmpfs",
    ),
    Row(
        8, "outputs turn read-only, are detached, or deleted during a run",
        "never called saved when it is not; reported within two steps, exit 6",
        beside({"reference": partial(train, **LARGE)}, on_a_disk(lost)), full=40, small=4,
        mutants=(
            Mutant("a failed save is not reported", patched(Saver, "_write", _swallowed)),
            Mutant("a vanished folder is made again", patched(Saver, "_require_folder", lambda self: None), 4),
        ),
        unable=unable, note=lambda: "tmpfs",
    ),
    Row(
        9, "50 saves on room for 5 checkpoints", "never full; best and last intact at every instant",
        cramped, full=50, small=12,
        mutants=(
            Mutant("nothing is ever deleted", several(
                patched(CheckpointFolder, "apply_retention", _keeps_all),
                patched(CheckpointFolder, "evict", _evicts_nothing))),
        ),
        unable=unable, note=lambda: "tmpfs",
    ),
)  # fmt: skip
