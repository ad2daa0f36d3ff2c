"""Restarts a command that crashed or was killed: `python -m training.runner.supervisor [options] -- COMMAND...`

Errors that would only repeat (wrong usage, refused data, a full disk, a training that failed: exit codes 2 to 6) are
never tried again, nor is a crash that happened twice at the same place. Processes that the command left behind (data
loader workers, torchrun's ranks) are killed before it is started again, so that none holds the folder, memory or the
GPU.

Signals are forwarded: the command saves and ends. A second signal kills everything at once. If only the process that
started this one (the runner) is killed, that counts as SIGTERM, and the command follows this process in the same way
(training/parent.py).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.console import keep_console
from training.parent import as_parent, follow
from training.units import duration

STOPPED = 75  # training.errors.Interrupted
CRASHED = 1  # an unhandled exception, or the hang watchdog (engine/process/heartbeat.py)
NOTE = "ATHANOR_CRASH_NOTE"  # environment variable: path of the file in which cli.py writes the error of a crash
PAUSES = (5.0, 15.0, 45.0, 120.0)  # seconds before the first restart, the second ...; the last also for later ones
RESTARTS = 4  # restarts without progress
#: A host that shuts down sends a signal to every process, so the same request may arrive twice (directly, and forwarded
#: by the runner). Within so many seconds, a signal is not a second request.
ECHO_SECONDS = 1.0
LEAVE_SECONDS = 2.0  # time in which processes that the command left behind may end
KILL_SECONDS = 10.0  # time in which a killed process must disappear
PR_SET_CHILD_SUBREAPER = 36  # Linux: prctl(2)

HINTS = {
    "SIGKILL": "most often the memory of this host ran out; `sudo dmesg` shows it",
    "SIGSEGV": "a fault in compiled code: a driver, a library, or the memory of this host",
    "SIGBUS": "most often shared memory or a disk ran full",
    "SIGABRT": "a library aborted; its message is above",
}
FAULTS = ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE")  # caused by the process itself


@dataclass(frozen=True)
class Saved:
    """The newest checkpoint."""

    run_id: str = ""
    step: int = -1

    def beyond(self, other: Saved) -> bool:
        """Whether something was saved since `other`."""
        return self.run_id != other.run_id or self.step > other.step


@dataclass(frozen=True)
class End:
    """How the command ended."""

    code: int  # as a shell reports it: 128+n for signal n
    note: str  # the error of a crash, and where it happened
    seconds: float

    @property
    def signal(self) -> str:
        """Name of the signal that killed it, or killed a process that it waited for; empty if none did."""
        with contextlib.suppress(ValueError):
            return signal.Signals(self.code - 128).name if self.code > 128 else ""
        return ""

    @property
    def may_succeed_again(self) -> bool:
        """Whether the same command may succeed if it is started again."""
        return self.code == CRASHED or bool(self.signal)

    def repeats(self, other: End) -> bool:
        """Whether both are the same fault of the program. (Being killed from outside is no fault of the program.)"""
        same = (self.code, self.note) == (other.code, other.note)
        return same and (bool(self.note) or self.signal in FAULTS)

    def __str__(self) -> str:
        if self.signal:
            hint = HINTS.get(self.signal)
            return f"killed by {self.signal}" + (f" ({hint})" if hint else "")
        if self.code == CRASHED:
            why = self.note or "no Python error was reported: see above, most often the hang watchdog's stacks"
            return f"crashed ({why})"
        return f"ended with exit code {self.code}"


class Supervisor:
    """Runs one command, restarts it, and forwards signals. `index`: the index.json of its checkpoints, from which its
    progress is read; None: its progress is not known. `stop_within`: seconds after a signal until it is killed; 0: no
    limit. `until`: seconds since 1970 at which the command is stopped as by SIGTERM; 0: never."""

    def __init__(
        self, command: Sequence[str], *, title: str, index: Path | None = None, restarts: int = RESTARTS,
        pauses: Sequence[float] = PAUSES, stop_within: float = 0.0, until: float = 0.0,
    ):  # fmt: skip
        self.command, self.title, self.index = list(command), title, index
        self.restarts, self.pauses, self.stop_within, self.until = restarts, pauses, stop_within, until
        self.stop_signal = 0  # number of the first signal that arrived
        self.killing = False  # whether all processes are killed: a second signal arrived, or stopping took too long
        self._too_late = False  # the latter
        self._signal_time = 0.0  # of the first signal, on the monotonic clock
        self._leader: int | None = None  # process number of the running command
        self._forwarded = False  # whether the signal was forwarded to the running command

    # -- restarts --------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run the command to its end, with restarts; returns the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # ignored under nohup
                signal.signal(number, self._pass_on)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM))
        signal.signal(signal.SIGALRM, self._too_slow)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if it is ignored, the kernel discards exit codes
        _adopt_orphans()
        follow(lambda: self.stop_signal)
        if self.until:
            threading.Thread(target=self._stop_in_time, daemon=True, name="session end").start()
        first = before = self._saved()
        last: End | None = None
        tries = total = 0  # restarts since something was saved, and in all
        with _scratch() as folder:
            while True:
                command = _continued(self.command) if before.run_id != first.run_id else self.command
                end = self._once(command, Path(folder, "note") if folder else None)
                if self.stop_signal or not end.may_succeed_again:
                    return self._outcome(end, total)
                saved = self._saved()
                grown = saved.beyond(before)
                tries = 1 if grown else tries + 1
                same = last is not None and not grown and end.repeats(last)
                before, last = saved, end
                self._say(f"{end}, after {duration(end.seconds)}.{self._so_far(saved)}")
                if same:
                    self._say(f"the same crash twice at the same place: it would come again. Exit code {end.code}.")
                    return end.code
                if tries > self.restarts:
                    if self.restarts:
                        self._say(f"{self.restarts} restarts without progress: no further one. Exit code {end.code}.")
                    return end.code
                pause = self.pauses[min(tries, len(self.pauses)) - 1]
                self._say(f"restart {tries} of {self.restarts} in {pause:g} s.")
                total += 1
                if not self._rest(pause):
                    return STOPPED

    def _outcome(self, end: End, restarts: int) -> int:
        """The exit code of a command that is not started again."""
        if self.killing and end.signal == "SIGKILL":
            return STOPPED if self._too_late else 128 + self.stop_signal
        if self.stop_signal and end.code == 128 + self.stop_signal:  # it had no handler yet, so nothing had begun
            return STOPPED
        if self.stop_signal and end.may_succeed_again:
            self._say(f"{end}, while it was stopping.{self._so_far(self._saved())}")
        elif restarts:
            self._say(f"{restarts} restart{'s' * (restarts > 1)} in all. Exit code {end.code}.")
        return end.code

    def _rest(self, seconds: float) -> bool:
        """Wait; returns whether no stop was requested."""
        until = time.monotonic() + seconds
        while not self.stop_signal and time.monotonic() < until:
            time.sleep(min(0.1, seconds))
        return not self.stop_signal

    # -- once ------------------------------------------------------------------------------------------------------

    def _once(self, command: Sequence[str], note: Path | None) -> End:
        """Start the command, wait for its end, and end the processes that it left behind."""
        if self.stop_signal:
            return End(STOPPED, "", 0.0)
        environment = {**os.environ, **as_parent()}
        if note is not None:
            note.unlink(missing_ok=True)
            environment[NOTE] = str(note)
        began = time.monotonic()
        self._forwarded = False
        try:
            process = subprocess.Popen(command, env=environment, process_group=0)
        except OSError as error:
            self._say(f"{command[0]} cannot be started: {error.strerror}.")
            return End(6, "", 0.0)
        self._leader = process.pid
        self._forward()  # a signal may have arrived since
        while True:
            pid, status = os.waitpid(-1, 0)  # orphans are collected too
            if pid == process.pid:
                break
        process.returncode = code = os.waitstatus_to_exitcode(status)
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._leader = None
        self._clear(process.pid)
        reason = note.read_text(encoding="utf-8", errors="replace").strip() if note and note.exists() else ""
        return End(code if code >= 0 else 128 - code, reason, time.monotonic() - began)

    def _clear(self, group: int) -> None:
        """End the processes that the command left behind; returns when none is left below this one."""
        if not sys.platform.startswith("linux"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
            return
        allowed = time.monotonic() + (0.0 if self.killing else LEAVE_SECONDS)
        while True:
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            left = _descendants()
            if not left:
                return
            late = time.monotonic() - allowed
            if late > KILL_SECONDS:
                self._say(f"process {', '.join(map(str, left))} was killed but does not end: a disk or a driver hangs.")
                return
            if late >= 0 or self.killing:
                _kill(left)
            time.sleep(0.02)

    # -- signals ---------------------------------------------------------------------------------------------------

    def _pass_on(self, number: int, _frame: object) -> None:
        now = time.monotonic()
        if not self.stop_signal:
            self.stop_signal, self._signal_time = number, now
            self._forward()
        elif now - self._signal_time >= ECHO_SECONDS:
            self.killing = True
            self._kill_all()

    def _stop_in_time(self) -> None:
        # In short waits, since the clock of this host may be set meanwhile.
        while (left := self.until - time.time()) > 0:
            time.sleep(min(left, 1.0))
        if not self.stop_signal:
            self._say("this session ends (--session-ends): saving, and stopping.")
            os.kill(os.getpid(), signal.SIGTERM)

    def _kill_all(self) -> None:
        _kill([*_descendants(), *([self._leader] if self._leader else [])])

    def _forward(self) -> None:
        if self.stop_signal and self._leader and not self._forwarded:
            self._forwarded = True
            if self.stop_within:
                signal.setitimer(signal.ITIMER_REAL, self.stop_within)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._leader, self.stop_signal)

    def _too_slow(self, _number: int, _frame: object) -> None:
        self.killing = self._too_late = True
        self._say(f"has not stopped within {self.stop_within:g} s, and is killed. Finished files are kept.")
        self._kill_all()

    # -- progress and messages -------------------------------------------------------------------------------------

    def _saved(self) -> Saved:
        try:
            entry = json.loads(self.index.read_text(encoding="utf-8"))["files"]["last.pt"] if self.index else {}
            return Saved(str(entry["run_id"]), int(entry["step"]))
        except (OSError, ValueError, KeyError, TypeError):  # none yet, or damaged, which the command itself reports
            return Saved()

    def _so_far(self, saved: Saved) -> str:
        if self.index is None:
            return ""
        return f" Saved so far: step {saved.step}." if saved.step >= 0 else " Nothing was saved yet."

    def _say(self, text: str) -> None:
        print(f"{self.title}: {text}", file=sys.stderr, flush=True)


def _scratch() -> contextlib.AbstractContextManager[str]:
    """A temporary folder; "" if none can be made (a full or read-only /tmp). The command then runs all the same, but
    the reason of a crash is not known."""
    try:
        return tempfile.TemporaryDirectory(prefix="athanor-")
    except OSError:
        return contextlib.nullcontext("")


def _continued(command: Sequence[str]) -> list[str]:
    """The command of a restart after `--resume never` has begun a new run: it continues that run."""
    words = ["--resume=auto" if word == "--resume=never" else word for word in command]
    return ["auto" if word == "never" and words[at - 1 : at] == ["--resume"] else word for at, word in enumerate(words)]


# -- processes -----------------------------------------------------------------------------------------------------


def _adopt_orphans() -> None:
    """Make processes whose parent died children of this one, whatever session they are in (torchrun gives each rank a
    separate session, so a process group does not contain them)."""
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def _descendants() -> list[int]:
    """Every living process below this one."""
    below: dict[int, list[int]] = {}
    with contextlib.suppress(FileNotFoundError):  # no /proc
        for name in os.listdir("/proc"):  # noqa: PTH208 - thousands of entries
            if name.isdigit():
                with contextlib.suppress(OSError):
                    about = Path("/proc", name, "stat").read_text(errors="replace")
                    state, parent = about.rpartition(")")[2].split()[:2]  # the name before may hold anything
                    if state not in "ZX":
                        below.setdefault(int(parent), []).append(int(name))
    found = [os.getpid()]
    for process in found:
        found += below.get(process, [])
    return found[1:]


def _kill(processes: Sequence[int]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process, signal.SIGKILL)


# -- options -------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and run; returns the exit code."""
    keep_console()
    parser = argparse.ArgumentParser(
        prog="python -m training.runner.supervisor", usage="%(prog)s [options] -- COMMAND...",
        description="Start COMMAND, and start it again when it crashed or was killed.",
        epilog="The exit code is the command's; 128+n if signal n killed it.",
    )  # fmt: skip
    parser.add_argument("--title", default="supervisor", metavar="TEXT", help="what the command is called in messages")
    parser.add_argument(
        "--index", type=Path, metavar="FILE", help="checkpoints/FAMILY/index.json, from which progress is read"
    )
    parser.add_argument(
        "--restarts", type=_count, default=os.environ.get("ATHANOR_RESTARTS", RESTARTS), metavar="N",
        help=f"how many, one after another, without progress (default: ATHANOR_RESTARTS, or {RESTARTS}; 0: none)",
    )  # fmt: skip
    parser.add_argument(
        "--pauses", type=_seconds, default=os.environ.get("ATHANOR_RESTART_PAUSES", ",".join(f"{p:g}" for p in PAUSES)),
        metavar="S,S...", help="seconds before each restart (default: ATHANOR_RESTART_PAUSES, or %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--stop-within", type=float, default=0.0, metavar="S",
        help="kill the command if it has not stopped S seconds after a signal, and end with 75; only for a command "
        "whose files are intact at any time (default: no limit)",
    )  # fmt: skip
    parser.add_argument(
        "--until", type=float, default=0.0, metavar="T",
        help="stop the command, as SIGTERM does, at this time in seconds since 1970 (default: never)",
    )  # fmt: skip
    own, _, command = _split(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(own)
    if not command:
        parser.error("no COMMAND was given, after --.")
    return Supervisor(
        command, title=options.title, index=options.index, restarts=options.restarts, pauses=options.pauses,
        stop_within=options.stop_within, until=options.until,
    ).run()  # fmt: skip


def _split(words: Sequence[str]) -> tuple[Sequence[str], str, Sequence[str]]:
    """Options, `--`, and the command, whose own `--` stays."""
    at = list(words).index("--") if "--" in words else len(words)
    return words[:at], "--", words[at + 1 :]


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number (ATHANOR_RESTARTS counts too)")
    return int(text)


def _seconds(text: str) -> tuple[float, ...]:
    try:
        pauses = tuple(float(part) for part in text.split(","))
    except ValueError:
        pauses = ()
    if not pauses or not all(0 <= pause < 86400 for pause in pauses):
        raise argparse.ArgumentTypeError(f"'{text}' are no seconds, separated by commas (nor ATHANOR_RESTART_PAUSES)")
    return pauses


if __name__ == "__main__":
    sys.exit(main())
