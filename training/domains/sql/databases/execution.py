"""Execute SQL that a model wrote: in locked processes (child.py) that the parent kills when they do not end in time."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.domains.sql.databases.child import MAX_BYTES, MAX_ROWS, MAX_SQL
from training.errors import HostError

__all__ = ["MAX_BYTES", "MAX_ROWS", "MAX_SQL", "Executor", "Result", "deterministic", "is_server"]

_CHILD = Path(__file__).with_name("child.py")
_START_SECONDS = 60.0  # limit for a child's start, on a loaded machine
_MAX_ANSWER = 8 * MAX_BYTES  # bytes of one line: JSON's escapes make a text up to six times as long
_STARTS = 3  # attempts to start a child before the host is blamed


@dataclass(frozen=True)
class Result:
    """What a statement returned. `rows` is None exactly if `error` is set.

    `error` begins with "refused" (not one SELECT, or something that is not permitted), "timeout", "too large" (more
    than MAX_ROWS rows or MAX_BYTES bytes), "crashed", or is the engine's message ("syntax error ...", "no such column
    ..."). Values are None, int, float, str and bytes, and of PostgreSQL bool; its dates and other types are texts.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple, ...] | None
    error: str | None
    seconds: float  # wall-clock time


def is_server(database: str) -> bool:
    """Whether `database` is the URL of a PostgreSQL server, not a path."""
    return database.startswith(("postgresql://", "postgres://"))


class Executor:
    """Executes single SELECT statements in `workers` locked child processes, which are kept between statements.

    A statement in SQLite may use `seconds` of processor time, one in PostgreSQL as much wall-clock time. Whatever has
    not ended after twice that and a second more is killed with its process, and the next statement gets another one.
    Used by one thread of the process that made it.
    """

    def __init__(self, seconds: float = 5.0, workers: int = 1):
        if seconds <= 0 or workers < 1:
            raise ValueError(f"Executor(seconds={seconds}, workers={workers}): both must be positive")
        self.seconds = seconds
        self._children: list[_Child | None] = [None] * workers

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child processes. The next statement starts them again."""
        for place, child in enumerate(self._children):
            if child is not None:
                child.kill()
                self._children[place] = None

    def run(self, database: str, sql: str) -> Result:
        """Execute `sql` in `database`: the absolute path of a SQLite file, or a postgresql:// URL.

        Raises ValueError for a relative path, HostError if no child process can start.
        """
        return self.run_all([(database, sql)])[0]

    def run_all(self, pairs: Sequence[tuple[str, str]]) -> list[Result]:
        """Execute every (database, sql) and return the results in the same order. Raises as `run`."""
        results: list[Result | None] = [_check(database, sql) for database, sql in pairs]
        todo = deque(index for index, result in enumerate(results) if result is None)
        busy: dict[int, int] = {}  # place of a child -> index of its statement
        try:
            with selectors.DefaultSelector() as answers:
                while todo or busy:
                    for place in range(len(self._children)):
                        if todo and place not in busy:
                            busy[place] = index = todo.popleft()
                            child = self._send(place, *pairs[index])
                            answers.register(child.output, selectors.EVENT_READ, place)
                    wait = min(self._child(place).deadline for place in busy) - time.monotonic()
                    ready = {key.data for key, _ in answers.select(max(0.0, wait))}
                    for place in list(busy):
                        child = self._child(place)
                        result = child.receive() if place in ready else None
                        if result is None and child.deadline <= time.monotonic():
                            result = child.stop_late(self.seconds)
                        if result is not None:
                            answers.unregister(child.output)
                            results[busy.pop(place)] = result
                            if not child.alive:
                                child.kill()
                                self._children[place] = None
        except BaseException:
            # a child that is still busy would send its answer to the next statement
            self.close()
            raise
        return [result for result in results if result is not None]

    def _child(self, place: int) -> _Child:
        child = self._children[place]
        assert child is not None
        return child

    def _send(self, place: int, database: str, sql: str) -> _Child:
        """Send a statement to the child at `place`. Starts one if there is none, or one of the other kind, or if it
        has ended meanwhile (the kernel ends processes when memory is short)."""
        kind = "postgres" if is_server(database) else "sqlite"
        request = {"database": database, "sql": sql, "seconds": self.seconds}
        for _ in range(_STARTS):
            child = self._children[place]
            if child is not None and child.kind != kind:
                child.kill()
                child = None
            if child is None:
                self._children[place] = child = _Child(kind)
            if child.send(request, 2 * self.seconds + 1):
                return child
            child.kill()
            self._children[place] = None
        raise HostError(f"{_STARTS} processes in a row that execute SQL ended while they started")


def _check(database: str, sql: str) -> Result | None:
    """The result of a statement that no child has to see; None for the others."""
    if not is_server(database) and not Path(database).is_absolute():
        raise ValueError(f"the path of a database must be absolute: {database}")
    if len(sql) > MAX_SQL:
        return Result((), None, f"refused: the statement has {len(sql)} characters, more than {MAX_SQL}", 0.0)
    if "\0" in sql or any("\ud800" <= character <= "\udfff" for character in sql):
        return Result((), None, "refused: a null character or half a surrogate pair in the statement", 0.0)
    return None


class _Child:
    """A child process, and the statement that it executes."""

    def __init__(self, kind: str):
        self.kind = kind
        self.alive = True
        self.deadline = time.monotonic() + _START_SECONDS
        self._began = time.monotonic()
        self._buffer = bytearray()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_CHILD), kind, *_paths(kind)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=_environment(kind),
            # A separate process group: Ctrl-C in a terminal reaches the parent alone, which then kills the group.
            process_group=0,
        )
        self.output = self._process.stdout.fileno()
        os.set_blocking(self.output, False)
        with selectors.DefaultSelector() as started:
            started.register(self.output, selectors.EVENT_READ)
            while self.alive and (line := self._line()) is None:
                if not started.select(max(0.0, self.deadline - time.monotonic())):
                    self.alive = False
        self.alive = self.alive and line == b"ready"

    def send(self, request: dict[str, Any], seconds: float) -> bool:
        """Send a statement that has to end within `seconds`. False if the process has ended."""
        self._began = time.monotonic()
        self.deadline = self._began + seconds
        try:
            if self.alive:
                self._process.stdin.write(json.dumps(request).encode() + b"\n")
                self._process.stdin.flush()
        except OSError:
            self.alive = False
        return self.alive

    def receive(self) -> Result | None:
        """The result, or None if it has not arrived completely."""
        line = self._line()
        seconds = time.monotonic() - self._began
        if line is None:
            return None if self.alive else self._crashed(seconds)
        try:
            columns, rows, error, seconds = json.loads(line, object_hook=_bytes)
            return Result(tuple(columns), None if rows is None else tuple(map(tuple, rows)), error, seconds)
        except (ValueError, TypeError):
            self.alive = False
            return Result((), None, "crashed: the process sent no valid answer", seconds)

    def _line(self) -> bytes | None:
        """The next line without its end, or None. `alive` becomes False at the end of the output."""
        while True:
            try:
                part = os.read(self.output, 1 << 20)
            except BlockingIOError:
                return None
            self._buffer += part
            if part.endswith(b"\n"):
                line = bytes(self._buffer[:-1])
                self._buffer.clear()
                return line
            if not part or len(self._buffer) > _MAX_ANSWER:
                self.alive = False
                return None

    def _crashed(self, seconds: float) -> Result:
        if len(self._buffer) > _MAX_ANSWER:
            return Result((), None, f"too large: an answer of more than {_MAX_ANSWER} bytes", seconds)
        self.kill()
        if self._process.returncode == -signal.SIGXCPU:
            return Result((), None, "timeout: stopped by its limit of processor time", seconds)
        return Result((), None, f"crashed: the process ended with code {self._process.returncode}", seconds)

    def stop_late(self, seconds: float) -> Result:
        """Kill the process of a statement that has not ended: the limit was `seconds`."""
        self.alive = False
        self.kill()
        return Result((), None, f"timeout: killed, the limit is {seconds:g} s", time.monotonic() - self._began)

    def kill(self) -> None:
        """End the process and close its pipes."""
        self.alive = False
        if self._process.poll() is None and not self._ends():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()

    def _ends(self) -> bool:
        """Whether the process has closed its output because it ends: its exit code is about to arrive."""
        try:
            if os.read(self.output, 1):
                return False  # it is still writing
        except BlockingIOError:
            return False  # its output is open
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return False  # it closed its output and stays
        return True


def _bytes(value: dict[str, str]) -> bytes:
    return bytes.fromhex(value["bytes"])


def _paths(kind: str) -> list[str]:
    """The folders that a child needs on its path: where psycopg is."""
    if kind == "sqlite":
        return []
    found = importlib.util.find_spec("psycopg")
    if found is None or not found.submodule_search_locations:
        raise HostError("a postgresql:// URL needs the package psycopg: pip install 'psycopg[binary]'")
    others = (importlib.util.find_spec(name) for name in ("psycopg_binary", "typing_extensions"))
    places = [Path(found.submodule_search_locations[0]).parent]
    places += [Path(other.origin).parent for other in others if other and other.origin]
    return list(dict.fromkeys(str(place.parent if place.name == "psycopg_binary" else place) for place in places))


def _environment(kind: str) -> dict[str, str]:
    """What a child sees of the environment: nothing that is not needed, as it may hold credentials."""
    kept = {"PATH", "LD_LIBRARY_PATH"}
    if kind == "postgres":  # libpq's variables, and the folder of its password file
        kept |= {"HOME", "USER"} | {name for name in os.environ if name.startswith("PG")}
    return {name: value for name, value in os.environ.items() if name in kept}


# -- golds whose result is not a function of the database ------------------------------------------------------------

_SKIPPED = re.compile(r"--[^\n]*|/\*.*?(?:\*/|\Z)|\"(?:[^\"]|\"\")*(?:\"|\Z)|`[^`]*`|\[[A-Za-z_ ]*\]", re.DOTALL)
_STRING = re.compile(r"'(?:[^']|'')*(?:'|\Z)")
_WORDS = re.compile(
    r"(?<![\w.$])(current_date|current_time|current_timestamp|localtime|localtimestamp)(?![\w.$(]|\s*\.)", re.IGNORECASE
)
_CALLS = re.compile(
    r"(?<![\w.$])(random|randomblob|now|clock_timestamp|statement_timestamp|transaction_timestamp|timeofday|setseed|"
    r"gen_random_uuid|uuid_generate_v[14]|random_normal|txid_current|pg_current_xact_id|pg_backend_pid|nextval|"
    r"last_insert_rowid|changes|total_changes|localtime|localtimestamp|current_time|current_timestamp)\s*\(",
    re.IGNORECASE,
)
_DATE_CALL = re.compile(r"(?<![\w.$])(date|time|datetime|julianday|unixepoch|strftime|timediff)\s*\(", re.IGNORECASE)
_WITHOUT_TIME = re.compile(
    r"(?<![\w.$])((?:date|time|datetime|julianday|unixepoch)\s*\(\s*\)|strftime\s*\(\s*''\s*\))", re.IGNORECASE
)
_RELATIVE = re.compile(r"'\s*(now|today|tomorrow|yesterday)\s*'", re.IGNORECASE)
_CAST = re.compile(r"::\s*(date|time)|(?<![\w.$])(date|timestamp|timestamptz|time|cast)\b", re.IGNORECASE)


def deterministic(sql: str) -> str | None:
    """None if the result depends on the database alone; otherwise the function that it depends on, as in "random()",
    "CURRENT_DATE" or "date('now')". Such a statement cannot be a gold: its result changes from run to run."""
    text = _SKIPPED.sub(" ", sql)
    bare = _STRING.sub("''", text)
    if call := _CALLS.search(bare):
        return f"{call[1].lower()}()"
    if word := _WORDS.search(bare):
        return word[1].upper()
    if "tablesample" in bare.lower():
        return "TABLESAMPLE"
    if absent := _WITHOUT_TIME.search(bare):
        return f"{absent[1].split('(')[0].strip().lower()}()"
    if relative := _RELATIVE.search(text):
        if call := _DATE_CALL.search(bare):
            return f"{call[1].lower()}('{relative[1].lower()}')"
        if _CAST.search(bare):
            return f"'{relative[1].lower()}'"
    return None
