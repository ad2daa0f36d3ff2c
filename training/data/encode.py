"""Decode files into stored arrays: each content once, in worker processes with limits of time and memory."""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from training.data import sandbox
from training.data.digests import Digests, Ledger, signed
from training.data.files import printable, signature, write_atomic
from training.data.rows import Files, Layout, Row, Rows
from training.data.store import Record, Store, key_of, pack
from training.errors import DataError
from training.threads import share

#: A run is refused if more than this share of the files cannot be read: the fault is then in the data as a set.
TOO_MANY = 0.2
_PUBLISH_SECONDS = 30.0  # interval at which decoded records are published: a killed run loses no more work than that


@dataclass(frozen=True)
class Encoder:
    """How one kind of file becomes arrays. The store's key is the file's content and `version`."""

    kind: str  # the store's folder name under cache/: "logmel"
    version: str  # must change when the output changes: code version and parameters
    function: Callable[[Path], dict[str, np.ndarray]]  # pure, picklable (top-level or functools.partial of one)
    seconds: float = 60.0  # limit of wall-clock time for a small file
    processor: float = 4.0  # limit of processor time for a small file, in seconds
    #: Size / bytes_per_second is added to the limit of processor time, and four times that to the wall clock's.
    bytes_per_second: float = 500_000.0
    megabytes: int = 1024  # of address space beyond the worker's own
    imports: tuple[str, ...] = ()  # modules that `function` imports late: loaded once for all workers

    def time_limit(self, path: str | Path) -> sandbox.TimeLimit:
        """How long decoding the file at `path` may take on this host."""
        try:
            more = os.stat(path).st_size / self.bytes_per_second  # noqa: PTH116
        except OSError:
            more = 0.0  # the file is gone; its decoder reports that
        return sandbox.TimeLimit(self.seconds + 4 * more, self.processor + more).on_this_host()


@dataclass(frozen=True)
class Quarantined:
    """A file that is not used, and the reason."""

    path: str  # printable
    kind: str  # the encoder that refused it
    reason: str
    place: str = ""  # the manifest line that names it


def preload(*encoders: Encoder) -> None:
    """Name the encoders that a run will use, before the first is used: see `sandbox.preload`."""
    for encoder in encoders:
        sandbox.preload(encoder.function, imports=encoder.imports)


@dataclass(frozen=True)
class Encoded:
    """The results of encoding n files, as columns. The records are in the store of the encoder's kind."""

    digests: Digests
    keys: np.ndarray  # uint8 [n, 32]: of the record in the store
    refused: dict[int, str]  # index of a file without a record -> the reason


def ledger(cache: Path, part: str = "") -> Ledger:
    """The ledger of `cache`. Each `part` has a separate one, and every ledger reads the others."""
    return Ledger(cache / (f"ledger-{part}.sqlite" if part else "ledger.sqlite"), sorted(cache.glob("ledger*.sqlite")))


def encode(
    paths: Sequence[str],
    encoder: Encoder,
    cache: Path,
    workers: int | None = None,
    say: Callable[[str], None] = print,
    *,
    digests: Digests | None = None,
    part: str = "",
) -> Encoded:
    """The record of every file, or the reason why it has none. Decodes only contents that are not in the store, each
    once.

    `digests`: of the files, if they are known already. `part`: write into this part of the store (`Store.writing`).
    """
    store, known = Store.at(cache / encoder.kind), ledger(cache, part)
    if digests is None:
        preload(encoder)
        # the fork server imports the decoder's modules while this process reads the files
        digests = known.of(paths, reading=sandbox.start_server)
    refused = dict(digests.refused)
    keys = np.zeros((len(paths), 32), np.uint8)
    good = digests.good()
    for index in good.tolist():
        key = key_of(digests.sha256[index].tobytes().hex(), encoder.version)
        keys[index] = np.frombuffer(key, np.uint8)
    absent = good[store.locate(keys[good]).shard < 0]
    if len(absent):
        missing: dict[bytes, int] = {}
        for index in absent.tolist():
            missing.setdefault(keys[index].tobytes(), index)
        work = _Work(encoder, paths, digests, store, known, part, say)
        failures = work.decode(missing, workers or share())
        for index in absent.tolist() if failures else ():
            if (key := keys[index].tobytes()) in failures:
                refused[index] = failures[key]
    return Encoded(digests, keys, refused)


def encode_files(
    paths: Sequence[Path],
    encoder: Encoder,
    cache: Path,
    workers: int | None = None,
    say: Callable[[str], None] = print,
) -> tuple[dict[Path, Record], dict[Path, Quarantined]]:
    """The same as `encode` for a few files: (path -> its record, path -> why it has none)."""
    paths = list(dict.fromkeys(paths))
    done = encode([str(path) for path in paths], encoder, cache, workers, say)
    store = Store.at(cache / encoder.kind)
    records = {
        path: Record(store, key.tobytes())
        for index, (path, key) in enumerate(zip(paths, done.keys, strict=True))
        if index not in done.refused
    }
    return records, {
        paths[index]: Quarantined(printable(paths[index]), encoder.kind, why) for index, why in done.refused.items()
    }


@dataclass(frozen=True)
class _Work:
    """Decodes files into a store."""

    encoder: Encoder
    paths: Sequence[str]
    digests: Digests
    store: Store
    ledger: Ledger
    part: str
    say: Callable[[str], None]

    def decode(self, missing: Mapping[bytes, int], workers: int) -> dict[bytes, str]:
        """Fill the store with `missing` (key -> index of a file); returns key -> reason for what could not be
        decoded."""
        encoder, failures = self.encoder, {}
        began = published = time.monotonic()
        with self.store.writing(part=self.part) as writer:
            todo = self._todo(missing, failures)
            preload(encoder)
            outcomes = sandbox.run(
                functools.partial(_packed, encoder.function),
                [self.paths[index] for _, index in todo],
                seconds=encoder.time_limit,
                megabytes=encoder.megabytes,
                workers=workers,
                imports=encoder.imports,
            )
            shown = sys.stderr.isatty()
            bar = tqdm(total=len(todo), desc=f"  {encoder.kind}", unit="file", disable=not shown, leave=False)
            with closing(outcomes), bar:
                for outcome in outcomes:
                    key, index = todo[outcome.index]
                    error = outcome.error
                    if error is None and not self._unchanged(index):
                        error = "changed while it was read; run again"
                    if error is None:
                        writer.add(key, outcome.value)
                    else:
                        failures[key] = error
                    if outcome.timed_out:
                        self.ledger.remember_too_slow(key, encoder.time_limit(self.paths[index]).total)
                    if time.monotonic() - published > _PUBLISH_SECONDS:
                        writer.publish()
                        published = time.monotonic()
                    bar.update()
        spent = time.monotonic() - began
        if todo:
            count = f"{len(todo)} file" + "s" * (len(todo) != 1)
            bad = f", {len(failures)} refused" if failures else ""
            self.say(f"  {encoder.kind}: {count} decoded in {spent:.1f} s by {min(workers, len(todo))} workers{bad}")
        return failures

    def _todo(self, missing: Mapping[bytes, int], failures: dict[bytes, str]) -> list[tuple[bytes, int]]:
        """The contents to decode: without those that another process decoded while this one waited for the store's
        lock, and without those that exceeded this time limit in an earlier run, which are added to `failures`."""
        slow = self.ledger.too_slow(missing)
        wanted = np.frombuffer(b"".join(missing), np.uint8).reshape(-1, 32)
        absent = self.store.locate(wanted).shard < 0
        todo = []
        for item, is_absent in zip(missing.items(), absent.tolist(), strict=True):
            key, index = item
            if not is_absent:
                continue
            if key in slow and slow[key] >= self.encoder.time_limit(self.paths[index]).total:
                failures[key] = f"took too long to decode in an earlier run (to try again, delete {self.ledger.path})"
            else:
                todo.append(item)
        return todo

    def _unchanged(self, index: int) -> bool:
        try:
            return signed(signature(self.paths[index])) == tuple(self.digests.signature[index].tolist())
        except OSError:
            return False


def _packed(function: Callable[[Path], dict[str, np.ndarray]], path: str) -> bytes:
    """Runs in the worker: the record is packed there, so the pipe carries the bytes that the store keeps."""
    return pack(function(Path(path)))


def encode_all(
    rows: Sequence[Row],
    encoders: Mapping[str, Encoder],
    cache: Path,
    workers: int | None = None,
    *,
    too_many: float = TOO_MANY,
    quarantine: Path | None = None,
    say: Callable[[str], None] = print,
) -> tuple[Sequence[Row], list[Quarantined]]:
    """Decode the files of all rows. Returns the rows whose files could all be decoded, with their records, and the
    files that could not.

    Args:
        encoders: manifest key that holds a path -> encoder of the file under it.
        cache: folder of the stores.
        quarantine: JSONL file for the refused files; it is empty when none was refused.

    Raises DataError if more than the share `too_many` of any key's files fail, or no row is left.
    """
    preload(*encoders.values())
    files = {name: _Column.of(rows, name) for name in encoders}
    done = {name: encode(files[name].paths, encoder, cache, workers, say) for name, encoder in encoders.items()}
    bad = np.zeros(len(rows), bool)
    for name in encoders:
        bad |= np.isin(files[name].of_row, list(done[name].refused))
    refused: dict[tuple[str, int], Quarantined] = {}
    for row in np.flatnonzero(bad).tolist():
        for name, encoder in encoders.items():
            file = int(files[name].of_row[row])
            if file in done[name].refused and (name, file) not in refused:
                path, why = files[name].paths[file], done[name].refused[file]
                refused[name, file] = Quarantined(printable(path), encoder.kind, why, rows[row].place)
    listed = list(refused.values())
    if quarantine is not None:
        write_quarantine(quarantine, listed)
    for name in encoders:
        of_name = [item for (key, _), item in refused.items() if key == name]
        refuse_if_too_many(of_name, len(files[name].paths), too_many)
    kept = np.flatnonzero(~bad)
    if not len(kept):
        raise DataError("No row is left to train on.\n" + describe(listed))
    return _with_records(rows, kept, encoders, files, done, cache), listed


@dataclass(frozen=True)
class _Column:
    """The files that rows name under one key, without repetitions."""

    paths: Sequence[str]
    of_row: np.ndarray  # int64 [n]: index into `paths`

    @classmethod
    def of(cls, rows: Sequence[Row], name: str) -> _Column:
        every = list(rows.paths(name) if isinstance(rows, Rows) else (row.values[name] for row in rows))
        number = {path: index for index, path in enumerate(dict.fromkeys(every))}
        return cls([*number], np.fromiter((number[path] for path in every), np.int64, len(every)))


def _with_records(
    rows: Sequence[Row],
    kept: np.ndarray,
    encoders: Mapping[str, Encoder],
    files: Mapping[str, _Column],
    done: Mapping[str, Encoded],
    cache: Path,
) -> Sequence[Row]:
    """The kept rows, each with the records of its files."""
    of_row = {name: files[name].of_row[kept] for name in encoders}
    if not isinstance(rows, Rows):
        stores = {name: Store.at(cache / encoder.kind) for name, encoder in encoders.items()}
        return [
            replace(
                rows[row],
                records={
                    name: Record(stores[name], done[name].keys[of_row[name][place]].tobytes()) for name in encoders
                },
            )
            for place, row in enumerate(kept.tolist())
        ]
    table = rows.table if rows.order is None and len(kept) == len(rows) else rows.take(kept)
    encoded = {
        name: Files(
            table.files[name].paths,
            done[name].digests.signature[of_row[name]],
            done[name].digests.settled[of_row[name]],
            encoder.kind,
            keys := done[name].keys[of_row[name]],
            Layout.of(Store.at(cache / encoder.kind), keys),
        )
        for name, encoder in encoders.items()
    }
    return Rows(replace(table, files=dict(table.files) | encoded, cache=cache))


def refuse_if_too_many(
    bad: Sequence[Quarantined], total: int, share: float = TOO_MANY, count: int | None = None
) -> None:
    """Raise DataError, with the reasons, if more than `share` of `total` files are bad. `count`: of the bad files; they
    may be more than `bad`, which has one entry for all files of a folder."""
    count = len(bad) if count is None else count
    if bad and count > share * total:
        raise DataError(
            f"{count} of {total} files could not be decoded ({bad[0].kind}); more than {share:.0%} is refused.\n"
            + describe(bad)
        )


def describe(items: Sequence[Quarantined], most: int = 10) -> str:
    """A few lines for people: the first files, each with the reason why it was refused."""
    lines = [f"  {item.path}: {item.reason}" for item in items[:most]]
    if len(items) > most:
        lines.append(f"  ... and {len(items) - most} more")
    return "\n".join(lines)


def write_quarantine(path: Path, items: Sequence[Quarantined]) -> None:
    """Write one JSON object per line: path, kind, reason, place."""
    lines = [json.dumps(asdict(item), ensure_ascii=False, sort_keys=True) + "\n" for item in items]
    write_atomic(path, "".join(lines).encode())
