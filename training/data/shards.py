"""A corpus prepared by several hosts: each decodes its share of the contents, and one of them merges all shares.

The SHA-256 of a content decides which share it belongs to, so hosts that see the same files agree without
communicating. Each host writes into separate parts of the stores and a separate ledger, so all hosts may use one shared
folder. The receipt of a share is cache/shards/I-of-N.json.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.data.digests import Ledger
from training.data.encode import Encoder, ledger, preload
from training.data.files import Found, printable, write_atomic
from training.data.media import Media, Shard
from training.data.merging import contents, merge, part_folder
from training.data.store import PART
from training.errors import DataError, UsageError
from training.workspace import exclusive


def shard_of(text: str) -> Shard:
    """The share that "2/4" names: the second of four. Raises UsageError."""
    number, slash, of = text.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise UsageError(f"--shard I/N must name one of N shares, the first of them 1/N; it is {text!r}.")
    return Shard(int(number), int(of))


def write_share(
    cache: Path, shard: Shard, encoders: Sequence[Encoder], decode: Callable[[Ledger], tuple[str, int]]
) -> dict[str, Any]:
    """Decode one share of a corpus into the stores' parts, by calling `decode`; returns the receipt of the share.

    `decode` gets the share's ledger, and returns the digest of the corpus (`corpus_digest`) and the number of refused
    files. Raises HostError where another process is decoding the same share.
    """
    with exclusive(_folder(cache) / shard.name, f"preparing shard {shard}"):
        preload(*encoders)
        corpus, refused = decode(ledger(cache, shard.name))
        receipt = {
            "shard": str(shard),
            "corpus": corpus,
            "versions": _versions(encoders),
            "stores": {encoder.kind: list(_held(cache, encoder.kind, shard)) for encoder in encoders},
            "refused": refused,
        }
        write_atomic(_receipt(cache, shard), json.dumps(receipt, indent=1).encode() + b"\n")
    return receipt


def line_of(receipt: Mapping[str, Any]) -> str:
    """The receipt of a share as a line for people."""
    counts = ", ".join(f"{count} {kind}" for kind, (count, _) in receipt["stores"].items())
    return f"  shard {receipt['shard']}: {counts}; {receipt['refused']} files refused"


def corpus_digest(media: Iterable[Media], belonging: Iterable[tuple[Found, ...]] = ()) -> str:
    """SHA-256 of what must be the same on all hosts: names, contents, and which files belong together."""
    total = hashlib.sha256()
    for of_kind in media:
        for file in of_kind.files:
            total.update(f"{file.relative}\0{file.content.hex()}\n".encode())
        total.update(b"\n")
    for files in belonging:
        total.update(("\0".join(file.relative for file in files) + "\n").encode())
    return total.hexdigest()


def merge_shards(
    cache: Path, count: int, digest: str, encoders: Sequence[Encoder], say: Callable[[str], None] = print
) -> None:
    """Merge the parts that `count` hosts decoded. The resulting stores are the same, bit for bit, for any `count`.
    `digest`: of the corpus (`corpus_digest`); `encoders`: those that decoded the shares.

    Raises DataError if a shard is missing or incomplete, or was made from other files, by other code or with another
    number of shares.
    """
    shards = [Shard(number, count) for number in range(1, count + 1)]
    receipts = {shard: _read(cache, shard) for shard in shards}
    for shard, receipt in receipts.items():
        _check(cache, shard, receipt, digest, encoders)
    names = {part_folder(Path(), shard.name).name for shard in shards}
    for encoder in encoders:
        for other in sorted(cache.glob(f"{encoder.kind}/{PART}*")):
            if other.name not in names:
                raise DataError(
                    f"{printable(other)} is not one of {count} shards. Merge the corpus that it belongs to first, or "
                    "delete that folder."
                )
    total: Counter[str] = Counter()
    for encoder in encoders:
        total[encoder.kind] = merge(cache / encoder.kind, [shard.name for shard in shards])
    for shard, receipt in receipts.items():
        write_atomic(_receipt(cache, shard), json.dumps(receipt | {"merged": True}, indent=1).encode() + b"\n")
    say(f"  {count} shards merged: " + ", ".join(f"{new} {kind}" for kind, new in total.items()))


def _check(cache: Path, shard: Shard, receipt: Mapping[str, Any], digest: str, encoders: Sequence[Encoder]) -> None:
    place = printable(_receipt(cache, shard))
    again = f"Run `prepare --shard {shard}` with the same folders again."
    if receipt["corpus"] != digest:
        raise DataError(
            f"Shard {shard} ({place}) was made from other files than this host sees: all hosts must have the same "
            f"folders and files, named by the same options. {again}"
        )
    if receipt["versions"] != _versions(encoders):
        raise DataError(f"Shard {shard} ({place}) was made by another version of this program. {again}")
    if receipt.get("merged"):
        return
    for kind, held in receipt["stores"].items():
        if list(_held(cache, kind, shard)) != held:
            where = printable(part_folder(cache / kind, shard.name))
            raise DataError(f"Shard {shard} is incomplete: {where} does not match {place}. Copy it again, or: {again}")


def _read(cache: Path, shard: Shard) -> dict[str, Any]:
    path = _receipt(cache, shard)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        others = sorted(other.stem for other in _folder(cache).glob("*.json"))
        found = f" Found: {', '.join(others)}." if others else ""
        raise DataError(
            f"Shard {shard} is missing: {printable(path)} does not exist.{found} Run `prepare --shard {shard}`, or "
            "copy the cache/ folder of the host that ran it to this one."
        ) from None
    except ValueError as error:
        raise DataError(f"{printable(path)} is damaged ({error}). Run `prepare --shard {shard}` again.") from None


def _held(cache: Path, kind: str, shard: Shard) -> tuple[int, str]:
    return contents(part_folder(cache / kind, shard.name))


def _versions(encoders: Sequence[Encoder]) -> dict[str, str]:
    return {encoder.kind: encoder.version for encoder in encoders}


def _folder(cache: Path) -> Path:
    return cache / "shards"


def _receipt(cache: Path, shard: Shard) -> Path:
    return _folder(cache) / f"{shard.name}.json"
