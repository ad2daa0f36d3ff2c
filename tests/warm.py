"""A Python in which everything is imported already, so that commands start without the seconds that torch takes.

`Warm` starts a server and writes a program `python`. For each `-m training ...` (and for the server of a fan-out, which
forks in its turn, and the other MODULES) the program has the server fork a process, with the program's working
directory, environment, output, signals and exit code; it runs anything else with the real interpreter. Verbs that the
variable WITHOUT names end at once, and so does their supervisor.

SIGKILL cannot be passed on: the process ends a moment after the program. A test that kills it, and needs it gone, has
its id written to the file that the variable PID names, and kills that: the program ends after it, by the same signal.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

WITHOUT = "ATHANOR_TEST_WITHOUT"
PID = "ATHANOR_TEST_PID"
MODULES = (
    "training", "training.stages.fork_server", "tests.on_ranks", "tests.engine.toy_fitted", "tests.engine.toy_ranks",
    "benchmarks.sql.gpu_sharding",
)  # fmt: skip
ROOT = Path(__file__).resolve().parents[1]
PR_SET_PDEATHSIG = 1

CLIENT = """#!{python} -SE
import json, os, signal, socket, sys
command = sys.argv[sys.argv.index("--") + 2 :] if "--" in sys.argv else sys.argv[1:]
if command[:2] == ["-m", "training"] and command[2] in os.environ.get({without!r}, "").split():
    sys.exit(0)
if sys.argv[1] != "-m" or sys.argv[2] not in {modules!r}:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server.connect({address!r})
order = {{"module": sys.argv[2], "words": sys.argv[3:], "folder": os.getcwd(), "environment": dict(os.environ)}}
socket.send_fds(server, [json.dumps(order).encode()], [0, 1, 2])
process = int(server.recv(64))
if {pid!r} in os.environ:
    with open(os.environ[{pid!r}], "w") as file:
        file.write(str(process))
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, lambda number, frame: os.kill(process, number))
code = int(server.recv(64))
if code < 0:
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


class Warm:
    """The server and its program; the server is killed when this process ends. `prepare`: a function, as
    "module:function", that is called in a command's process with its arguments, and returns those to run; its module
    imports what the commands need."""

    def __init__(self, folder: Path, prepare: str = "tests.imported:unchanged"):
        self.python = folder / "python"
        address = folder / "warm.socket"
        client = CLIENT.format(python=sys.executable, address=str(address), without=WITHOUT, pid=PID, modules=MODULES)
        self.python.write_text(client, encoding="utf-8")
        self.python.chmod(0o755)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(address), prepare, str(self.python)], cwd=ROOT, env=environment,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None and self._process.stdout.readline() == b"ready\n"

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def serve(address: str, prepare: str, python: str) -> None:
    """Accept commands for ever, and fork a process for each; `python` is `sys.executable` in it."""
    module, _, name = prepare.partition(":")
    prepared = vars(__import__(module, fromlist=[name]))[name]
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(address)
    listening.listen()
    _die_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    sys.executable = python
    print("ready", flush=True)
    while True:
        client, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            _attend(client, prepared)
            os._exit(0)
        client.close()


def _attend(client: socket.socket, prepared: Any) -> None:
    """Run one command, and send its exit code to the client. If the client ends before, the command is killed."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _die_with_parent()
    message, handles, _, _ = socket.recv_fds(client, 1 << 20, 3)
    process = os.fork()
    if process == 0:
        _run(json.loads(message), handles, client, prepared)
    for handle in handles:
        os.close(handle)
    client.send(str(process).encode())
    ended = os.pidfd_open(process)
    ready, _, _ = select.select([ended, client], [], [])
    if ended not in ready:  # the client is gone
        os.killpg(process, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    with contextlib.suppress(OSError):
        client.send(str(code).encode())


def _run(order: dict[str, Any], handles: list[int], client: socket.socket, prepared: Any) -> None:
    """`python -m MODULE WORDS`, in this process."""
    code = 1
    try:
        client.close()
        os.setsid()
        _die_with_parent()
        for number, handle in enumerate(handles):
            os.dup2(handle, number)
            os.close(handle)
        sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        os.chdir(order["folder"])
        os.environ.clear()
        os.environ.update(order["environment"])
        sys.argv = [order["module"], *prepared(order["words"])]
        runpy.run_module(order["module"], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001  the end of a process: reported as the interpreter would
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    serve(*sys.argv[1:])
