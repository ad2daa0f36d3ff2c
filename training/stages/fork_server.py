"""A process that has imported what several commands need, and forks a process for each of them.

Importing torch and a domain's libraries takes seconds. A command that runs many others (stages/fan_out.py) pays them
once, and each of these still is a process: with its own memory, exit code, signals and output.

A fork copies the calling thread only, but all locks, in whatever state other threads left them. So the server runs
nothing but imports: no thread of OpenMP, of a data loader or of a CUDA driver exists when it forks (OpenBLAS, which
starts its threads when it is loaded, ends and restarts them around a fork). Linux only: libraries of macOS do not
survive a fork.

`python -m training.stages.fork_server MODULES...` is the server; it takes orders from the socket that is its standard
input. Every process ends with the one that started it: the server when the socket is closed, the commands when the
server is gone (training/parent.py).
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO, Any

from training.parent import as_parent
from training.threads import configure

ORDER = 1 << 20  # bytes of the largest order: words and environment
PREFIX = ("-m", "training")  # of the commands that it can run, after the interpreter


class ForkServer:
    """Context manager: the caller's side. `modules`: what the server imports before it forks. `environment`: of the
    server, which libraries read when they are imported."""

    available = sys.platform == "linux"

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str]):
        self._command = [sys.executable, "-m", __name__, *modules]
        self._environment = {**os.environ, **environment}

    def __enter__(self) -> ForkServer:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdin=theirs, start_new_session=True
            )  # fmt: skip
        return self

    def __exit__(self, *error: object) -> None:
        self._orders.close()
        self._process.wait()

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> Forked:
        """Run `command` (an interpreter, -m training, words) in a forked process. If the server has been killed, the
        command ends as one that was killed."""
        (out, their_out), (err, their_err), (status, their_status) = (os.pipe() for _ in range(3))
        order = json.dumps({"words": [*command[1 + len(PREFIX) :]], "environment": dict(environment)})
        with contextlib.suppress(BrokenPipeError):
            socket.send_fds(self._orders, [order.encode()], [their_out, their_err, their_status])
        for handle in (their_out, their_err, their_status):
            os.close(handle)
        return Forked(out, err, status)


class Forked:
    """A running command: those attributes of subprocess.Popen that stages/children.py uses."""

    def __init__(self, out: int, err: int, status: int):
        self.stdout, self.stderr = (os.fdopen(handle, errors="replace") for handle in (out, err))
        self._status: IO[str] = os.fdopen(status)
        self.pid = int(self._status.readline() or 0)  # 0: the server was killed before it forked
        self.returncode: int | None = None

    def wait(self) -> int:
        """The exit code; negative: the signal that ended it, as in subprocess."""
        if self.returncode is None:
            # without a line the server was killed, and the command notices that and stops
            self.returncode = int(self._status.readline() or -signal.SIGKILL)
            self._status.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None and self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


# -- the server ----------------------------------------------------------------------------------------------------


def serve(orders: socket.socket, modules: Sequence[str]) -> None:
    """Import `modules`, then fork a process for each order, until the caller closes the socket."""
    for module in modules:
        with contextlib.suppress(ImportError):  # the command will import it, and report the error as its own
            importlib.import_module(module)
    running: dict[int, int] = {}  # process -> the handle to which its number and its exit code are written
    woken, wakes = os.pipe()
    for handle in (woken, wakes):
        os.set_blocking(handle, False)
    signal.set_wakeup_fd(wakes)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    while True:
        ready, _, _ = select.select([orders, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _collect(running)
        if orders in ready:
            message, handles, _, _ = socket.recv_fds(orders, ORDER, 3)
            if not message:  # the caller has closed it, or has ended
                return
            sys.stdout.flush(), sys.stderr.flush()
            process = os.fork()
            if process == 0:
                for handle in (woken, wakes, handles[2], *running.values()):
                    os.close(handle)
                orders.detach()  # it is the standard input, which `_run` replaces
                _run(json.loads(message), *handles[:2])
            os.close(handles[0]), os.close(handles[1])
            running[process] = handles[2]
            _write(handles[2], process)


def _collect(running: dict[int, int]) -> None:
    """Report the exit codes of the processes that have ended."""
    while running:
        process, status = os.waitpid(-1, os.WNOHANG)
        if process == 0:
            return
        with contextlib.suppress(ProcessLookupError):  # what it left behind: data loader workers of a killed training
            os.killpg(process, signal.SIGKILL)
        handle = running.pop(process)
        _write(handle, os.waitstatus_to_exitcode(status))
        os.close(handle)


def _write(handle: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # the caller has ended
        os.write(handle, f"{number}\n".encode())


def _run(order: dict[str, Any], out: int, err: int) -> None:
    """`python -m training WORDS` in this process, in its own session. Does not return."""
    code = 1
    try:
        parent = os.getppid()
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, handle in enumerate((os.open(os.devnull, os.O_RDONLY), out, err)):
            os.dup2(handle, number)
            os.close(handle)
        os.environ.clear()
        os.environ.update(order["environment"] | as_parent(parent))
        sys.argv = ["training", *order["words"]]
        runpy.run_module("training", run_name="__main__", alter_sys=True)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 2
    except BaseException:  # noqa: BLE001  reported as the interpreter does at the end of a process
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    configure()  # before numpy or torch is imported
    with socket.socket(fileno=0) as given:
        serve(given, sys.argv[1:])
