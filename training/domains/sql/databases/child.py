"""The locked process that executes statements; execution.py starts it as a script and talks to it by lines of JSON.

It imports the standard library alone (and psycopg for PostgreSQL), so that it starts in some 30 ms and its memory is
small. A line from the parent is {"database", "sql", "seconds"}; the answer is [columns, rows, error, seconds] in one
line, rows being null where error is not. Bytes are written as {"bytes": hex}: the parent must never unpickle what a
process sends that runs statements written by a model.

SQLite is locked at five levels. The file is opened read-only and immutable. An authorizer, which SQLite asks while it
compiles a statement, permits SELECT, reading columns of the file's own tables, recursion and listed functions. Limits
of SQLite bound the size of values, texts and programs, and its heap. Limits of the operating system bound memory,
processor time, and forbid writing files and starting processes. A progress handler stops at the time limit, and where
one step of SQLite's program takes longer than the limit, the parent kills the process.

PostgreSQL executes on its server, so the process only keeps the connection: one session a statement, in a read-only
transaction, through a cursor, which permits one SELECT only. A timer cancels from outside of the session, because a
statement can switch its session's own time limit off.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import resource
import sqlite3
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

#: A result with more rows, or with values of more than this many bytes, is "too large".
MAX_ROWS = 50_000
MAX_BYTES = 8 * 2**20
#: SQLite's limit for one value, in bytes; the length of a statement, in characters.
MAX_VALUE = 10 * 2**20
MAX_SQL = 50_000
#: Of address space beyond what the process has at its start, and of SQLite's heap.
MEGABYTES = 512
_HEAP = 256 * 2**20
_VALUE_BYTES = 16  # counted for each value beside its text, so that many small ones are bounded too
_CONNECTIONS = 8  # open SQLite files
_STEPS = 10_000  # of SQLite's program between two looks at the clock: a few tenths of a millisecond
_FETCHED = 500  # rows at a time
#: Atomic: many comments could otherwise be divided in exponentially many ways.
_FIRST_WORD = re.compile(r"(?>\s|--[^\n]*(?:\n|\Z)|/\*.*?\*/|\()*+([A-Za-z]+)", re.DOTALL)

#: Functions that a statement may call in SQLite: each is a function of its arguments, without effects. Left out are
#: random(), randomblob() and zeroblob(), load_extension(), the internals of full-text search (fts3_tokenizer() takes
#: an address), and what shows the state of the library. date('now') cannot be distinguished here.
_FUNCTIONS = """
-> ->> abs acos acosh asin asinh atan atan2 atanh avg ceil ceiling char coalesce concat concat_ws cos cosh count
cume_dist current_date current_time current_timestamp date datetime degrees dense_rank exp first_value floor format
glob group_concat hex if ifnull iif instr json json_array json_array_length json_extract json_group_array
json_group_object json_insert json_object json_patch json_quote json_remove json_replace json_set json_type
json_valid julianday lag last_value lead length like likelihood likely ln log log10 log2 lower ltrim max median min
mod nth_value ntile nullif octet_length percent_rank percentile pi pow power printf quote radians rank replace round
row_number rtrim sign sin sinh soundex sqrt strftime string_agg substr substring sum tan tanh time timediff total
trim trunc typeof unhex unicode unixepoch unlikely upper"""
FUNCTIONS = frozenset(_FUNCTIONS.split())
_MASTER = {"sqlite_master", "sqlite_schema", "json_each", "json_tree"}
_HIDDEN = re.compile(r"pragma_|sqlite_(?!master$|schema$)|dbstat|bytecode|tables_used|generate_series", re.I)


class Refused(Exception):
    """The statement is not permitted; the message says what of it."""


class TooLarge(Exception):
    """The result exceeds MAX_ROWS or MAX_BYTES."""


def check_first_word(sql: str) -> None:
    """Refuse what does not begin as a query. Both engines refuse more; this also refuses EXPLAIN and SHOW."""
    first = _FIRST_WORD.match(sql)
    if first is None or first[1].upper() not in ("SELECT", "WITH", "VALUES"):
        raise Refused("not a SELECT statement")


def bounded(fetch: Callable[[], list[tuple]]) -> list[tuple]:
    """All rows of a cursor, a part at a time. Raises TooLarge."""
    rows: list[tuple] = []
    size = 0
    while part := fetch():
        rows += part
        for row in part:
            size += _VALUE_BYTES * (1 + len(row))
            for value in row:
                if isinstance(value, (str, bytes)):
                    size += len(value)
        if len(rows) > MAX_ROWS:
            raise TooLarge(f"more than {MAX_ROWS} rows")
        if size > MAX_BYTES:
            raise TooLarge(f"more than {MAX_BYTES} bytes of values")
    return rows


class Sqlite:
    """Executes statements in SQLite files, of which a few are kept open."""

    def __init__(self) -> None:
        self._open: OrderedDict[tuple, sqlite3.Connection] = OrderedDict()
        self._deadline = 0.0
        self._denied: str | None = None
        self._tables: dict[sqlite3.Connection, frozenset[str]] = {}
        self._current: frozenset[str] = frozenset()

    def execute(self, database: str, sql: str, seconds: float) -> tuple[list[str], list[tuple]]:
        """The names of the columns, and the rows. Raises Refused, TooLarge, TimeoutError, sqlite3.Error."""
        check_first_word(sql)
        self._denied = None
        self._deadline = math.inf  # opening is not the statement's time
        connection = self._connection(database)
        self._current = self._tables[connection]
        self._deadline = time.process_time() + seconds
        try:
            cursor = connection.execute(sql)
            rows = bounded(lambda: cursor.fetchmany(_FETCHED))
        except sqlite3.Warning as error:  # Python 3.11: "You can only execute one statement at a time."
            raise Refused(f"several statements: {error}") from None
        except sqlite3.Error as error:
            if "one statement at a time" in str(error):
                raise Refused("several statements") from None
            if self._denied is not None:
                raise Refused(self._denied) from None
            if str(error).startswith("unsafe use of"):  # trusted_schema=OFF, in a view
                raise Refused(str(error)) from None
            code = getattr(error, "sqlite_errorcode", 0)
            if code == sqlite3.SQLITE_INTERRUPT:
                raise TimeoutError from None
            if code in (sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_NOMEM):
                raise TooLarge(str(error)) from None
            raise
        if time.process_time() > self._deadline:
            raise TimeoutError  # a step that took long, after which nothing looked at the clock
        if cursor.description is None:
            raise Refused("not a SELECT statement")
        return [name for name, *_ in cursor.description], rows

    def _connection(self, database: str) -> sqlite3.Connection:
        # immutable=1 has SQLite keep pages for ever: a file that was replaced must be opened again
        about = os.stat(database)  # noqa: PTH116 - called for every statement
        key = (database, about.st_ino, about.st_size, about.st_mtime_ns)
        if key in self._open:
            self._open.move_to_end(key)
            return self._open[key]
        while len(self._open) >= _CONNECTIONS:
            _, oldest = self._open.popitem(last=False)
            del self._tables[oldest]
            oldest.close()
        self._open[key] = connection = self._connect(database)
        return connection

    def _connect(self, database: str) -> sqlite3.Connection:
        connection = sqlite3.connect(f"file:{quote(database)}?mode=ro&immutable=1", uri=True, isolation_level=None)
        connection.text_factory = _text
        for pragma in (
            "trusted_schema=OFF", "cell_size_check=ON", "query_only=ON", "temp_store=MEMORY", "mmap_size=0",
            "threads=0", f"hard_heap_limit={_HEAP}", "cache_size=-16000",
        ):  # fmt: skip
            connection.execute(f"PRAGMA {pragma}").fetchall()
        names = {name.lower() for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        self._tables[connection] = frozenset(names | _MASTER)
        for limit, value in (
            (sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE),
            (sqlite3.SQLITE_LIMIT_SQL_LENGTH, 4 * MAX_SQL),
            (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
            (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 500),
            (sqlite3.SQLITE_LIMIT_COMPOUND_SELECT, 100),
            (sqlite3.SQLITE_LIMIT_VDBE_OP, 1_000_000),
            (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 500),
            (sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 0),
            (sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0),
        ):
            connection.setlimit(limit, value)
        with contextlib.suppress(sqlite3.OperationalError):  # SQLite without JSON
            # the first use of a table-valued function declares it, which the authorizer would refuse
            connection.execute("SELECT 1 FROM json_each('[]'), json_tree('[]')").fetchall()
        connection.set_progress_handler(lambda: time.process_time() > self._deadline, _STEPS)
        connection.set_authorizer(self._authorize)
        return connection

    def _authorize(self, action: int, first: str | None, second: str | None, _: Any, __: Any) -> int:
        if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE):
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_READ:
            table = (first or "").lower()
            # Without a column (`second`), as in count(*), the name may be that of a common table expression.
            if table in self._current or (not second and not _HIDDEN.match(table)):
                return sqlite3.SQLITE_OK
            self._denied = f"reading {first} is not permitted"
        elif action == sqlite3.SQLITE_FUNCTION:
            if (second or "").lower() in FUNCTIONS:
                return sqlite3.SQLITE_OK
            self._denied = f"the function {second}() is not permitted"
        elif action == sqlite3.SQLITE_UPDATE and first == "sqlite_master":  # asked when a virtual table is first read
            self._denied = "a virtual table (FTS5, R-tree, pragma_...) is not read"
        else:
            self._denied = "only SELECT is permitted"
        return sqlite3.SQLITE_DENY


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


class Postgres:
    """Executes statements on a PostgreSQL server, each in a session that ends with it."""

    def __init__(self) -> None:
        import psycopg

        self._psycopg = psycopg

    def execute(self, database: str, sql: str, seconds: float) -> tuple[list[str], list[tuple]]:
        """The names of the columns, and the rows. Raises Refused, TooLarge, TimeoutError, psycopg.Error."""
        check_first_word(sql)
        psycopg = self._psycopg
        # closing() ends the session without a commit: psycopg's own context manager would commit, and PostgreSQL before
        # version 16 permits new large objects in a read-only transaction
        with contextlib.closing(psycopg.connect(database, autocommit=True, connect_timeout=10)) as connection:
            if connection.info.parameter_status("is_superuser") == "on":
                raise Refused(
                    f"the role {connection.info.user} is a superuser, which may read and write the server's files; "
                    "connect as a role that may only SELECT"
                )
            limits = [f"statement_timeout={int(seconds * 1000)}", "cursor_tuple_fraction=1"]
            if connection.info.server_version >= 140000:
                limits.append("client_connection_check_interval='1s'")  # ends a session whose client was killed
            connection.execute("".join(f"SET {limit};" for limit in limits) + "BEGIN READ ONLY")
            timer = threading.Timer(seconds, connection.cancel)
            timer.daemon = True
            timer.start()
            try:
                return self._query(connection, sql)
            except psycopg.errors.QueryCanceled:
                raise TimeoutError from None
            except (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.InsufficientPrivilege) as error:
                raise Refused(_primary(error)) from None
            finally:
                timer.cancel()

    def _query(self, connection: Any, sql: str) -> tuple[list[str], list[tuple]]:
        # exec_params uses the extended protocol, in which the server accepts one statement only
        declared = connection.pgconn.exec_params(f"DECLARE answer NO SCROLL CURSOR FOR {sql}".encode(), [])
        if declared.status != self._psycopg.pq.ExecStatus.COMMAND_OK:
            error = self._psycopg.errors.error_from_result(declared)
            if "multiple commands" in str(error):
                raise Refused("several statements")
            if "DECLARE CURSOR" in str(error):
                raise Refused("only SELECT is permitted")
            raise error
        cursor = connection.cursor()

        def fetch() -> list[tuple]:
            cursor.execute(f"FETCH FORWARD {_FETCHED} FROM answer")
            return [tuple(_plain(value) for value in row) for row in cursor.fetchall()]

        rows = bounded(fetch)
        return [column.name for column in cursor.description], rows


def _primary(error: Any) -> str:
    return error.diag.message_primary or str(error)


def _plain(value: Any) -> Any:
    """A value of psycopg as None, bool, int, float, str or bytes: numeric as a number, the others as their text."""
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return value
    if type(value).__name__ == "Decimal":
        small = value.is_finite() and abs(value) < 2**63
        return int(value) if small and value == value.to_integral_value() else float(value)
    if isinstance(value, (dict, list)):
        return json.dumps(value, default=str, sort_keys=True, ensure_ascii=False)
    return str(value)


# -- the process -----------------------------------------------------------------------------------------------------


def lock(kind: str) -> None:
    """Set the limits of the operating system. Where the process may raise no limit, a lower one stays."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS: no program gives this process more rights
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 0, resource.RLIMIT_NOFILE: 64}
    if kind == "sqlite":  # a connection to PostgreSQL has a timer thread, which counts as a process
        limits[resource.RLIMIT_NPROC] = 0
    if sys.platform == "linux":  # macOS does not enforce RLIMIT_AS; SQLite's own limit of its heap holds there
        with open("/proc/self/statm") as stream:  # noqa: PTH123
            pages = int(stream.read().split()[0])
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + MEGABYTES * 2**20
    for limit, value in limits.items():
        _, hard = resource.getrlimit(limit)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))


def limit_processor(seconds: float) -> None:
    """Let the kernel end this process (SIGXCPU) a second of processor time after the limit: should the parent have
    ended too, no statement runs for ever."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(used.ru_utime + used.ru_stime + seconds + 1)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def answer(engine: Sqlite | Postgres, request: dict) -> tuple[list[str], list[tuple] | None, str | None, float]:
    """Execute one statement: (columns, rows or None, error or None, seconds)."""
    began = time.perf_counter()
    columns: list[str] = []
    rows, error = None, None
    try:
        columns, rows = engine.execute(request["database"], request["sql"], request["seconds"])
    except Refused as refusal:
        error = f"refused: {refusal}"
    except TooLarge as large:
        error = f"too large: {large}"
    except MemoryError:
        error = "too large: out of memory"
    except TimeoutError:
        error = f"timeout: stopped after {request['seconds']:g} s"
    except Exception as other:  # noqa: BLE001 - the engine's own message is the answer
        error = message(other)
    return columns, rows, error, time.perf_counter() - began


def message(error: Exception) -> str:
    """The engine's message in one line. SQLite's `near "x": syntax error` becomes `syntax error near "x"`."""
    diag = getattr(error, "diag", None)
    text = " ".join(((getattr(diag, "message_primary", None) if diag else None) or str(error)).split())[:500]
    if near := re.fullmatch(r'near (".*"): syntax error', text):
        return f"syntax error near {near[1]}"
    if text.startswith(("unrecognized token", "incomplete input")):
        return f"syntax error: {text}"
    if "out of memory" in text:  # libpq, when a row does not fit
        return f"too large: {text}"
    return text or type(error).__name__


def _bytes(value: Any) -> dict[str, str]:
    return {"bytes": bytes(value).hex()}


def requests() -> Iterator[dict]:
    """The parent's lines. They end when it has ended or closes the pipe."""
    for line in sys.stdin.buffer:
        yield json.loads(line)


def main(kind: str, paths: list[str]) -> None:
    """Answer requests until the pipe closes. `paths`: where psycopg is, as the process starts without site-packages."""
    sys.path += paths
    engine = Postgres() if kind == "postgres" else Sqlite()
    lock(kind)
    out = sys.stdout.buffer
    out.write(b"ready\n")
    out.flush()
    for request in requests():
        limit_processor(request["seconds"])
        try:
            line = json.dumps(answer(engine, request), ensure_ascii=False, default=_bytes)
            data = line.encode("utf-8", "surrogatepass")
        except MemoryError:
            data = b'[[], null, "too large: out of memory", 0.0]'
        out.write(data + b"\n")
        out.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
