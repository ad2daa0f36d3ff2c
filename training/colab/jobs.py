"""A job in the background of a notebook: started, followed, and finished with a copy that was compared."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.colab.drive import differences, flush_and_mount_again, probe, remount
from training.colab.processes import SAVED, CommandFailed, run
from training.colab.session import estimate_training_time_remaining
from training.colab.settings import ColabSettings
from training.colab.surroundings import PROJECT, ColabError, colab_module, default_out, environment_python

STATE_FOLDER = ".colab"  # in the job's folder; hidden, so that it is not copied to another session
FIRST_STEP = re.compile(r"^(step \d+/\d+|round \d+/\d+)|was trained before|is trained:", re.M)
PAUSE = 0.2  # seconds between two looks at the log


@dataclass
class TrainingJob:
    """A command that runs independently of the notebook's kernel, which may be restarted. `persist`: a folder on the
    drive, a URL, or empty."""

    out: Path
    settings: ColabSettings
    mount: Path
    persist: str = ""
    shown: int = 0  # bytes of the log that were printed

    @property
    def log(self) -> Path:
        return self.out / STATE_FOLDER / "log.txt"

    @property
    def on_drive(self) -> bool:
        return bool(self.persist) and Path(self.persist).is_relative_to(self.mount)

    @property
    def state_file(self) -> Path:
        return self.out / STATE_FOLDER / "job.json"

    def state(self) -> dict:
        """What the job's process has recorded: `pid`, and `code` once it has ended. Raises ColabError if none was
        started."""
        try:
            return json.loads(self.state_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            raise ColabError(f"No job was started in {self.out}: run the cell with start_training first.") from None

    def running(self) -> bool:
        """Whether it still runs."""
        state = self.state()
        if "code" in state:
            return False
        with contextlib.suppress(ChildProcessError):  # of a kernel that was restarted since
            os.waitpid(state["pid"], os.WNOHANG)
        try:
            os.kill(state["pid"], 0)
        except ProcessLookupError:
            return "code" not in self.state() and self._lost()
        return True

    def code(self) -> int:
        """Its exit code. For a job that still runs, waits for its end."""
        while self.running():
            time.sleep(PAUSE)
        return self.state()["code"]

    def stop(self) -> None:
        """Request that it saves and stops, as the first Ctrl-C does."""
        if self.running():
            os.kill(self.state()["pid"], signal.SIGTERM)

    def show(self) -> None:
        """Print what is new in its log."""
        with self.log.open("rb") as file:
            file.seek(self.shown)
            new = file.read()
        self.shown += len(new)
        if new:
            print(new.decode("utf-8", "replace"), end="", flush=True)

    def _lost(self) -> bool:
        state = self.state() | {"code": 137}
        self.state_file.write_text(json.dumps(state), encoding="utf-8")
        return False


def start_job(job: TrainingJob, command: Sequence[str], environment: dict[str, str] | None = None) -> TrainingJob:
    """Start ./train_cuda.sh with these words in the background, and print its output until its first step.

    Raises CommandFailed if it ends before with an error, ColabError if a job runs in this folder already.
    """
    state = job.state_file
    state.parent.mkdir(parents=True, exist_ok=True)
    if state.exists() and job.running():
        raise ColabError(f"A job runs in {job.out} already (process {job.state()['pid']}): follow_training() shows it.")
    state.unlink(missing_ok=True)
    job.shown = 0
    words = [str(PROJECT / "train_cuda.sh"), *command]
    with job.log.open("wb") as log:
        holder = subprocess.Popen(
            [sys.executable, "-P", "-S", str(Path(__file__).with_name("holder.py")), str(state), "--", *words],
            cwd=PROJECT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    while not state.exists():
        if holder.poll() is not None:
            raise ColabError(f"The job could not be started: see {job.log}.")
        time.sleep(PAUSE / 4)
    while job.running() and not FIRST_STEP.search(job.log.read_text(encoding="utf-8", errors="replace")):
        job.show()
        time.sleep(PAUSE)
    job.show()
    if not job.running() and job.code() not in (0, SAVED):
        raise CommandFailed(["train_cuda.sh", *command], job.code())
    return job


def follow_job(job: TrainingJob) -> int:
    """Print the job's output until it ends; returns 0, or 75: saved, run all cells again in a new session.

    Meanwhile the drive is probed, and mounted again when it is lost. The stop button sends the job one request to save.
    Raises CommandFailed if it ends with an error.
    """
    drive = _DriveWatch(job) if job.on_drive else None
    warned = stopping = False
    while True:
        try:
            running = job.running()
            job.show()
            if not running:
                break
            left = estimate_training_time_remaining(job.settings)
            if left < job.settings.session.warn_hours and not warned:
                warned = True
                print(
                    f"Note: less than {job.settings.session.warn_hours:g} hours of this session are left ({left:.1f})."
                )
            if drive is not None:
                drive.look()
            time.sleep(PAUSE)
        except KeyboardInterrupt:
            print(
                "Still saving; nothing more is needed." if stopping else "Saving first, then it stops ...", flush=True
            )
            if not stopping:
                job.stop()
            stopping = True
    code = job.code()
    if code not in (0, SAVED):
        raise CommandFailed(["train_cuda.sh"], code)
    print("The job is done." if code == 0 else "Everything is saved: run all cells again to continue.")
    return code


def finish_job(job: TrainingJob, unassign: bool = False) -> int:
    """Wait for the job's end, copy all results, and compare what the drive has after an upload; returns the job's code.

    Prints "safe" only if every file was compared. `unassign`: then end this session, which costs units until it ends.
    Raises ColabError if anything differs.
    """
    code = follow_job(job) if job.running() else job.code()
    if not job.persist:
        print(f"persist='none': the results are in {job.out} alone, and are lost with this session. Download them.")
        return code
    run([environment_python(), "-m", "training", "persist", "--out", job.out, "--persist", job.persist])
    if job.on_drive:
        print("Waiting until the drive has uploaded everything ...", flush=True)
        flush_and_mount_again(job.settings, job.mount)
        problems = differences(job.out, Path(job.persist))
        if problems:
            shown = "\n".join(f"  {problem}" for problem in problems[:8])
            raise ColabError(
                f"NOT safe: {len(problems)} files are not on the drive as they are here:\n{shown}\nKeep this session, "
                "and run this cell again."
            )
    print(f"safe: everything in {job.out} that matters is in {job.persist}, compared after the upload.")
    if unassign and code in (0, SAVED):
        colab_module("runtime").unassign()
    return code


class _DriveWatch:
    """Probes the drive while a job runs, and mounts it again."""

    def __init__(self, job: TrainingJob):
        self.job = job
        self._next = time.monotonic()
        self._lost = False

    def look(self) -> None:
        """Probe it, if that is due."""
        if time.monotonic() < self._next:
            return
        seconds = self.job.settings.session.probe_seconds
        folder = Path(self.job.persist)
        try:
            self._answers(folder)
        except OSError as error:
            if not self._lost:
                print(
                    f"The drive does not answer ({error.errno}: {error.strerror}). The training continues; "
                    f"{newest_step(self.job.out)} is safe in {self.job.out}. Mounting it again ...",
                    flush=True,
                )
            self._lost = True
            try:
                remount(self.job.mount)
                self._answers(folder)
            except (OSError, ValueError, RuntimeError, subprocess.SubprocessError) as failed:
                print(f"It could not be mounted: {failed}. Trying again in {seconds:g} s.", flush=True)
        self._next = time.monotonic() + seconds

    def _answers(self, folder: Path) -> None:
        """Probe it. Raises OSError."""
        probe(folder)
        if self._lost:
            print("The drive answers again; the copy catches up.", flush=True)
        self._lost = False


def newest_step(out: Path) -> str:
    """The newest checkpoints on this disk, for people."""
    found = []
    for index in sorted(out.glob("checkpoints/*/index.json")):
        try:
            step = json.loads(index.read_text(encoding="utf-8"))["files"]["last.pt"]["step"]
            found.append(f"step {step} of {index.parent.name}")
        except (OSError, ValueError, KeyError):
            continue
    return " and ".join(found) or "no step yet"


def job_of(settings: ColabSettings, persist: str, out: Path | None = None) -> TrainingJob:
    """The job of a notebook. `persist`: "drive" (the folder of colab_setup.yaml), "none", a folder, or a URL."""
    mount = Path(settings.drive.mount_path)
    place = {"drive": str(mount / settings.drive.folder), "none": ""}.get(persist, persist)
    return TrainingJob(out or default_out(), settings, mount, place)
