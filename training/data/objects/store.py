"""One place in an object store, through obstore: read, write under a condition, list, delete. Every error is an OSError
whose text names the cause and the remedy.

A write may have the condition that the object does not exist yet, or still is the version that was read
(If-None-Match, If-Match; on GCS, the generation). The store checks it while it writes, so of two hosts one
succeeds. Some S3-compatible stores ignore conditions; `check_conditions` finds out.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from training.data.objects.address import Address
from training.data.objects.refusals import endpoint, explained
from training.errors import HostError

SINGLE = 64 << 20  # bytes up to which a file is written in one request; a killed upload in several leaves parts behind
PIECE = 16 << 20  # bytes of one of several requests
CONNECT, REQUEST = "10s", "180s"  # time limits; a request of SINGLE bytes takes 180 s at 0.4 MB/s
RETRIES, RETRYING = 3, timedelta(seconds=60)  # of one request, before its error is reported


class StoreError(OSError):
    """An object store could not do what was required."""


class Conflict(StoreError):
    """The condition of a write does not hold: another process has written the object."""


@dataclass(frozen=True)
class Version:
    """A version of an object, as a condition for the write that replaces it."""

    etag: str | None
    generation: str | None  # GCS

    def plain(self) -> dict[str, Any]:
        """For obstore."""
        both = {"e_tag": self.etag, "version": self.generation}
        return {name: value for name, value in both.items() if value is not None}


ABSENT = Version(None, None)  # the condition that the object does not exist


@dataclass(frozen=True)
class Stored:
    """An object in the store, without its content."""

    key: str
    size: int
    modified: datetime  # by the store's clock
    version: Version


class ObjectStore:
    """Objects below `address`; keys are relative to it. Raises HostError if obstore is not installed."""

    def __init__(self, address: Address):
        self.address = address
        self.conditional = True  # whether the store checks conditions: see check_conditions
        self._obstore, self._store = _opened(address)

    def get(self, key: str) -> tuple[bytes, Version] | None:
        """The content of an object and its version; None if there is none."""
        with self._errors("read"):
            try:
                found = self._obstore.get(self._store, key)
                return bytes(found.bytes()), _version(found.meta)
            except FileNotFoundError as error:
                self._require_bucket(error)
                return None

    def stream(self, key: str, begin: int = 0, version: Version | None = None) -> Iterator[bytes]:
        """The content of an object from byte `begin` on, in pieces. Raises FileNotFoundError if there is none, Conflict
        if it is not `version`."""
        options: dict[str, Any] = {"range": {"offset": begin}} if begin else {}
        if version is not None and version.etag:
            options["if_match"] = version.etag
        with self._errors("read"):
            try:
                yield from map(bytes, self._obstore.get(self._store, key, options=options).stream(1 << 20))
            except FileNotFoundError as error:
                self._require_bucket(error)
                raise FileNotFoundError(errno.ENOENT, "is missing", f"{self.address}/{key}") from None

    def head(self, key: str) -> Stored | None:
        """An object without its content; None if there is none."""
        with self._errors("read"):
            try:
                return _stored(self._obstore.head(self._store, key))
            except FileNotFoundError:
                return None

    def put(self, key: str, content: bytes, condition: Version | None = None) -> Version:
        """Write an object in one request. With a `condition`: only if it does not exist (ABSENT), or is that version;
        raises Conflict otherwise."""
        if condition is not None and not self.conditional:
            return self._put_after_look(key, content, condition)
        mode: Any = "overwrite" if condition is None else "create" if condition == ABSENT else condition.plain()
        kinds = self._obstore.exceptions
        with self._errors("write"):
            try:
                return _version(self._obstore.put(self._store, key, content, mode=mode, use_multipart=False))
            except (kinds.AlreadyExistsError, kinds.PreconditionError):
                return self._if_ours(key, content)
            except FileNotFoundError as error:  # the version to be replaced does not exist any more, or the bucket
                self._require_bucket(error)
                return self._if_ours(key, content)

    def put_file(self, key: str, path: Path, beat: Callable[[], None]) -> Version:
        """Write a file, in several requests if it is large. `beat` is called while it is read."""

        def pieces() -> Iterator[bytes]:
            with path.open("rb") as file:
                while piece := file.read(PIECE):
                    yield piece
                    beat()

        if path.stat().st_size <= SINGLE:
            return self.put(key, path.read_bytes())
        with self._errors("write"):
            return _version(
                self._obstore.put(self._store, key, pieces(), use_multipart=True, chunk_size=PIECE, max_concurrency=2)
            )

    def delete(self, keys: list[str]) -> None:
        """Delete objects; it is no error if they do not exist."""
        with self._errors("delete"):
            for key in keys:
                try:
                    self._obstore.delete(self._store, key)
                except FileNotFoundError:  # GCS reports it
                    continue

    def list(self, below: str = "") -> Iterator[Stored]:
        """The objects whose key begins with `below`/ (all, if empty), unordered. Some stores list new objects late."""
        with self._errors("list"):
            for batch in self._obstore.list(self._store, below or None):
                yield from map(_stored, batch)

    def check_conditions(self) -> bool:
        """Find out whether the store checks conditions, by creating an object twice; returns it, and remembers it in
        `conditional`. Raises StoreError where nothing can be written."""
        key = f".athanor-probe-{os.urandom(6).hex()}"
        kinds = self._obstore.exceptions
        self.put(key, b"Athanor: can this place be written?\n")
        self.conditional = True
        try:
            for condition in ("create", {"e_tag": '"0123456789abcdef0123456789abcdef"', "version": "1"}):
                try:
                    self._obstore.put(
                        self._store, key, os.urandom(8).hex().encode(), mode=condition, use_multipart=False
                    )
                    self.conditional = False
                except (kinds.AlreadyExistsError, kinds.PreconditionError):
                    continue
                except (kinds.NotSupportedError, NotImplementedError):
                    self.conditional = False
                except kinds.BaseError as error:
                    if not any(sign in str(error) for sign in ("NotImplemented", "status code: 501")):
                        raise StoreError(errno.EIO, explained(error, self.address, "write")) from error
                    self.conditional = False
        finally:
            self.delete([key])
        return self.conditional

    def _put_after_look(self, key: str, content: bytes, condition: Version) -> Version:
        """For stores that ignore conditions: look, then write. Of two hosts that do so at once, both may succeed."""
        there = self.head(key)
        if (there is None) != (condition == ABSENT) or (there is not None and there.version != condition):
            raise self._conflict(key)
        return self.put(key, content)

    def _if_ours(self, key: str, content: bytes) -> Version:
        """After a condition that did not hold: the version, if the object is what was to be written (the store wrote
        it, its answer was lost, and the request was repeated); raises Conflict if it is not."""
        there = self.get(key)
        if there is None or there[0] != content:
            raise self._conflict(key)
        return there[1]

    def _conflict(self, key: str) -> Conflict:
        return Conflict(errno.EBUSY, f"another host has written {self.address}/{key} meanwhile")

    def _require_bucket(self, error: Exception) -> None:
        """An object that is missing is no error; a bucket that is missing is."""
        text = explained(error, self.address, "read")
        if text.startswith("there is no "):
            raise StoreError(errno.ENOENT, text) from error

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        kinds = self._obstore.exceptions
        try:
            yield
        except StoreError:
            raise
        except kinds.PreconditionError as error:
            raise Conflict(errno.EBUSY, "the object was replaced while it was read") from error
        except kinds.BaseError as error:
            raise StoreError(errno.EIO, explained(error, self.address, doing)) from error
        except FileNotFoundError as error:
            if error.errno is not None:  # of this module, or of a local file
                raise
            raise StoreError(errno.ENOENT, explained(error, self.address, doing)) from error


def digest_of_store(content: bytes) -> str:
    """The etag that S3 and what speaks its protocol give an object written in one request: its MD5, in quotes. (With
    some kinds of encryption they give another one, and Google and Azure always do.)"""
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


def _opened(address: Address) -> tuple[Any, Any]:
    try:
        import obstore
        import obstore.exceptions
        from obstore.store import AzureStore, GCSStore, S3Store
    except ImportError:
        raise HostError(
            f"{address} needs the package obstore, which is not installed. Install it: scripts/setup_env.sh clouds"
        ) from None
    client: dict[str, Any] = {"connect_timeout": CONNECT, "timeout": REQUEST}
    if endpoint(address).startswith("http://"):
        client["allow_http"] = True
    retry: Any = {"max_retries": RETRIES, "retry_timeout": RETRYING}
    kind: Any = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}[address.scheme]
    try:
        store = kind(address.bucket, prefix=address.prefix or None, client_options=client, retry_config=retry)
    except (obstore.exceptions.BaseError, ValueError, OSError) as error:
        raise HostError(f"{address}: {explained(error, address, 'open')}") from error
    return obstore, store


def _version(about: Any) -> Version:
    etag = about["e_tag"]
    if etag and '"' not in etag:  # Azure's lists give it without the quotes that a condition needs
        etag = f'"{etag}"'
    return Version(etag, about["version"])


def _stored(about: Any) -> Stored:
    return Stored(about["path"], about["size"], about["last_modified"], _version(about))
