"""Runs commands as child processes on this host, several at once. Each line that they print is printed after the
command's name, signals are forwarded to all of them, and the exit code of each is returned."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.engine.process.signals import install_handlers
from training.errors import Interrupted
from training.parent import as_parent
from training.stages.fork_server import PREFIX, Forked, ForkServer
from training.threads import sharing

Process = subprocess.Popen | Forked


@dataclass(frozen=True)
class End:
    """How a command ended."""

    code: int  # as a shell reports it: 128+n for signal n
    last: str  # the last line that it printed to stderr


class Children:
    """Context manager that runs commands. `say` prints a line of their output. A signal that arrives inside the context
    is forwarded to the running commands as SIGTERM, and no further command is started. `server`: forks those commands
    that are `python -m training ...`."""

    def __init__(self, say: Callable[[str], None], server: ForkServer | None = None):
        self.say, self.server = say, server
        self.stopped = 0  # how many signals arrived
        self._running: dict[str, Process] = {}
        self._signalled: set[str] = set()  # names of the commands that were sent a signal
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Children:
        if threading.current_thread() is threading.main_thread():
            self._before = install_handlers(self._pass_on)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if error[0] is not None:
            for process in self._running.values():
                process.terminate()
        for process in self._running.values():
            process.wait()

    def _pass_on(self, number: int, _frame: object) -> None:
        self.stopped += 1
        self._signalled.update(self._running)
        for process in list(self._running.values()):
            process.send_signal(signal.SIGTERM)  # a second one ends a command at once (runner/supervisor.py)

    def run(
        self,
        commands: Mapping[str, Sequence[str]],
        at_once: int = 1,
        *,
        gpus: Collection[str] = (),
        ended: Callable[[str, End], bool] = lambda name, end: True,
    ) -> dict[str, End]:
        """Run the commands (by name), at most `at_once` at the same time, each with its share of the CPUs. Returns how
        each started command ended. Commands named in `gpus` see one GPU each (CUDA_VISIBLE_DEVICES) of those that this
        process sees. `ended` is called after each command; if it returns False, no further command is started. Raises
        Interrupted after a signal, when all have ended."""
        waiting, ends = dict(commands), {}
        slots: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(at_once):
            slots.put(slot)
        done: queue.SimpleQueue[tuple[str, int, End]] = queue.SimpleQueue()
        threads: list[threading.Thread] = []
        going = True
        while (waiting and going and not self.stopped) or len(ends) < len(threads):
            if waiting and going and not self.stopped and not slots.empty():
                name = next(iter(waiting))
                slot = slots.get()
                gpu = slot if name in gpus and at_once > 1 else None
                process = self._start(waiting.pop(name), gpu, min(at_once, len(commands)))
                self._running[name] = process
                if self.stopped and name not in self._signalled:  # the signal came while the command was being started
                    process.send_signal(signal.SIGTERM)
                threads.append(threading.Thread(target=self._follow, args=(name, slot, process, done), daemon=True))
                threads[-1].start()
                continue
            try:
                name, slot, end = done.get(timeout=0.2)
            except queue.Empty:  # look whether a signal has arrived
                continue
            self._running.pop(name)
            slots.put(slot)
            ends[name] = end
            going = ended(name, end) and going
        if self.stopped:
            raise Interrupted("Stopped; everything is saved. Run the same command again to continue.")
        return ends

    def _start(self, command: Sequence[str], slot: int | None, at_once: int) -> Process:
        environment = {**os.environ, **as_parent(), **sharing(at_once)}
        if slot is not None:
            seen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
            environment["CUDA_VISIBLE_DEVICES"] = seen[slot % len(seen)] if seen else str(slot)
        if self.server is not None and tuple(command[1 : 1 + len(PREFIX)]) == PREFIX:
            return self.server.start(command, environment)
        # A new session: Ctrl-C in a terminal reaches this process only, which forwards it once.
        return subprocess.Popen(
            list(command), env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, errors="replace", start_new_session=True,
        )  # fmt: skip

    def _follow(self, name: str, slot: int, process: Process, done: queue.SimpleQueue) -> None:
        last: deque[str] = deque(maxlen=1)

        def errors() -> None:
            for line in process.stderr:
                if line.strip():
                    last.append(line.strip())
                self.say(f"[{name}] {line.rstrip()}")

        reader = threading.Thread(target=errors, daemon=True)
        reader.start()
        for line in process.stdout:
            self.say(f"[{name}] {line.rstrip()}")
        reader.join()
        code = process.wait()
        done.put((name, slot, End(128 - code if code < 0 else code, last[0] if last else "")))
