"""Files on a disk that nobody here controls: scanning folders, naming what was refused, digests, atomic writes."""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import stat
import time
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from training.errors import HostError

#: A file changed this recently (seconds) may change again within the same tick of the file system's clock, so its
#: digest is not remembered yet.
SETTLED = 2.0
#: No recording is larger (a WAV cannot be); a sparse file that claims terabytes is not read for hours.
LARGEST = 1 << 32


@dataclass(frozen=True)
class Found:
    """A regular file under a scanned root."""

    path: Path  # absolute
    relative: str  # under the root, "/" between folders, Unicode NFC: the same on every host

    @property
    def key(self) -> str:
        """`relative` without its extension: what a song is called."""
        return self.relative[: -len(self.suffix)]

    @property
    def stem(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return Path(self.relative).suffix


@dataclass(frozen=True)
class Refused:
    """Something that cannot be used, and why."""

    path: str  # printable
    reason: str


def printable(path: str | os.PathLike[str]) -> str:
    """A path as it may safely be shown: control characters and bytes that are no UTF-8 are escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def scan(root: Path, suffixes: Iterable[str]) -> tuple[list[Found], list[Refused]]:
    """Regular files under `root` whose extension, in any case, is in `suffixes` (".wav"); sorted by relative name.

    Links to files and folders are followed; a folder is entered once, by its real place if it lies under the root, so a
    circle of links ends. Nothing is opened: a FIFO, socket or device cannot hang the scan. What has the right
    extension and cannot be used is returned as refused. Raises OSError if `root` itself cannot be listed.
    """
    wanted = {suffix.lower() for suffix in suffixes}
    root = Path(os.path.abspath(root))  # noqa: PTH100 - resolve() would rename a linked root
    found: dict[str, Found] = {}
    refused: list[Refused] = []
    os.scandir(root).close()
    seen: set[tuple[int, int]] = set()
    links: list[Path] = []
    folders = [root]
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        try:
            about = folder.stat()
            if (about.st_dev, about.st_ino) in seen:
                continue
            seen.add((about.st_dev, about.st_ino))
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            refused.append(Refused(printable(folder), f"the folder cannot be read: {error.strerror}"))
            continue
        for entry in entries:
            path = Path(entry.path)
            is_media = path.suffix.lower() in wanted
            if entry.name.startswith("."):
                if is_media:
                    refused.append(Refused(printable(path), "a hidden file"))
                continue
            try:
                mode = entry.stat().st_mode
            except OSError as error:
                if is_media:
                    refused.append(Refused(printable(path), f"cannot be reached: {error.strerror}"))
                continue
            if stat.S_ISDIR(mode):
                (links if entry.is_symlink() else folders).append(path)
            elif is_media:
                reason = _why_not(path, mode, entry.stat().st_size)
                relative = path.relative_to(root).as_posix()
                name = relative if reason else unicodedata.normalize("NFC", relative)
                if not reason and name in found:
                    reason = f"its name differs from {printable(found[name].path)} only in Unicode form"
                if reason:
                    refused.append(Refused(printable(path), reason))
                else:
                    found[name] = Found(path, name)
    return [found[name] for name in sorted(found)], sorted(refused, key=lambda item: item.path)


def _why_not(path: Path, mode: int, size: int) -> str | None:
    if not stat.S_ISREG(mode):
        return f"is a {_kind(mode)}, not a file"
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not valid UTF-8; rename it"
    if size == 0:
        return "is empty"
    if size > LARGEST:
        return too_large(size)
    return None if os.access(path, os.R_OK) else "cannot be read: permission denied"


def too_large(size: int) -> str:
    return f"is {size / 1e9:,.1f} GB large; at most {LARGEST / 1e9:.1f} GB are read"


def _kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
    return kinds.get(stat.S_IFMT(mode), "folder" if stat.S_ISDIR(mode) else "special file")


def regular_file(path: Path) -> str | None:
    """None if `path` is a regular file (links followed), else why not. Opens nothing."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        return "no such file" if isinstance(error, FileNotFoundError) else str(getattr(error, "strerror", error))
    return None if stat.S_ISREG(mode) else f"is a {_kind(mode)}, not a file"


# -- digests -------------------------------------------------------------------------------------------------------

Signature = tuple[int, int, int, int, int]


def signature(path: Path) -> Signature:
    """Device, inode, size, mtime and ctime: an edit that keeps size and mtime still moves the ctime."""
    about = path.stat()
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns


def sha256(path: Path) -> str:
    """SHA-256 of a regular file's content, in hex. Never blocks on a FIFO."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(handle, "rb", buffering=0) as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class Digest:
    """What a file held, and its signature when it was read."""

    sha256: str
    signature: Signature


class Ledger:
    """What earlier runs learnt about files: digests, and which contents no decoder finished in time.

    One SQLite file; a damaged one is set aside and begun anew, since all of it can be learnt again.
    """

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._create()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise HostError(f"{printable(path)} cannot be opened: {error}") from None
            path.unlink()
            self._create()

    def _create(self) -> None:
        with self._open() as db:
            db.execute("CREATE TABLE IF NOT EXISTS digests (path BLOB PRIMARY KEY, signature TEXT, sha256 TEXT)")
            db.execute("CREATE TABLE IF NOT EXISTS too_slow (key BLOB PRIMARY KEY, seconds REAL)")
            db.execute("SELECT count(*) FROM digests").fetchone()

    @contextmanager
    def _open(self):
        with closing(sqlite3.connect(self.path, timeout=60)) as db, db:
            yield db

    def digests(self, paths: Sequence[Path], threads: int = 4) -> dict[Path, Digest | str]:
        """Digest of every path, or why there is none. Only files whose signature is unknown are read."""
        out: dict[Path, Digest | str] = {}
        fresh: list[Path] = []
        with self._open() as db:
            for path in dict.fromkeys(paths):
                try:
                    now = signature(path)
                except OSError as error:
                    out[path] = f"cannot be reached: {error.strerror}"
                    continue
                row = db.execute(
                    "SELECT signature, sha256 FROM digests WHERE path = ?", (os.fsencode(path),)
                ).fetchone()
                if row and row[0] == repr(now):
                    out[path] = Digest(row[1], now)
                else:
                    fresh.append(path)
        if fresh:
            with ThreadPoolExecutor(min(threads, len(fresh))) as pool:  # hashlib lets go of the interpreter's lock
                out.update(zip(fresh, pool.map(_digest, fresh), strict=True))
            settled = time.time_ns() - int(SETTLED * 1e9)
            rows = [
                (os.fsencode(path), repr(d.signature), d.sha256)
                for path in fresh
                if isinstance(d := out[path], Digest) and max(d.signature[3:]) < settled
            ]
            with self._open() as db:
                db.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", rows)
        return out

    def too_slow(self, key: bytes) -> float | None:
        """The patience (`sandbox.Patience.total`) that this content exceeded in an earlier run, or None."""
        with self._open() as db:
            row = db.execute("SELECT seconds FROM too_slow WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def remember_too_slow(self, key: bytes, seconds: float) -> None:
        with self._open() as db:
            db.execute("INSERT OR REPLACE INTO too_slow VALUES (?, ?)", (key, seconds))


def _digest(path: Path) -> Digest | str:
    for _ in range(3):
        try:
            before = signature(path)
            if before[2] > LARGEST:
                return too_large(before[2])
            value = sha256(path)
            if signature(path) == before:
                return Digest(value, before)
        except OSError as error:
            return f"cannot be read: {error.strerror}"
    return "keeps changing while it is read"


# -- writing -------------------------------------------------------------------------------------------------------


@contextmanager
def disk_errors(path: Path):
    """Turn a full or read-only disk into a HostError that names the path."""
    try:
        yield
    except OSError as error:
        raise HostError(f"Cannot write {printable(path)}: {error.strerror or error}.") from None


def write_atomic(path: Path, data: bytes | Callable[[Path], None]) -> bool:
    """Put `data` (bytes, or a function that writes a given path) at `path`, whole or not at all, and durably.

    Bytes equal to what is there are not written again; returns whether anything was. Raises HostError.
    """
    with disk_errors(path):
        if isinstance(data, bytes) and regular_file(path) is None and path.read_bytes() == data:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".writing-{os.getpid()}-{os.urandom(4).hex()}"
        try:
            if isinstance(data, bytes):
                temporary.write_bytes(data)
            else:
                data(temporary)
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    return True


def sync(path: Path) -> None:
    """Force a file's content, or a folder's list of names, onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Network drives that cannot sync a folder say so by these; its names are theirs to keep.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS) or not stat.S_ISDIR(os.fstat(handle).st_mode):
            raise
    finally:
        os.close(handle)
