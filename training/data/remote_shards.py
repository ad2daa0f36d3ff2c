"""Shards in an object store: their tables are on this host, and of their contents at most so many bytes as the disk
has room for.

    cache/KIND/NAME.shard.remote   where the shard is, its size and SHA-256 (JSON)
    cache/KIND/NAME.shard.table    its last bytes: table and footer
    cache/fetched/SHA256           shards that are here now
    cache/fetched.json             the limit of that folder, and the address that the shards come from

All processes of a host share the folder. A shard is fetched completely, compared with its SHA-256 and renamed, under a
lock; the one that was not used for the longest time makes room for it. A record is read from the file and not mapped,
so the disk space of a shard that was removed is free at once.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import numpy as np

from training.data.files import disk_errors, write_atomic
from training.data.objects.address import Address
from training.data.shard_file import Searched, table_of
from training.errors import HostError
from training.parent import as_parent

REMOTE, TABLE = ".remote", ".table"  # after the name of a shard
FETCHED, SETTINGS = "fetched", "fetched.json"
TEMPORARY = ".fetching-"
LOOK = 0.05  # seconds between two looks at another process: a sleep this short shows that a data loader worker lives


def key_of_content(sha256: str) -> str:
    """The name of a content in the object store."""
    return f"contents/{sha256}"


def put_remote(path: Path, tail: bytes, *, size: int, sha256: str, mtime_ns: int) -> None:
    """Note that the shard `path` (KIND/NAME.shard) is in the object store that cache/fetched.json names. `tail`: its
    table and footer. Raises ValueError if they are damaged."""
    table_of(np.frombuffer(tail, np.uint8), size)
    write_atomic(path.with_name(path.name + TABLE), tail)
    about = {"size": size, "sha256": sha256, "mtime_ns": mtime_ns}
    write_atomic(path.with_name(path.name + REMOTE), json.dumps(about).encode() + b"\n")


def signature_of(path: Path) -> tuple[int, int]:
    """Size and modification time (ns) of a shard, wherever it is. Raises OSError if there is none."""
    try:
        about = path.stat()
    except FileNotFoundError:
        there = json.loads(path.with_name(path.name + REMOTE).read_bytes())
        return there["size"], there["mtime_ns"]
    return about.st_size, about.st_mtime_ns


class RemoteShard(Searched):
    """A shard in an object store. Raises ValueError if its table here is damaged."""

    def __init__(self, path: Path):
        self.path = path
        about = json.loads(path.with_name(path.name + REMOTE).read_bytes())
        self.size, self.sha256 = int(about["size"]), str(about["sha256"])
        self.table = table_of(np.fromfile(path.with_name(path.name + TABLE), np.uint8), self.size)
        self.heads = np.ascontiguousarray(self.table["head"])
        self._fetched = FetchedShards.below(path.parent.parent)

    def read(self, begin: int, end: int) -> np.ndarray:
        """See Searched. The shard is fetched if it is not here. Raises HostError."""
        return self._fetched.read(self.sha256, self.size, begin, end)


class FetchedShards:
    """The shards that are on this host, in `folder`: at most `limit` bytes of those below `address`."""

    def __init__(self, folder: Path, address: Address, limit: int):
        self.folder, self.address, self.limit = folder, address, limit

    @staticmethod
    def below(cache_folder: Path) -> FetchedShards:
        """This process's object for the stores in `cache_folder`. Raises HostError if no shards were fetched there."""
        return _fetched_below(str(cache_folder))

    @classmethod
    def limited(cls, cache_folder: Path, address: Address, limit: int) -> FetchedShards:
        """Set the address and the limit from now on."""
        content = json.dumps({"from": str(address), "limit": limit}).encode() + b"\n"
        write_atomic(cache_folder / SETTINGS, content)
        _fetched_below.cache_clear()
        return cls.below(cache_folder)

    def read(self, sha256: str, size: int, begin: int, end: int) -> np.ndarray:
        """Bytes of a shard, uint8. Raises HostError where it cannot be fetched."""
        with suppress(FileNotFoundError):
            return self._read(sha256, begin, end)
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                with suppress(FileNotFoundError):  # another process has fetched it meanwhile
                    return self._read(sha256, begin, end)
                self._make_room(size)
                self._fetch(sha256, size)
                return self._read(sha256, begin, end)  # under the lock: nothing can take its place yet

    def _read(self, sha256: str, begin: int, end: int) -> np.ndarray:
        with (self.folder / sha256).open("rb", buffering=0) as file:
            os.utime(file.fileno())  # used now: see _make_room
            content = os.pread(file.fileno(), end - begin, begin)
        if len(content) != end - begin:
            raise HostError(f"{self.folder / sha256} was cut short. Delete it: it is fetched again.")
        return np.frombuffer(content, np.uint8)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The lock of the folder. A process that is killed releases it."""
        with (self.folder / ".lock").open("ab") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(LOOK)
            yield

    def _make_room(self, size: int) -> None:
        for left in self.folder.glob(f"{TEMPORARY}*"):  # of a process that was killed, as this one has the lock
            left.unlink(missing_ok=True)
        held = sorted((about.st_mtime_ns, about.st_size, path) for path in self._here() for about in [path.stat()])
        total = sum(bytes_ for _, bytes_, _ in held)
        for _, bytes_, path in held:
            if total + size <= self.limit:
                break
            path.unlink()
            total -= bytes_
        if size > self.limit:
            raise HostError(f"A shard has {size:,} bytes, and {self.folder} may hold {self.limit:,}: --shards-gb.")

    def _here(self) -> list[Path]:
        return [path for path in self.folder.iterdir() if not path.name.startswith(".")]

    def _fetch(self, sha256: str, size: int) -> None:
        """In a separate process, started afresh: the client of object stores has threads, which do not exist in the
        forked data loader workers that call this. It has its own group, so that a Ctrl-C does not end it."""
        temporary = self.folder / f"{TEMPORARY}{os.urandom(6).hex()}"
        words = ["-m", "training.data.objects.download", str(self.address), key_of_content(sha256), str(temporary),
                 str(size), sha256]  # fmt: skip
        child = subprocess.Popen(
            [sys.executable, *words], env=os.environ | as_parent(), stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE, start_new_session=True, text=True,
        )  # fmt: skip
        try:
            while child.poll() is None:
                time.sleep(LOOK)
            reason = child.stderr.read().strip() if child.stderr else ""
            if child.returncode:
                raise HostError(f"A shard could not be fetched: {reason or f'exit code {child.returncode}'}")
            temporary.replace(self.folder / sha256)
        finally:
            if child.poll() is None:  # this process is being stopped
                child.kill()
                child.wait()
            if child.stderr:
                child.stderr.close()
            temporary.unlink(missing_ok=True)


@cache
def _fetched_below(cache_folder: str) -> FetchedShards:
    path = Path(cache_folder) / SETTINGS
    try:
        about = json.loads(path.read_bytes())
        return FetchedShards(Path(cache_folder) / FETCHED, Address.parse(about["from"]), int(about["limit"]))
    except OSError as error:
        raise HostError(
            f"{path} cannot be read ({os.strerror(error.errno or errno.EIO)}), and the data is in an object store. "
            "Run `python -m training fetch-shards URL` again."
        ) from error
