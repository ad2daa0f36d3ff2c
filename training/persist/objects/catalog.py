"""The index of a run's checkpoints in an object store: `checkpoints/RUN/index.json`.

It has the fields of the index of a folder (training/engine/checkpoints/index.py), and

    "blobs":    {"<SHA-256 of a content>": [{"sha256", "bytes", "etag"}, ...]}   its parts, in order: blobs/<sha256>
    "beside":   {"runs/toy/r/log.txt": {"sha256", "mtime_ns"}, ...}              further files, as of the same save
    "previous": {"<run id>": {an index of a folder}}                             runs that were set aside
    "retired":  {"<SHA-256 of a part>": Unix time}                               when it was listed last
    "writer":   "<random>"                                                       of the process that wrote it

A part's name is the digest of its content, so no write replaces another content, and what the index lists is intact
whenever it is read. The index is replaced last, on the condition that no one else has replaced it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from training.data.objects.store import ABSENT, ObjectStore, Version
from training.engine.checkpoints.index import DIGEST, INDEX, Index
from training.errors import UsageError

PARTS = ("data/manifests", "runs", "exports")  # folders of a workspace whose files are copied beside checkpoints
LINGER = 3600.0  # seconds from when a part is not listed any more until it is deleted


@dataclass(frozen=True)
class Part:
    """An object that is a content, or a part of it."""

    sha256: str
    bytes: int
    etag: str | None  # as of the write that was verified


@dataclass
class Catalog:
    """The content of such an index."""

    listing: Index = field(default_factory=Index)
    blobs: dict[str, list[Part]] = field(default_factory=dict)
    beside: dict[str, tuple[str, int]] = field(default_factory=dict)  # relative path -> SHA-256, modification time
    previous: dict[str, Index] = field(default_factory=dict)
    retired: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, store: ObjectStore, run: str) -> tuple[Catalog, Version]:
        """The index of `run`, and its version; an empty one and ABSENT where there is none. Raises UsageError if it is
        damaged."""
        found = store.get(key_of(run))
        if found is None:
            return cls(), ABSENT
        try:
            return cls.parsed(json.loads(found[0])), found[1]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"{store.address}/{key_of(run)} cannot be read ({error}). Without it no checkpoint there can be "
                "trusted: restore an older version of this object, or delete it to start a new run."
            ) from None

    @classmethod
    def parsed(cls, value: Any) -> Catalog:
        """Raises ValueError, KeyError, TypeError, AttributeError for what is not such an index."""
        blobs = {content: [Part(**part) for part in parts] for content, parts in value["blobs"].items()}
        retired = {part: float(at) for part, at in value["retired"].items()}
        for digest in (*blobs, *retired, *(part.sha256 for parts in blobs.values() for part in parts)):
            if not DIGEST.fullmatch(digest):
                raise ValueError(f"{digest!r} is not a SHA-256")
        beside = {safe(name): (about["sha256"], int(about["mtime_ns"])) for name, about in value["beside"].items()}
        previous = {run: Index.parsed(index) for run, index in value["previous"].items()}
        catalog = cls(Index.parsed(value), blobs, beside, previous, retired)
        if missing := sorted(catalog.contents() - blobs.keys()):
            raise ValueError(f"it lists {missing[0][:16]}..., and not where that is")
        return catalog

    def serialized(self, writer: str) -> bytes:
        """As JSON."""
        blobs = {content: [part.__dict__ for part in parts] for content, parts in self.blobs.items()}
        beside = {name: {"sha256": digest, "mtime_ns": at} for name, (digest, at) in self.beside.items()}
        previous = {run: index.plain() for run, index in self.previous.items()}
        value: Mapping[str, Any] = self.listing.plain() | {
            "blobs": blobs, "beside": beside, "previous": previous, "retired": self.retired, "writer": writer,
        }  # fmt: skip
        return json.dumps(value, indent=1).encode()

    def contents(self) -> set[str]:
        """SHA-256 of every content that is listed."""
        indexes = (self.listing, *self.previous.values())
        listed = {entry.sha256 for index in indexes for entry in index.files.values()}
        listed |= {about["sha256"] for index in indexes for about in index.constants.values()}
        return listed | {digest for digest, _ in self.beside.values()}

    def parts(self) -> Iterator[Part]:
        """The parts of every content."""
        for parts in self.blobs.values():
            yield from parts

    def drop_unlisted(self) -> list[str]:
        """Leave out contents that are not listed; their parts are retired. Returns the parts that have been retired for
        LINGER seconds, to be deleted once this index is written."""
        before = {part.sha256 for part in self.parts()}
        listed = self.contents()
        self.blobs = {content: parts for content, parts in self.blobs.items() if content in listed}
        now, used = time.time(), {part.sha256 for part in self.parts()}
        self.retired = {part: at for part, at in self.retired.items() if part not in used}
        self.retired |= dict.fromkeys(before - used, now)
        old = [part for part, at in self.retired.items() if now - at > LINGER]
        for part in old:
            del self.retired[part]
        return old


def key_of(run: str) -> str:
    """The key of the index of `run`."""
    return f"checkpoints/{run}/{INDEX}"


def safe(name: str) -> str:
    """`name`, if it is the relative path of a file in one of PARTS. Raises ValueError if it is not: files are written
    under these names."""
    path = PurePosixPath(name)
    if (
        path.is_absolute()
        or ".." in path.parts
        or str(path) != name
        or not any(name.startswith(f"{p}/") for p in PARTS)
    ):
        raise ValueError(f"{name!r} is not the name of a file in {', '.join(PARTS)}")
    return name
