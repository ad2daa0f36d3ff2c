"""Runs the commands of a page as a reader of it would: in a home folder with songs, with faults during commands."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import mido
import pytest

from tests.docs.page import FAULT, STEPS, Section, Setup, Shown, once
from tests.engine.disks import Mounted
from tests.warm import WITHOUT
from training.engine.checkpoints.index import LAST, Index
from training.persist.lease import NAME as LEASE
from training.workspace import PROJECT

PATIENCE = 300.0  # seconds for a command; on a quiet host none takes ten

STEPS_OF_A_TRAINING = 20
ENDING = ("doctor", "evaluate", "export", "verify", "budget")  # verbs that are not run unless a section shows them
#: Setup steps that interrupt the next command once its training has done N steps.
INTERRUPTIONS = (
    "killed",  # all its processes, as when the host is gone
    "training_killed",  # only the training's process
    "stopped",  # by SIGTERM
    "fills",  # the disk is full from then on
    "in_background",  # it is left waiting there while further commands are run
)


class Reader:
    """Runs commands in `folder`/home/athanor. `python`: the program that they use as Python."""

    def __init__(self, folder: Path, python: Path):
        self.home, self.safe, self.held = folder / "home", folder / "safe", folder / "held"
        self.old, self.backup = folder / "old", folder / "backup"
        self.places = {"/home/you": self.home, "/mnt/safe": self.safe, "/mnt/old": self.old, "/mnt/backup": self.backup}
        self.athanor, self.kept = self.home / "athanor", folder / "kept"
        self.python = python
        self.known: dict[str, str] = {}  # values of the page's `<WORD>`s
        self.code = 0  # exit code of the previous command
        self._steps = STEPS_OF_A_TRAINING
        self._without = ENDING
        self._interruption: Setup | None = None  # of the next command
        self._fault = ""  # in the processes of the next command
        self._running: list[subprocess.Popen] = []
        self._disk: Mounted | None = None

    # -- a section -------------------------------------------------------------------------------------------------

    def follow(self, section: Section) -> list[str]:
        """Run a section, and return its commands. Raises AssertionError if one did not print what the page shows."""
        done: list[str] = []
        self.code, self._without = 0, ENDING
        self.begins_with(["nothing"])
        try:
            for at, step in enumerate(section.steps):
                if isinstance(step, Setup) and step.name in INTERRUPTIONS:
                    self._interruption = step
                elif isinstance(step, Setup):
                    getattr(self, step.name)(step.arguments)
                else:
                    self._type(step, section.steps[at + 1 : at + 2])
                    done.append(step.command)
        finally:
            self.close()
        return done

    def close(self) -> None:
        """End all processes, and unmount the disk."""
        while self._running:
            self._kill(self._running.pop())
        if self._disk:
            self._disk.close()
            self._disk = None

    def _type(self, shown: Shown, after: list[Setup | Shown]) -> None:
        interruption, self._interruption = self._interruption, None
        printed = self._run(shown.command, interruption)
        difference = shown.difference(printed, self.known)
        assert not difference, f"$ {shown.command}\n{printed}\nexit code {self.code}\nThe page differs at: {difference}"
        code_shown = bool(after) and isinstance(after[0], Shown) and after[0].command == "echo $?"
        if not code_shown and not (interruption is not None and interruption.name in ("killed", "in_background")):
            wanted = re.search(r"\(exit (\d+)\)", shown.output)
            expected = int(wanted[1]) if wanted else 0
            assert self.code == expected, f"$ {shown.command}\n{printed}\nexit code {self.code}, and not {expected}"

    # -- commands --------------------------------------------------------------------------------------------------

    def _run(self, command: str, interruption: Setup | None) -> str:
        for name, value in self.known.items():
            command = command.replace(f"<{name}>", value)
        process, output = self._start(command, interruption)
        if interruption is not None:
            self._wait_until_held(process, output)
            if interruption.name == "in_background":
                self._running.append(process)
                return self._seen(output)
            self._interrupt(interruption, process)
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._kill(process)
            raise AssertionError(f"$ {command}\n{self._seen(output)}\nhas not ended after {PATIENCE:g} s") from None
        self.code = code if code >= 0 else 128 - code
        if command.startswith("kill "):
            self._running.pop().wait(PATIENCE)
        return self._seen(output)

    def _start(self, command: str, interruption: Setup | None) -> tuple[subprocess.Popen, Path]:
        fault, self._fault = self._fault, ""
        if interruption is not None:
            self.held.unlink(missing_ok=True)
            once(self.held).unlink(missing_ok=True)
            fault = f"hold:{interruption.arguments[0]},{self.held}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ATHANOR_")}
        environment |= {
            "HOME": str(self.home), "PATH": f"{self.python.parent}:{environment['PATH']}", "COLUMNS": "100",
            "ATHANOR_PYTHON": str(self.python), "ATHANOR_OUT": str(self.athanor), "ATHANOR_RESTART_PAUSES": "0",
            FAULT: fault, WITHOUT: " ".join(self._without), STEPS: str(self._steps),
        }  # fmt: skip
        output = self.home.parent / f"output-{len(self._running)}"
        for shown, place in self.places.items():
            command = command.replace(shown, str(place))
        line = f"(exit {self.code})\n{command}"
        with output.open("wb") as file:
            process = subprocess.Popen(
                ["bash", "-c", line], cwd=self.athanor, env=environment, stdin=subprocess.DEVNULL, stdout=file,
                stderr=file, start_new_session=True,
            )  # fmt: skip
        return process, output

    def _seen(self, output: Path) -> str:
        text = output.read_text(encoding="utf-8", errors="replace")
        for shown, place in self.places.items():
            text = text.replace(str(place), shown)
        return text

    def _wait_until_held(self, process: subprocess.Popen, output: Path) -> None:
        until = time.monotonic() + PATIENCE
        while not self.held.exists():
            assert process.poll() is None and time.monotonic() < until, self._seen(output)
            time.sleep(0.005)

    def _interrupt(self, interruption: Setup, process: subprocess.Popen) -> None:
        if interruption.name == "killed":
            self._wait_until_copied()
            self._kill(process)
        elif interruption.name == "training_killed":
            os.kill(int(self.held.read_text()), signal.SIGKILL)
        elif interruption.name == "stopped":
            process.terminate()
            return  # the training is held until the signal arrives, not until the file is deleted
        elif interruption.name == "fills":
            assert self._disk is not None
            self._disk.fill(0)
        self.held.unlink()

    def _wait_until_copied(self) -> None:
        """If the training copies to the second place, wait until its newest checkpoint is there, as on the page."""
        here, there = (place / "checkpoints/midi_generator" for place in (self.athanor, self.safe))
        until = time.monotonic() + PATIENCE
        while there.exists() and _newest(here) != _newest(there):
            assert time.monotonic() < until, "the second place has no copy of the newest checkpoint"
            time.sleep(0.01)

    def _kill(self, process: subprocess.Popen) -> None:
        """Kill every process of the command at once, as when a host loses its power."""
        for number in _session(process.pid):
            os.kill(number, signal.SIGKILL)
        process.wait()
        if self.held.exists():  # the training is a child of the server (warm.py), and so not in the command's session
            training = int(self.held.read_text())
            _end(training)

    # -- where a section begins ------------------------------------------------------------------------------------

    def begins_with(self, arguments: list[str]) -> None:
        """Set up the folder in the given state: nothing (prepared data), half (killed after step 13, with copies in the
        second place), or trained (and exported). Each state is made once, and copied from then on."""
        state, kept, self._steps = arguments[0], self.kept / arguments[0], STEPS_OF_A_TRAINING
        self.known = {}
        if not kept.exists():
            if state != "nothing":
                self.begins_with(["nothing"])
            self._make(state)
            kept.mkdir(parents=True)
            for folder in (self.home, self.safe):
                subprocess.run(["cp", "-a", str(folder), str(kept)], check=True)
        for folder in (self.home, self.safe):
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run(["cp", "-a", str(kept / folder.name), str(folder)], check=True)

    def _make(self, state: str) -> None:
        command = "./train_cuda.sh --midi-root ~/songs/midi"
        if state == "nothing":
            self.athanor.mkdir(parents=True)
            self.safe.mkdir()
            (self.athanor / "train_cuda.sh").symlink_to(PROJECT / "train_cuda.sh")
            for number in range(9):
                _write_song(self.home / "songs/midi" / ("happy", "sad", "calm")[number % 3], number)
            shutil.copytree(self.home / "songs/midi/calm", self.backup)
            self._run(f"{command} --only prepare", None)
        elif state == "half":
            self._run(f"{command} --persist {self.safe}", Setup("killed", ["13"]))
            self.code = 0
        else:
            without, self._without = self._without, ("doctor", "evaluate")  # so that it is exported, too
            self._run(command, None)
            self._without = without
        assert not self.code, f"{state}: exit code {self.code}"

    # -- other setup steps -----------------------------------------------------------------------------------------

    def fault(self, arguments: list[str]) -> None:
        """Inject one of miniature.FAULTS into the processes of the next command."""
        self._fault = arguments[0]

    def steps(self, arguments: list[str]) -> None:
        """Set the number of steps of trainings from here on."""
        self._steps = int(arguments[0])

    def shows(self, verbs: list[str]) -> None:
        """Run these verbs of ENDING in this section."""
        self._without = tuple(verb for verb in ENDING if verb not in verbs)

    def new_host(self, _: list[str]) -> None:
        """Delete all outputs, as on a new host, except cache/: no page shows how that is made again, which takes
        seconds. The leases in the second place are changed to those of another host."""
        for path in self._made():
            shutil.rmtree(path)
        for lease in self.safe.rglob(LEASE):
            lease.write_text(json.dumps(json.loads(lease.read_text()) | {"place": "another", "host": "old-host"}))

    def old_disk(self, _: list[str]) -> None:
        """Move all outputs to /mnt/old, as on a new host to which the previous host's disk is attached."""
        shutil.rmtree(self.old, ignore_errors=True)
        (self.old / "athanor").mkdir(parents=True)
        for path in self._made():
            path.rename(self.old / "athanor" / path.name)

    def _made(self) -> list[Path]:
        """The folders that a run makes, except cache/."""
        return [path for path in self.athanor.iterdir() if path.is_dir() and path.name != "cache"]

    def room(self, _: list[str]) -> None:
        """Free the space on the disk that does not belong to Athanor."""
        assert self._disk is not None
        (self._disk.folder / "other people's").unlink()

    def damage(self, names: list[str]) -> None:
        """Flip one bit in each file that matches one of the patterns."""
        done = set()
        for path in (path for name in names for path in self.home.parent.glob(name)):
            if path.stat().st_ino not in done:  # a second flip through a hard link would restore the bit
                done.add(path.stat().st_ino)
                with path.open("r+b") as file:
                    file.seek(path.stat().st_size // 2)
                    byte = file.read(1)[0]
                    file.seek(-1, os.SEEK_CUR)
                    file.write(bytes([byte ^ 16]))
        assert done

    def small_disk(self, arguments: list[str]) -> None:
        """Mount a disk of the given number of bytes at checkpoints/."""
        self._disk = Mounted(self.athanor / "checkpoints", int(arguments[0]))


def _write_song(folder: Path, number: int) -> None:
    """Write a chromatic scale of 24 notes."""
    folder.mkdir(parents=True, exist_ok=True)
    file, track = mido.MidiFile(), mido.MidiTrack()
    file.tracks.append(track)
    for note in range(40 + number, 64 + number):
        track.append(mido.Message("note_on", note=note, velocity=80))
        track.append(mido.Message("note_off", note=note, velocity=0, time=240))
    file.save(folder / f"song{number}.mid")


def _session(leader: int) -> list[int]:
    """The ids of the processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(path.name)) == leader:
                found.append(int(path.name))
        except ProcessLookupError:
            continue
    return found


def _end(process: int) -> None:
    """Kill a process, and wait until it has ended."""
    try:
        os.kill(process, signal.SIGKILL)
        until = time.monotonic() + 10
        while time.monotonic() < until:
            os.kill(process, 0)
            time.sleep(0.002)
    except ProcessLookupError:
        return
    pytest.fail(f"process {process} does not end")


def _newest(folder: Path) -> int | None:
    """The step of a folder's last.pt, as listed."""
    listed = Index.read(folder).files
    return listed[LAST].step if LAST in listed else None
