"""Files become stored arrays: decoded once, in worker processes that may neither hang nor grow, keyed by content."""

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

#: More than this share of unreadable files refuses the run: something is wrong with the data, not with a file.
TOO_MANY = 0.2
_PUBLISH_SECONDS = 30.0  # how much decoding a killed run may lose


@dataclass(frozen=True)
class Encoder:
    """How one kind of file becomes arrays. The store's key is the file's content and `version`."""

    kind: str  # the store's folder name under cache/: "logmel"
    version: str  # whatever changes the output: code version and parameters
    function: Callable[[Path], dict[str, np.ndarray]]  # pure, picklable (top-level or functools.partial of one)
    seconds: float = 60.0  # of wall clock a small file may take
    processor: float = 4.0  # of processor time a small file may take, in seconds
    bytes_per_second: float = 500_000.0  # so much longer a large one may take of both (of the wall's four times that)
    megabytes: int = 1024  # of address space beyond the worker's own
    imports: tuple[str, ...] = ()  # modules that `function` imports late: loaded once for all workers

    def patience(self, path: str | Path) -> sandbox.Patience:
        """How long the file at `path` may take."""
        try:
            more = os.stat(path).st_size / self.bytes_per_second  # noqa: PTH116
        except OSError:
            more = 0.0  # it has gone: its decoder will say so
        return sandbox.Patience(self.seconds + 4 * more, self.processor + more)


@dataclass(frozen=True)
class Quarantined:
    """A file that is not used, and why."""

    path: str  # printable
    kind: str  # the encoder that refused it
    reason: str
    place: str = ""  # the manifest line that names it


def expect(*encoders: Encoder) -> None:
    """Say which encoders a run will use, before the first is used: see `sandbox.expect`."""
    for encoder in encoders:
        sandbox.expect(encoder.function, imports=encoder.imports)


@dataclass(frozen=True)
class Encoded:
    """What became of n files, in columns: their records are in the store of the encoder's kind."""

    digests: Digests
    keys: np.ndarray  # uint8 [n, 32]: of the record in the store
    refused: dict[int, str]  # why a file has no record


def ledger(cache: Path, part: str = "") -> Ledger:
    """What runs over `cache` learnt about files; `part` has a ledger of its own, and all read each other's."""
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
    """Every file -> its record in the store, or why it has none. Decodes only contents that the store lacks, and each
    once.

    `digests`: of the files, where they are known already. `part`: write into this part of the store (`Store.writing`).
    """
    store, known = Store.at(cache / encoder.kind), ledger(cache, part)
    if digests is None:
        expect(encoder)
        digests = known.of(paths, reading=sandbox.start_server)  # it imports while we read
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
    """`encode` for a few files: every path -> its record, or why it has none."""
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
    """Files to be decoded into a store."""

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
            expect(encoder)
            outcomes = sandbox.run(
                functools.partial(_packed, encoder.function),
                [self.paths[index] for _, index in todo],
                seconds=encoder.patience,
                megabytes=encoder.megabytes,
                workers=workers,
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
                        self.ledger.remember_too_slow(key, encoder.patience(self.paths[index]).total)
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
        """What nobody decoded while we waited for the store, and what no earlier run gave up on."""
        slow = self.ledger.too_slow(missing)
        wanted = np.frombuffer(b"".join(missing), np.uint8).reshape(-1, 32)
        absent = self.store.locate(wanted).shard < 0
        todo = []
        for item, lacking in zip(missing.items(), absent.tolist(), strict=True):
            key, index = item
            if not lacking:
                continue
            if key in slow and slow[key] >= self.encoder.patience(self.paths[index]).total:
                failures[key] = f"took too long to decode in an earlier run (forget: {self.ledger.path})"
            else:
                todo.append(item)
        return todo

    def _unchanged(self, index: int) -> bool:
        try:
            return signed(signature(self.paths[index])) == tuple(self.digests.signature[index].tolist())
        except OSError:
            return False


def _packed(function: Callable[[Path], dict[str, np.ndarray]], path: str) -> bytes:
    """In the worker: what crosses the pipe is the bytes that the store keeps."""
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
    """Rows -> the rows whose files could all be decoded, with their records; and the files that could not.

    Args:
        encoders: manifest key that holds a path -> encoder of the file under it.
        cache: folder of the stores.
        quarantine: JSONL file for what was refused (emptied when nothing was).

    Raises DataError if more than `too_many` of any key's files fail, or no row is left.
    """
    expect(*encoders.values())
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
    """The files that rows name under one key, each once."""

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
    """The kept rows, each with what is stored of its files."""
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


def refuse_if_too_many(bad: Sequence[Quarantined], total: int, share: float = TOO_MANY) -> None:
    """Raise DataError, with the reasons, if more than `share` of `total` files are bad."""
    if bad and len(bad) > share * total:
        raise DataError(
            f"{len(bad)} of {total} files could not be decoded ({bad[0].kind}); more than {share:.0%} is refused.\n"
            + describe(bad)
        )


def describe(items: Sequence[Quarantined], most: int = 10) -> str:
    """A few lines for people: the first files and why each was refused."""
    lines = [f"  {item.path}: {item.reason}" for item in items[:most]]
    if len(items) > most:
        lines.append(f"  ... and {len(items) - most} more")
    return "\n".join(lines)


def write_quarantine(path: Path, items: Sequence[Quarantined]) -> None:
    """One JSON object a line: path, kind, reason, place."""
    lines = [json.dumps(asdict(item), ensure_ascii=False, sort_keys=True) + "\n" for item in items]
    write_atomic(path, "".join(lines).encode())
