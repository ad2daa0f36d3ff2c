"""Somebody who follows a page: a home with songs, the commands that they type, and the faults that strike meanwhile."""

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
#: What may strike at the next command once it has done N steps.
STRIKES = (
    "killed",  # the host is gone
    "training_killed",  # its process alone
    "stopped",  # by SIGTERM
    "fills",  # the disk
    "in_background",  # nothing: it waits there while further commands are typed
)


class Reader:
    """Types commands in `folder`/home/athanor, with `python` for a Python."""

    def __init__(self, folder: Path, python: Path):
        self.home, self.safe, self.held = folder / "home", folder / "safe", folder / "held"
        self.old, self.backup = folder / "old", folder / "backup"
        self.places = {"/home/you": self.home, "/mnt/safe": self.safe, "/mnt/old": self.old, "/mnt/backup": self.backup}
        self.athanor, self.kept = self.home / "athanor", folder / "kept"
        self.python = python
        self.known: dict[str, str] = {}  # what words of the page stand for
        self.code = 0  # the exit code of the command before
        self._steps = STEPS_OF_A_TRAINING
        self._without = ENDING
        self._strikes: Setup | None = None  # at the next command
        self._fault = ""  # in its processes
        self._running: list[subprocess.Popen] = []
        self._disk: Mounted | None = None

    # -- a section -------------------------------------------------------------------------------------------------

    def follow(self, section: Section) -> list[str]:
        """The commands that were run and did what the page shows. Raises AssertionError where one did not."""
        done: list[str] = []
        self.code, self._without = 0, ENDING
        self.begins_with(["nothing"])
        try:
            for at, step in enumerate(section.steps):
                if isinstance(step, Setup) and step.name in STRIKES:
                    self._strikes = step
                elif isinstance(step, Setup):
                    getattr(self, step.name)(step.arguments)
                else:
                    self._type(step, section.steps[at + 1 : at + 2])
                    done.append(step.command)
        finally:
            self.close()
        return done

    def close(self) -> None:
        """End what runs."""
        while self._running:
            self._kill(self._running.pop())
        if self._disk:
            self._disk.close()
            self._disk = None

    def _type(self, shown: Shown, after: list[Setup | Shown]) -> None:
        strikes, self._strikes = self._strikes, None
        printed = self._run(shown.command, strikes)
        difference = shown.difference(printed, self.known)
        assert not difference, f"$ {shown.command}\n{printed}\nexit code {self.code}\nThe page differs at: {difference}"
        code_shown = bool(after) and isinstance(after[0], Shown) and after[0].command == "echo $?"
        if not code_shown and not (strikes is not None and strikes.name in ("killed", "in_background")):
            wanted = re.search(r"\(exit (\d+)\)", shown.output)
            expected = int(wanted[1]) if wanted else 0
            assert self.code == expected, f"$ {shown.command}\n{printed}\nexit code {self.code}, and not {expected}"

    # -- commands --------------------------------------------------------------------------------------------------

    def _run(self, command: str, strikes: Setup | None) -> str:
        for name, value in self.known.items():
            command = command.replace(f"<{name}>", value)
        process, output = self._start(command, strikes)
        if strikes is not None:
            self._wait_until_held(process, output)
            if strikes.name == "in_background":
                self._running.append(process)
                return self._seen(output)
            self._strike(strikes, process)
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._kill(process)
            raise AssertionError(f"$ {command}\n{self._seen(output)}\nhas not ended after {PATIENCE:g} s") from None
        self.code = code if code >= 0 else 128 - code
        if command.startswith("kill "):
            self._running.pop().wait(PATIENCE)
        return self._seen(output)

    def _start(self, command: str, strikes: Setup | None) -> tuple[subprocess.Popen, Path]:
        fault, self._fault = self._fault, ""
        if strikes is not None:
            self.held.unlink(missing_ok=True)
            once(self.held).unlink(missing_ok=True)
            fault = f"hold:{strikes.arguments[0]},{self.held}"
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

    def _strike(self, strikes: Setup, process: subprocess.Popen) -> None:
        if strikes.name == "killed":
            self._wait_until_copied()
            self._kill(process)
        elif strikes.name == "training_killed":
            os.kill(int(self.held.read_text()), signal.SIGKILL)
        elif strikes.name == "stopped":
            process.terminate()
            return  # the training waits for it
        elif strikes.name == "fills":
            assert self._disk is not None
            self._disk.fill(0)
        self.held.unlink()

    def _wait_until_copied(self) -> None:
        """Where the training copies to the second place, its newest checkpoint is there, as it is on the page."""
        here, there = (place / "checkpoints/midi_generator" for place in (self.athanor, self.safe))
        until = time.monotonic() + PATIENCE
        while there.exists() and _newest(here) != _newest(there):
            assert time.monotonic() < until, "the second place has no copy of the newest checkpoint"
            time.sleep(0.01)

    def _kill(self, process: subprocess.Popen) -> None:
        """As a host that loses its power: every process of the command, at once."""
        for number in _session(process.pid):
            os.kill(number, signal.SIGKILL)
        process.wait()
        if self.held.exists():  # the training is the server's child
            training = int(self.held.read_text())
            _end(training)

    # -- where a section begins ------------------------------------------------------------------------------------

    def begins_with(self, arguments: list[str]) -> None:
        """A folder of the given state, kept once it was made: nothing (prepared data), half (killed after step 13, with
        copies in the second place), or trained (and exported)."""
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
            without, self._without = self._without, ("doctor", "evaluate")  # it is exported, too
            self._run(command, None)
            self._without = without
        assert not self.code, f"{state}: exit code {self.code}"

    # -- what happens ----------------------------------------------------------------------------------------------

    def fault(self, arguments: list[str]) -> None:
        """In the processes of the next command: one of miniature.FAULTS."""
        self._fault = arguments[0]

    def steps(self, arguments: list[str]) -> None:
        """Of trainings from here on."""
        self._steps = int(arguments[0])

    def shows(self, verbs: list[str]) -> None:
        """These verbs of ENDING are run in this section."""
        self._without = tuple(verb for verb in ENDING if verb not in verbs)

    def new_host(self, _: list[str]) -> None:
        """A bare one, but for what was decoded (no page shows how that is made again, which takes seconds); what it
        reads of leases was written by another."""
        for path in self._made():
            shutil.rmtree(path)
        for lease in self.safe.rglob(LEASE):
            lease.write_text(json.dumps(json.loads(lease.read_text()) | {"place": "another", "host": "old-host"}))

    def old_disk(self, _: list[str]) -> None:
        """A bare host, to which the disk of the one before is attached."""
        shutil.rmtree(self.old, ignore_errors=True)
        (self.old / "athanor").mkdir(parents=True)
        for path in self._made():
            path.rename(self.old / "athanor" / path.name)

    def _made(self) -> list[Path]:
        """The folders that a run makes, but for cache/."""
        return [path for path in self.athanor.iterdir() if path.is_dir() and path.name != "cache"]

    def room(self, _: list[str]) -> None:
        """What is not Athanor's is deleted from the disk."""
        assert self._disk is not None
        (self._disk.folder / "other people's").unlink()

    def damage(self, names: list[str]) -> None:
        """A bit of each file is another one."""
        done = set()
        for path in (path for name in names for path in self.home.parent.glob(name)):
            if path.stat().st_ino not in done:  # names of one content
                done.add(path.stat().st_ino)
                with path.open("r+b") as file:
                    file.seek(path.stat().st_size // 2)
                    byte = file.read(1)[0]
                    file.seek(-1, os.SEEK_CUR)
                    file.write(bytes([byte ^ 16]))
        assert done

    def small_disk(self, arguments: list[str]) -> None:
        """A disk of so many bytes is what checkpoints/ lies on."""
        self._disk = Mounted(self.athanor / "checkpoints", int(arguments[0]))


def _write_song(folder: Path, number: int) -> None:
    """A scale of 24 notes."""
    folder.mkdir(parents=True, exist_ok=True)
    file, track = mido.MidiFile(), mido.MidiTrack()
    file.tracks.append(track)
    for note in range(40 + number, 64 + number):
        track.append(mido.Message("note_on", note=note, velocity=80))
        track.append(mido.Message("note_off", note=note, velocity=0, time=240))
    file.save(folder / f"song{number}.mid")


def _session(leader: int) -> list[int]:
    """The processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(path.name)) == leader:
                found.append(int(path.name))
        except ProcessLookupError:
            continue
    return found


def _end(process: int) -> None:
    """Return when a process that was killed is gone."""
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
