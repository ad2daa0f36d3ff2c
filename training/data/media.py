"""The files of one root: what they hold, which of them could be decoded, and where what was decoded lies."""

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
    """One host's share of the work: which contents it decodes follows from the contents alone."""

    number: int  # from 1
    of: int

    @property
    def name(self) -> str:
        return f"{self.number}-of-{self.of}"

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def has(self, content: bytes) -> bool:
        """`content`: SHA-256."""
        return int.from_bytes(content[:8], "big") % self.of == self.number - 1


@dataclass
class Media:
    """Files of one kind. They are identified by their `number`."""

    every: Sequence[Found]  # that the scan found; a file's number is its place here
    cache: Path
    workers: int | None
    say: Callable[[str], None]
    share: Shard | None = None  # what this host decodes; None: all
    files: list[Found] = field(default_factory=list)  # those that have a digest; with their content
    digests: Digests = field(default_factory=lambda: Digests.empty(0))
    decoded: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)  # kind -> keys [n, 32], good [n]

    def read(self, ledger: Ledger) -> list[Quarantined]:
        """Find out what every file holds; returns those for which that cannot be done."""
        self.digests = ledger.of(_Places(self.every), reading=start_server)  # what is new will be decoded
        bad = self.digests.refused
        self.files = [file for file in self.every if file.number not in bad]
        for file in self.files:
            file.content = self.digests.sha256[file.number].tobytes()
        return [Quarantined(printable(self.every[number].place), "content", why) for number, why in bad.items()]

    def decode(self, files: Sequence[Found], encoder: Encoder) -> list[Quarantined]:
        """Have these in the store, or those of them that are this host's; returns those that cannot be decoded."""
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
        """uint8 [n, 32]: of the records of files that could be decoded."""
        return self.decoded[encoder.kind][0][_numbers(files)]

    def columns(self, files: Sequence[Found], encoder: Encoder) -> Files:
        """As a manifest's column."""
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
    """Where files are, each worked out when it is asked for."""

    def __init__(self, files: Sequence[Found]):
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> str:
        return self.files[index].place
