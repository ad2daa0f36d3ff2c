"""The files of one root: their digests, which of them could be decoded, and the keys of their records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from training.data.digests import Digests, Ledger
from training.data.encode import Encoder, Quarantined, encode
from training.data.files import Found, printable
from training.data.rows import Files, Layout, Texts
from training.data.sandbox import start_server
from training.data.store import Store


@dataclass(frozen=True)
class Shard:
    """One host's share of the decoding. The SHA-256 of a content alone decides which share it belongs to."""

    number: int  # from 1
    of: int  # how many shares there are

    @property
    def name(self) -> str:
        return f"{self.number}-of-{self.of}"

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def has(self, content: bytes) -> bool:
        """Whether the content with this SHA-256 belongs to this share."""
        return int.from_bytes(content[:8], "big") % self.of == self.number - 1


@dataclass
class Media:
    """Files of one kind, identified by their `number`."""

    every: Sequence[Found]  # all files that the scan found; a file's number is its index here
    cache: Path
    workers: int | None
    say: Callable[[str], None]
    share: Shard | None = None  # the share that this host decodes; None: all files
    files: list[Found] = field(default_factory=list)  # those that have a digest; their `content` is set
    digests: Digests = field(default_factory=lambda: Digests.empty(0))
    decoded: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)  # kind -> keys [n, 32], good [n]

    def read(self, ledger: Ledger) -> list[Quarantined]:
        """Compute the digest of every file; returns those that cannot be read."""
        # files that must be read are new and will be decoded, so the workers' server is started at the same time
        self.digests = ledger.of(_Places(self.every), reading=start_server)
        bad = self.digests.refused
        self.files = [file for file in self.every if file.number not in bad]
        for file in self.files:
            file.content = self.digests.sha256[file.number].tobytes()
        return [Quarantined(printable(self.every[number].place), "content", why) for number, why in bad.items()]

    def decode(self, files: Sequence[Found], encoder: Encoder) -> list[Quarantined]:
        """Decode these files into the store (only those of this host's share); returns those that cannot be decoded."""
        files = [file for file in files if self.share is None or self.share.has(file.content)]
        numbers = np.unique(np.fromiter((file.number for file in files), np.int64, len(files)))
        places = _Places([self.every[number] for number in numbers.tolist()])
        done = encode(
            places,
            encoder,
            self.cache,
            self.workers,
            self.say,
            digests=self.digests.take(numbers),
            part=self.share.name if self.share else "",
        )
        keys, good = np.zeros((len(self.every), 32), np.uint8), np.zeros(len(self.every), bool)
        keys[numbers], good[numbers] = done.keys, True
        good[numbers[list(done.refused)]] = False
        self.decoded[encoder.kind] = keys, good
        return [Quarantined(printable(places[index]), encoder.kind, why) for index, why in sorted(done.refused.items())]

    def has(self, file: Found, encoder: Encoder) -> bool:
        return bool(self.decoded[encoder.kind][1][file.number])

    def keys(self, files: Sequence[Found], encoder: Encoder) -> np.ndarray:
        """The record keys of files that could be decoded, uint8 [n, 32]."""
        return self.decoded[encoder.kind][0][_numbers(files)]

    def columns(self, files: Sequence[Found], encoder: Encoder) -> Files:
        """These files as a column of a manifest."""
        numbers, keys = _numbers(files), self.keys(files, encoder)
        return Files(
            Texts.of(_Places(files)),
            self.digests.signature[numbers],
            self.digests.settled[numbers],
            encoder.kind,
            keys,
            Layout.of(Store.at(self.cache / encoder.kind), keys),
        )


def _numbers(files: Sequence[Found]) -> np.ndarray:
    return np.fromiter((file.number for file in files), np.int64, len(files))


class _Places(Sequence[str]):
    """The paths of files, each computed on access."""

    def __init__(self, files: Sequence[Found]):
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> str:
        return self.files[index].place
