"""Files become stored arrays: decoded once, in worker processes that may neither hang nor grow, keyed by content."""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from training.data import sandbox
from training.data.files import Digest, Ledger, printable, signature, write_atomic
from training.data.manifest import Row
from training.data.store import Record, Store, key_of, pack
from training.errors import DataError

if TYPE_CHECKING:
    import numpy as np

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

    def patience(self, path: Path) -> sandbox.Patience:
        """How long the file at `path` may take."""
        try:
            more = path.stat().st_size / self.bytes_per_second
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


def encode_files(
    paths: Sequence[Path],
    encoder: Encoder,
    cache: Path,
    workers: int | None = None,
    say: Callable[[str], None] = print,
) -> tuple[dict[Path, Record], dict[Path, Quarantined]]:
    """Every path -> its record, or why it has none. Decodes only contents that the store lacks, and each once."""
    store, ledger = Store.at(cache / encoder.kind), Ledger(cache / "ledger.sqlite")
    digests = ledger.digests(paths)
    refused: dict[Path, str] = {}
    keys: dict[Path, bytes] = {}
    missing: dict[bytes, Path] = {}
    for path, digest in digests.items():
        if isinstance(digest, str):
            refused[path] = digest
            continue
        keys[path] = key = key_of(digest.sha256, encoder.version)
        if key not in store:
            missing.setdefault(key, path)
    if missing:
        failures = _decode(missing, digests, encoder, store, ledger, workers or sandbox.available_cpus(), say)
        for path in [path for path, key in keys.items() if key in failures]:
            refused[path] = failures[keys.pop(path)]
    records = {path: Record(store, key) for path, key in keys.items()}
    return records, {path: Quarantined(printable(path), encoder.kind, why) for path, why in refused.items()}


def _decode(
    missing: Mapping[bytes, Path],
    digests: Mapping[Path, Digest | str],
    encoder: Encoder,
    store: Store,
    ledger: Ledger,
    workers: int,
    say: Callable[[str], None],
) -> dict[bytes, str]:
    """Fill the store; returns key -> reason for what could not be decoded."""
    failures: dict[bytes, str] = {}
    began = published = time.monotonic()
    with store.writing() as writer:
        todo = []
        for key, path in missing.items():
            if key in store:  # another process decoded it while we waited
                continue
            limit = ledger.too_slow(key)
            if limit is not None and limit >= encoder.patience(path).total:
                failures[key] = f"took too long to decode in an earlier run (forget: {ledger.path})"
            else:
                todo.append((key, path))
        expect(encoder)
        work = functools.partial(_packed, encoder.function)
        outcomes = sandbox.run(
            work, [path for _, path in todo], seconds=encoder.patience, megabytes=encoder.megabytes, workers=workers
        )
        bar = tqdm(total=len(todo), desc=f"  {encoder.kind}", unit="file", disable=not sys.stderr.isatty(), leave=False)
        with closing(outcomes), bar:
            for outcome in outcomes:
                key, path = todo[outcome.index]
                error = outcome.error
                if error is None and not _unchanged(path, digests[path]):
                    error = "changed while it was read; run again"
                if error is None:
                    writer.add(key, outcome.value)
                else:
                    failures[key] = error
                if outcome.timed_out:
                    ledger.remember_too_slow(key, encoder.patience(path).total)
                if time.monotonic() - published > _PUBLISH_SECONDS:
                    writer.publish()
                    published = time.monotonic()
                bar.update()
    spent = time.monotonic() - began
    if todo:
        count = f"{len(todo)} file" + "s" * (len(todo) != 1)
        bad = f", {len(failures)} refused" if failures else ""
        say(f"  {encoder.kind}: {count} decoded in {spent:.1f} s by {min(workers, len(todo))} workers{bad}")
    return failures


def _unchanged(path: Path, digest: Digest | str) -> bool:
    try:
        return isinstance(digest, Digest) and signature(path) == digest.signature
    except OSError:
        return False


def _packed(function: Callable[[Path], dict[str, np.ndarray]], path: Path) -> bytes:
    """In the worker: what crosses the pipe is the bytes that the store keeps."""
    return pack(function(path))


def encode_all(
    rows: Sequence[Row],
    encoders: Mapping[str, Encoder],
    cache: Path,
    workers: int | None = None,
    *,
    too_many: float = TOO_MANY,
    quarantine: Path | None = None,
    say: Callable[[str], None] = print,
) -> tuple[list[Row], list[Quarantined]]:
    """Rows -> the rows whose files could all be decoded, with their records; and the files that could not.

    Args:
        encoders: manifest key that holds a path -> encoder of the file under it.
        cache: folder of the stores.
        quarantine: JSONL file for what was refused (emptied when nothing was).

    Raises DataError if more than `too_many` of any key's files fail, or no row is left.
    """
    records: dict[str, dict[Path, Record]] = {}
    bad: dict[str, dict[Path, Quarantined]] = {}
    expect(*encoders.values())
    for name, encoder in encoders.items():
        paths = list(dict.fromkeys(Path(row.values[name]) for row in rows))
        records[name], bad[name] = encode_files(paths, encoder, cache, workers, say)
    kept: list[Row] = []
    refused: dict[tuple[str, Path], Quarantined] = {}
    for row in rows:
        of_row = {name: Path(row.values[name]) for name in encoders}
        faults = {(name, path): bad[name][path] for name, path in of_row.items() if path in bad[name]}
        for key, fault in faults.items():
            refused.setdefault(key, replace(fault, place=row.place))
        if not faults:
            kept.append(replace(row, records={name: records[name][path] for name, path in of_row.items()}))
    listed = list(refused.values())
    if quarantine is not None:
        write_quarantine(quarantine, listed)
    for name in encoders:
        refuse_if_too_many(list(bad[name].values()), len(bad[name]) + len(records[name]), too_many)
    if not kept:
        raise DataError("No song is left to train on.\n" + describe(listed))
    return kept, listed


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
