"""`fetch`: downloads what is below an address in an object store to a folder. Sizes are compared with the room on the
disk first; an interrupted download continues with the byte at which it stopped."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from training.data.files import disk_errors, printable
from training.data.objects.address import Address
from training.data.objects.store import Conflict, ObjectStore, Stored, StoreError
from training.errors import DataError, HostError
from training.units import counted, size

RECORD = ".athanor-fetch.json"  # in the folder: what was fetched, and its versions
ATTEMPTS = 5  # at one file, without progress
PAUSE = 5.0  # seconds before the next one
WRITE = 5.0  # seconds between two writes of the record
REPORT = 30.0  # seconds between two lines of progress
MARGIN = 64 << 20  # bytes that are left free


@dataclass(frozen=True)
class Plan:
    """What there is to do."""

    missing: list[Stored]
    here: int  # files that were fetched before
    kept: int  # files that were here before, with the size of the object


def fetch(address: Address, folder: Path, say: Callable[[str], None] = print) -> None:
    """Download all objects below `address`, or the one of that name, to `folder`.

    Files that this command did not write are not replaced. Raises DataError (nothing there, names that are no file
    names, a file of another size is in the way), HostError (no room, the store fails), each with everything complete
    kept: the same command continues.
    """
    with disk_errors(folder), _store_errors(address, folder):
        address, found = _listed(address)
        _require_names(address, found)
        folder.mkdir(parents=True, exist_ok=True)
        record = _Record(folder, address, say)
        plan = _plan(folder, found, record)
        _require_room(address, folder, plan, found, say)
        try:
            _download(ObjectStore(address), folder, plan.missing, record, say)
        finally:
            record.write()
    say(f"{address} is complete in {folder}: {counted(len(found), 'file')}, {size(sum(one.size for one in found))}.")


@contextmanager
def _store_errors(address: Address, folder: Path) -> Iterator[None]:
    """Errors of the store as HostError."""
    try:
        yield
    except StoreError as error:
        raise HostError(
            f"{address}: {error.strerror or error} What is complete in {folder} is kept: the same command continues."
        ) from error


def _listed(address: Address) -> tuple[Address, list[Stored]]:
    """The objects below `address`, and the address that their keys are relative to. If `address` is an object itself,
    that one."""
    found = sorted((o for o in ObjectStore(address).list() if o.size or not o.key.endswith("/")), key=lambda o: o.key)
    if not found and address.prefix:
        above, _, name = address.prefix.rpartition("/")
        one = ObjectStore(replace(address, prefix=above)).head(name)
        if one is not None:
            return replace(address, prefix=above), [one]
    if not found:
        raise DataError(f"There is nothing below {address}. Check the name (upper and lower case differ).")
    return address, found


def _require_names(address: Address, found: list[Stored]) -> None:
    """Raise DataError for keys that cannot be the names of files in one folder."""
    names = {one.key for one in found}
    for one in found:
        path = PurePosixPath(one.key)
        odd = path.is_absolute() or str(path) != one.key or ".." in path.parts or "\\" in one.key or "\0" in one.key
        if odd or any(part.startswith(".athanor-fetch") for part in path.parts):
            raise DataError(f"{address}: {printable(one.key)} cannot be the name of a file here. Rename the object.")
        above = next((str(parent) for parent in path.parents if str(parent) in names), None)
        if above:
            raise DataError(f"{address}: {printable(above)} is an object and also a folder of objects. Rename it.")


class _Record:
    """What this command has fetched to `folder`: name -> etag and size."""

    def __init__(self, folder: Path, address: Address, say: Callable[[str], None]):
        self.path, self.address = folder / RECORD, address
        self.files: dict[str, list[object]] = {}
        self._written = time.monotonic()
        if not self.path.exists():
            return  # nothing is known of what is here: see _plan
        try:
            held = json.loads(self.path.read_text(encoding="utf-8"))
            if held["from"] == str(address):
                self.files = dict(held["files"])
        except (ValueError, KeyError, TypeError) as error:
            say(f"{printable(self.path)} is damaged ({error!r}), so nothing is known of the files that are here.")

    def has(self, one: Stored) -> bool:
        """Whether this version was fetched."""
        return self.files.get(one.key) == [one.version.etag, one.size]

    def add(self, one: Stored) -> None:
        """Note that this version is complete."""
        self.files[one.key] = [one.version.etag, one.size]
        if time.monotonic() - self._written > WRITE:
            self.write()

    def write(self) -> None:
        """Write the record. If that is prevented by a kill, files since the last time count as here before."""
        self._written = time.monotonic()
        temporary = self.path.with_name(f"{RECORD}.new")
        temporary.write_text(json.dumps({"from": str(self.address), "files": self.files}), encoding="utf-8")
        temporary.replace(self.path)


def _plan(folder: Path, found: list[Stored], record: _Record) -> Plan:
    missing, here, kept, blocked = [], 0, 0, []
    for one in found:
        path = folder / one.key
        if not os.path.lexists(path):
            missing.append(one)
        elif path.is_file() and path.stat().st_size == one.size and record.has(one):
            here += 1
        elif one.key in record.files and path.is_file():  # the object was replaced since, or the file was cut short
            missing.append(one)
        elif path.is_file() and path.stat().st_size == one.size:
            kept += 1
        else:
            blocked.append(printable(path))
    if blocked:
        raise DataError(
            f"{counted(len(blocked), 'file')} in {folder} would be replaced: {', '.join(blocked[:3])}"
            f"{' ...' if len(blocked) > 3 else ''}. Move them away, or name another folder."
        )
    return Plan(missing, here, kept)


def _require_room(address: Address, folder: Path, plan: Plan, found: list[Stored], say: Callable[[str], None]) -> None:
    total, need = sum(one.size for one in found), sum(one.size for one in plan.missing)
    begun = sum(path.stat().st_size for one in plan.missing if (path := _partial(folder, one)).is_file())
    free = shutil.disk_usage(folder).free
    say(
        f"{address}: {counted(len(found), 'file')}, {size(total)}. To fetch: {counted(len(plan.missing), 'file')}, "
        f"{size(need - begun)}; {size(free)} free in {folder}."
    )
    if plan.kept:
        say(f"{counted(plan.kept, 'file')} of the same size were here before; they are kept as they are.")
    if need - begun + MARGIN > free:
        raise HostError(
            f"{folder} has not enough room: {size(need - begun)} are to be fetched, and {size(free)} are free. Make "
            "room, or name a folder on another disk."
        )


def _download(
    store: ObjectStore, folder: Path, missing: list[Stored], record: _Record, say: Callable[[str], None]
) -> None:
    reported, done = time.monotonic(), 0
    for number, one in enumerate(missing, 1):
        for count in _pieces(store, folder, one):
            done += count
            if time.monotonic() - reported > REPORT:
                reported = time.monotonic()
                say(f"  {number} of {len(missing)}, {size(done)} so far: {printable(one.key)}")
        record.add(one)


def _pieces(store: ObjectStore, folder: Path, one: Stored) -> Iterator[int]:
    """Fetch one object, from where an earlier attempt stopped; yields the number of bytes after each piece."""
    target, partial = folder / one.key, _partial(folder, one)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial.touch()
    failures = 0
    while (begin := partial.stat().st_size) < one.size:
        try:
            with partial.open("ab") as file:
                for piece in store.stream(one.key, begin, one.version):
                    file.write(piece)
                    failures = 0
                    yield len(piece)
        except (Conflict, FileNotFoundError) as error:
            partial.unlink()
            raise DataError(
                f"{store.address}/{printable(one.key)} was replaced or deleted while it was fetched. Run the same "
                "command again."
            ) from error
        except StoreError:
            failures += 1
            if failures == ATTEMPTS:
                raise
            time.sleep(PAUSE)
    if partial.stat().st_size != one.size:
        partial.unlink()
        raise StoreError(errno.EIO, f"the store sent more of {printable(one.key)} than its size.")
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(target)


def _partial(folder: Path, one: Stored) -> Path:
    """The file of an unfinished download: another one for each version of the object."""
    version = hashlib.sha256(f"{one.key} {one.version.etag} {one.version.generation} {one.size}".encode()).hexdigest()
    return (folder / one.key).parent / f".athanor-fetch-{version[:24]}"
