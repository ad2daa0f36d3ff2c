"""SHA-256 digests of files, cached across runs: a file is read again only when its stat() results have changed."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path
from urllib.parse import quote

import numpy as np

from training.data import files
from training.data.files import LARGEST, Signature, printable, signature, too_large
from training.errors import HostError

#: Timestamps of a file system have a limited resolution (a "tick": up to 2 s on FAT, milliseconds on ext4). Two writes
#: within one tick leave the same mtime and ctime, so a signature that is younger than this many seconds does not prove
#: that the content is still the same. The digest of such a file is used, but not cached.
SETTLED = 2.0
_SIGNED = 1 << 14  # signatures that are held as Python numbers at a time
_IN_QUERY = 500  # paths or keys in one query
_DIGESTS = "path, signature, sha256 FROM digests WHERE path"
_READ = 2048  # files that are read between two commits to the ledger
_TOGETHER = 16  # largest number of files in one task of a thread: hashing a small file is as fast as starting a task


@dataclass(frozen=True)
class Digest:
    """A file's digest, and its signature when it was read."""

    sha256: str
    signature: Signature


@dataclass(frozen=True)
class Digests:
    """The digests of n files as columns: a million files take 73 MB."""

    sha256: np.ndarray  # uint8 [n, 32]; zeros where refused
    signature: np.ndarray  # int64 [n, 5]
    settled: np.ndarray  # bool [n]: an unchanged signature proves that the content is unchanged (see SETTLED)
    refused: dict[int, str]  # index of a file without a digest -> the reason

    @classmethod
    def empty(cls, count: int) -> Digests:
        return cls(np.zeros((count, 32), np.uint8), np.zeros((count, 5), np.int64), np.zeros(count, bool), {})

    def put(self, found: Sequence[tuple[int, str, Signature]], settled: bool) -> None:
        """Fill in the digests of some files: (index, SHA-256 in hex, signature)."""
        if found:
            index, sha256, now = (list(column) for column in zip(*found, strict=True))
            self.sha256[index] = np.frombuffer(bytes.fromhex("".join(sha256)), np.uint8).reshape(-1, 32)
            self.signature[index] = _column(now)
            self.settled[index] = settled

    def take(self, indices: np.ndarray) -> Digests:
        """The digests of some of the files; `indices` must be ascending."""
        if len(indices) == len(self.settled):
            return self
        refused = {place: self.refused[i] for place, i in enumerate(indices.tolist()) if i in self.refused}
        return Digests(self.sha256[indices], self.signature[indices], self.settled[indices], refused)

    def good(self) -> np.ndarray:
        """Indices of the files that have a digest, ascending."""
        kept = np.ones(len(self.sha256), bool)
        kept[list(self.refused)] = False
        return np.flatnonzero(kept)


def signed(now: Signature) -> Signature:
    """`now` with its inode as a signed 64-bit integer, as the columns hold it; the kernel's inode is unsigned."""
    device, inode, size, modified, changed = now
    return device, inode if inode < 1 << 63 else inode - (1 << 64), size, modified, changed


def signatures(paths: Iterable[str | bytes]) -> np.ndarray:
    """The signature of every path, int64 [n, 5]; zeros where stat() fails."""
    stat, columns = os.stat, [np.zeros((0, 5), np.int64)]
    for part in _parts(paths, _SIGNED):
        found: list[Signature] = []
        for path in part:
            try:
                about = stat(path)
            except (OSError, ValueError):
                found.append((0, 0, 0, 0, 0))
            else:
                found.append((about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns))
        columns.append(_column(found))
    return np.concatenate(columns)


def _column(found: Sequence[Signature]) -> np.ndarray:
    try:
        return np.array(found, np.int64)
    except OverflowError:
        return np.array([signed(now) for now in found], np.int64)


class Ledger:
    """A cache in one SQLite file, with three tables: digests of files by path; contents that no decoder finished in
    time, by key; and numbers that are slow to compute, by content.

    A damaged file is deleted and created again, since all of its entries can be computed again.
    """

    def __init__(self, path: Path, others: Sequence[Path] = ()):
        """`others`: ledgers of other hosts that share the same files. They are read where this one has no entry."""
        self.path, self.others = path, [other for other in others if other != path]
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
            db.execute("BEGIN IMMEDIATE")  # one transaction for all tables: every commit waits for an fsync
            db.execute("CREATE TABLE IF NOT EXISTS digests (path BLOB PRIMARY KEY, signature TEXT, sha256 TEXT)")
            db.execute("CREATE TABLE IF NOT EXISTS too_slow (key BLOB PRIMARY KEY, seconds REAL)")
            db.execute(
                "CREATE TABLE IF NOT EXISTS facts (name TEXT, key BLOB, value REAL, PRIMARY KEY (name, key)) "
                "WITHOUT ROWID"
            )
            db.execute("SELECT count(*) FROM digests").fetchone()

    @contextmanager
    def _open(self):
        with closing(sqlite3.connect(self.path, timeout=60)) as db, db:
            yield db

    # digests

    def digests(self, paths: Iterable[Path], threads: int = 4) -> dict[Path, Digest | str]:
        """The digest of every path, or the reason why it has none. Only files whose signature is unknown are read."""
        paths = list(dict.fromkeys(paths))
        found = self.of([str(path) for path in paths], threads)
        columns = zip(paths, found.sha256, found.signature.tolist(), strict=True)
        out: dict[Path, Digest | str] = {
            path: Digest(sha256.tobytes().hex(), tuple(now)) for path, sha256, now in columns
        }
        return out | {paths[index]: reason for index, reason in found.refused.items()}

    def of(self, paths: Sequence[str], threads: int = 4, reading: Callable[[], object] = lambda: None) -> Digests:
        """The same as `digests`, as columns. `reading` is called before the first file is read, if any must be."""
        out = Digests.empty(len(paths))
        fresh = self._unknown(paths, out)
        if fresh:
            reading()
            with ThreadPoolExecutor(min(threads, len(fresh))) as pool:  # hashlib releases the GIL
                several = max(1, min(_TOGETHER, len(fresh) // (4 * threads)))
                for part in _parts(fresh, _READ):
                    chunks = _parts((paths[index] for index in part), several)
                    self._read(paths, part, out, chain.from_iterable(pool.map(_digests, chunks)))
        return out

    def _unknown(self, paths: Sequence[str], out: Digests) -> list[int]:
        """Fill in the cached digests; returns the indices of the files that must be read."""
        unknown: list[int] = []
        adopted: list[tuple[bytes, str, str]] = []
        with self._open() as db, _opened(self.others) as others:
            for part in _parts(range(len(paths)), _IN_QUERY):
                waiting: dict[bytes, dict[int, Signature]] = {}
                known: list[tuple[int, str, Signature]] = []
                for index in part:
                    try:
                        now = signature(paths[index])
                    except OSError as error:
                        out.refused[index] = f"cannot be reached: {error.strerror}"
                    else:
                        waiting.setdefault(os.fsencode(paths[index]), {})[index] = now
                for path, stored, sha256 in _select(db, _DIGESTS, waiting):
                    for index, now in [*waiting[path].items()]:
                        if stored == repr(now):
                            known.append((index, sha256, waiting[path].pop(index)))
                for other in others:
                    # Each host numbers the device of a shared folder differently. The other four numbers of a
                    # signature come from the file server and are the same on all hosts, so only those are compared.
                    for path, stored, sha256 in _select(other, _DIGESTS, waiting):
                        for index, now in [*waiting[path].items()]:
                            if "(" + stored.partition(", ")[2] == repr(now[1:]):
                                known.append((index, sha256, waiting[path].pop(index)))
                                adopted.append((path, repr(now), sha256))
                out.put(known, settled=True)
                unknown += [index for several in waiting.values() for index in several]
            db.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", adopted)
        return sorted(unknown)

    def _read(self, paths: Sequence[str], fresh: Sequence[int], out: Digests, found: Iterable[Digest | str]) -> None:
        before = time.time_ns() - int(SETTLED * 1e9)
        learnt = []
        for index, digest in zip(fresh, found, strict=True):
            if isinstance(digest, str):
                out.refused[index] = digest
                continue
            settled = max(digest.signature[3:]) < before
            out.put([(index, digest.sha256, digest.signature)], settled)
            if settled:
                learnt.append((os.fsencode(paths[index]), repr(digest.signature), digest.sha256))
        with self._open() as db:
            db.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", learnt)

    # contents

    def too_slow(self, keys: Iterable[bytes]) -> dict[bytes, float]:
        """Key -> the time limit (`sandbox.TimeLimit.total`) that its decoding exceeded in an earlier run."""
        out: dict[bytes, float] = {}
        with self._open() as db, _opened(self.others) as others:
            for part in _parts(keys, _IN_QUERY):
                for source in (db, *others):
                    for key, seconds in _select(source, "key, seconds FROM too_slow WHERE key", part):
                        out[key] = max(seconds, out.get(key, 0.0))
        return out

    def remember_too_slow(self, key: bytes, seconds: float) -> None:
        with self._open() as db:
            db.execute("INSERT OR REPLACE INTO too_slow VALUES (?, ?)", (key, seconds))

    def facts(self, name: str, keys: np.ndarray, find: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """A number for every content, float64 [n]: the cached one, or else the result of `find(indices)`.

        `keys`: uint8 [n, 32]. `name` identifies the number; it must change when the computation changes.
        """
        out, new = np.empty(len(keys)), np.ones(len(keys), bool)
        # Keys are read and written in the order of the table: in any other order, nearly every one of a million keys
        # would touch another page of the database.
        ordered = np.argsort(np.ascontiguousarray(keys).view(">u8")[:, 0]) if len(keys) else np.zeros(0, np.int64)
        with self._open() as db:
            has = db.execute("SELECT 1 FROM facts WHERE name = ? LIMIT 1", (name,)).fetchone()
            for part in _parts(ordered.tolist() if has else (), _IN_QUERY):
                batch = [keys[index].tobytes() for index in part]
                known = dict(_select(db, f"key, value FROM facts WHERE name = {name!r} AND key", batch))
                for index, key in zip(part, batch, strict=True):
                    if key in known:
                        out[index], new[index] = known[key], False
            out[new] = find(np.flatnonzero(new))
            for part in _parts(ordered[new[ordered]].tolist(), _SIGNED):
                held = keys[part].tobytes()
                each = (held[at : at + keys.shape[1]] for at in range(0, len(held), keys.shape[1]))
                learnt = zip(repeat(name), each, out[part].tolist())
                db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", learnt)
        return out


def _select(db: sqlite3.Connection, what: str, keys: Iterable[bytes]) -> list[tuple]:
    keys = list(keys)
    return db.execute(f"SELECT {what} IN ({','.join('?' * len(keys))})", keys).fetchall()


def _parts(items: Iterable, size: int) -> Iterator[list]:
    items = iter(items)
    while part := list(islice(items, size)):
        yield part


@contextmanager
def _opened(paths: Sequence[Path]) -> Iterator[list[sqlite3.Connection]]:
    """Open ledgers for reading. One that is missing, damaged or locked by a writer is skipped: the files are then read
    again."""
    with ExitStack() as held:
        out = []
        for path in paths:
            with suppress(sqlite3.DatabaseError):
                db = held.enter_context(closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)))
                db.execute("SELECT count(*) FROM (SELECT path FROM digests LIMIT 1)")
                out.append(db)
        yield out


def _digests(paths: Sequence[str]) -> list[Digest | str]:
    return [_digest(path) for path in paths]


def _digest(path: str) -> Digest | str:
    for _ in range(3):
        try:
            before = signature(path)
            if before[2] > LARGEST:
                return too_large(before[2])
            value = files.sha256(path)
            if signature(path) == before:
                return Digest(value, before)
        except OSError as error:
            return f"cannot be read: {error.strerror}"
    return "keeps changing while it is read"
