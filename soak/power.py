"""Simulates a kill or a power cut in the middle of any change of a folder.

`Watch` wraps the functions that a save calls: write, fsync, rename, link, unlink. It counts the calls, kills the
process at one of them if requested, and records what is on the disk for certain. `cut` then changes a folder to what a
power cut may leave. A file's content is there as it was at its last fsync; a name is there if its folder was fsynced
after the name was given. Later changes may be there in part: names in the order in which they were given (as
journaling file systems keep them), and content that was never fsynced up to any byte.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training.engine.checkpoints.checkpoint_file import HashedFile
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.engine.checkpoints.index import INDEX, LAST


class Watch:
    """Wraps this process's writing to `folder`. `record`: a folder for the log and for copies of what is certain.
    `last`: the number of the call ("act") at which the process is killed; a write is half done then, any other call has
    not begun."""

    def __init__(self, folder: Path, record: Path, last: int | None = None):
        self.folder, self.record, self.last = folder, record, last
        self.acts: list[str] = []
        self._kept: dict[int, int] = {}  # inode -> an open descriptor, so that the number is not reused
        record.mkdir()
        self._log = os.open(record / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for owner, name in (
            (os, "fsync"), (os, "replace"), (os, "link"), (os, "unlink"),
            (HashedFile, "write"), (json, "dump"), (CheckpointFolder, "save"),
        ):  # fmt: skip
            setattr(owner, name, self._wrapped(name, getattr(owner, name)))

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        act = getattr(self, f"_{name}")
        return lambda *arguments, **options: act(real, *arguments, **options)

    def _begin(self, act: str, half: Callable[[], Any] = lambda: None) -> None:
        if len(self.acts) == self.last:
            half()
            os.kill(os.getpid(), signal.SIGKILL)
        self.acts.append(act)

    def _note(self, *what: Any) -> None:
        os.write(self._log, json.dumps(what).encode() + b"\n")

    def _inside(self, path: str | Path) -> bool:
        return Path(path).parent == self.folder

    def _inode(self, path: str | Path) -> int:
        number = Path(path).stat().st_ino
        if number not in self._kept:
            self._kept[number] = os.open(path, os.O_RDONLY)
        return number

    # The functions that a save calls.

    def _write(self, real: Callable[..., Any], file: Any, data: Any) -> Any:
        def half() -> None:
            real(file, bytes(data)[: len(data) // 2])
            file.flush()

        self._begin("write", half)
        return real(file, data)

    def _dump(self, real: Callable[..., Any], value: Any, file: Any, **options: Any) -> None:
        if not self._inside(file.name):
            return real(value, file, **options)
        text = json.dumps(value, **options)

        def half() -> None:
            file.write(text[: len(text) // 2])
            file.flush()

        self._begin("write the index", half)
        return real(value, file, **options)

    def _fsync(self, real: Callable[..., Any], handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        if path == self.folder:
            self._begin("fsync the folder")
            real(handle)
            self._note("names")
        elif self._inside(path):
            self._begin("fsync the index" if INDEX in path.name else "fsync")
            real(handle)
            number = self._inode(path)
            copy = self.record / f"{number}-{len(self.acts)}"
            shutil.copyfile(path, copy)
            self._note("content", number, copy.name)
        else:
            real(handle)

    def _replace(self, real: Callable[..., Any], source: Any, target: Any, **options: Any) -> None:
        if not self._inside(target):
            return real(source, target, **options)
        number, name = self._inode(source), Path(target).name
        self._begin("list" if name == INDEX else "rename" if name == LAST else "name")
        real(source, target, **options)
        self._note("name", name, number)
        self._note("gone", Path(source).name)
        return None

    def _link(self, real: Callable[..., Any], source: Any, target: Any, **options: Any) -> None:
        if not self._inside(target):
            return real(source, target, **options)
        self._begin("link")
        real(source, target, **options)
        self._note("name", Path(target).name, self._inode(target))
        return None

    def _unlink(self, real: Callable[..., Any], path: Any, **options: Any) -> None:
        if not self._inside(path) or not Path(path).exists():
            return real(path, **options)
        self._begin("unlink")
        real(path, **options)
        self._note("gone", Path(path).name)
        return None

    def _save(self, real: Callable[..., Any], folder: CheckpointFolder, state: Any, entry: Any, *names: Any) -> Any:
        done = real(folder, state, entry, *names)
        self._note("saved", entry["step"])
        return done


def saves_done(record: Path) -> int:
    """The step of the newest save that had returned; -1 if none had."""
    return max((what[1] for what in _log(record) if what[0] == "saved"), default=-1)


def cut(folder: Path, record: Path, source: random.Random) -> None:
    """Change `folder` to what may be left after a power cut at this moment: one of the possible outcomes, chosen by
    `source`."""
    names: dict[str, int] = {}
    contents: dict[int, Path] = {}
    waiting: list[list[Any]] = []

    def apply(changes: list[list[Any]]) -> None:
        for kind, name, *number in changes:
            if kind == "name":
                names[name] = number[0]
            else:
                names.pop(name, None)

    for kind, *what in _log(record):
        if kind == "names":
            apply(waiting)
            waiting = []
        elif kind == "content":
            contents[what[0]] = record / what[1]
        elif kind in ("name", "gone"):
            waiting.append([kind, *what])
    apply(waiting[: source.randint(0, len(waiting))])
    live = {path.stat().st_ino: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    left = {}
    for name, number in names.items():
        if number in contents:
            left[name] = contents[number].read_bytes()
        else:
            complete = live.get(number, b"")
            left[name] = complete[: source.randrange(max(1, len(complete)))]
    for path in folder.iterdir():
        if path.is_file() and path.name != ".lock":
            path.unlink()
    for name, content in left.items():
        (folder / name).write_bytes(content)


def _log(record: Path) -> list[list[Any]]:
    return [json.loads(line) for line in (record / "log").read_text().splitlines()]
