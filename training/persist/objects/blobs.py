"""Contents as objects whose names are their SHA-256: written once, verified, read back."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from training.data.files import sync
from training.data.objects.store import ObjectStore, digest_of_store
from training.persist.copying import TEMPORARY, Changed, Pulse
from training.persist.objects.catalog import Part

#: Bytes of one part. Each is one request, so a killed upload leaves no half of an upload in several requests, which
#: would be invisible and cost money; and an upload that was cut short continues with the next part.
PART = 32 << 20


def upload(
    path: Path, store: ObjectStore, key: Callable[[str], str], known: Mapping[str, Part], pulse: Pulse,
    expected: str | None = None,
) -> tuple[str, list[Part]]:  # fmt: skip
    """Write the parts of the file `path` that are not `known`; returns its SHA-256 and all of its parts.

    `key`: SHA-256 of a part -> its key. A file that grows meanwhile is written up to its length at the beginning.
    Raises Changed if it is not `expected`, or is missing; OSError.
    """
    try:
        reading = path.open("rb")
    except FileNotFoundError as error:
        raise Changed(errno.ENOENT, "is missing", str(path)) from error
    total, parts = hashlib.sha256(), []
    with reading:
        left = os.fstat(reading.fileno()).st_size
        while left > 0 and (content := reading.read(min(PART, left))):
            left -= len(content)
            total.update(content)
            digest = hashlib.sha256(content).hexdigest()
            parts.append(known.get(digest) or Part(digest, len(content), write(store, key(digest), content)))
            pulse.beat()
    if expected is not None and total.hexdigest() != expected:
        raise Changed(errno.EIO, "does not match its SHA-256", str(path))
    return total.hexdigest(), parts


def write(store: ObjectStore, key: str, content: bytes) -> str | None:
    """Write an object in one request, and verify it: the etag must be the content's MD5, as computed by the store;
    where the store's etags are something else, the object is read back. Returns its etag. Raises OSError."""
    version = store.put(key, content)
    if version.etag != digest_of_store(content):
        there = store.get(key)
        if there is None or there[0] != content:
            raise OSError(errno.EIO, "what was read back is not what was written", f"{store.address}/{key}")
    return version.etag


def download(store: ObjectStore, keys: Sequence[str], target: Path, pulse: Pulse, expected: str) -> None:
    """Write the contents of the objects `keys`, one after the other, to the file `target`, completely or not at all.
    Raises Changed if one is missing, or all together are not `expected`; OSError."""
    temporary = target.with_name(f"{TEMPORARY}{os.urandom(6).hex()}")
    hashed = hashlib.sha256()
    try:
        with temporary.open("wb") as file:
            for key in keys:
                try:
                    for piece in store.stream(key):
                        hashed.update(piece)
                        file.write(piece)
                        pulse.beat()
                except FileNotFoundError as error:
                    raise Changed(errno.ENOENT, "is missing", f"{store.address}/{key}") from error
            file.flush()
            os.fsync(file.fileno())
        if hashed.hexdigest() != expected:
            raise Changed(errno.EIO, "does not match its SHA-256", f"{store.address}/{' + '.join(keys)}")
        temporary.replace(target)
        sync(target.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def intact(store: ObjectStore, key: str, part: Part) -> bool:
    """Whether an object is still the one that was verified: its size, and its etag where the store gives one."""
    there = store.head(key)
    return there is not None and there.size == part.bytes and there.version.etag == part.etag
