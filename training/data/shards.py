"""A corpus prepared by several hosts: each decodes its share of the contents, one of them puts it all together.

Which share a content belongs to follows from its SHA-256, so hosts that see the same files agree without a word. A host
writes into parts of the stores and a ledger of its own; nothing that another host writes is touched, and all may use
one shared folder. What it did stands in cache/shards/I-of-N.json.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.data.encode import expect, ledger
from training.data.files import printable, write_atomic
from training.data.media import Media, Shard, decode
from training.data.merging import contents, merge, part_folder
from training.data.store import PART
from training.domains.music.audio import LOGMEL
from training.domains.music.corpora import corpus, labels
from training.domains.music.midi.reader import NOTES
from training.domains.music.midi.tokens import TOKENS
from training.errors import DataError, UsageError
from training.workspace import Workspace, exclusive

ENCODERS = (TOKENS, NOTES, LOGMEL)


def shard_of(text: str) -> Shard:
    """ "2/4" -> the second of four. Raises UsageError."""
    number, slash, of = text.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise UsageError(f"--shard I/N names one of N shares, the first is 1/N; it is {text!r}.")
    return Shard(int(number), int(of))


def prepare_shard(
    workspace: Workspace,
    audio_root: Path | None,
    midi_root: Path | None,
    shard: Shard,
    *,
    labels_file: Path | None = None,
    workers: int | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Decode one share of a corpus into the stores' parts; returns what is kept about it. No manifest is written: that
    is for `prepare --merge`, once all shares are done.

    A file that cannot be decoded is counted, and refused when the shares are merged. Raises as `prepare` does.
    """
    if midi_root is None:
        raise UsageError("--midi-root is needed: both models learn from notes.")
    given = labels.read(labels_file) if labels_file else labels.Labels()
    sounds, scores = (
        Media(corpus.find(root, suffixes, option)[0], workspace.cache, workers, say, shard)
        for root, suffixes, option in (
            (audio_root, corpus.AUDIO, "--audio-root"),
            (midi_root, corpus.MIDI, "--midi-root"),
        )
    )
    with exclusive(_folder(workspace.cache) / shard.name, f"preparing shard {shard}"):
        expect(*ENCODERS)
        known = ledger(workspace.cache, shard.name)
        bad = sounds.read(known) + scores.read(known)
        pairs = corpus.match(sounds.files, scores.files, given).pairs
        of_scores, of_sounds = decode(sounds, scores, scores.files, pairs)
        bad += of_scores + of_sounds
        receipt = {
            "shard": str(shard),
            "corpus": digest(sounds, scores, pairs),
            "versions": _versions(),
            "stores": {encoder.kind: list(_held(workspace.cache, encoder.kind, shard)) for encoder in ENCODERS},
            "refused": len(bad),
        }
        write_atomic(_receipt(workspace.cache, shard), json.dumps(receipt, indent=1).encode() + b"\n")
    told = ", ".join(f"{count} {kind}" for kind, (count, _) in receipt["stores"].items())
    say(f"  shard {shard}: {told}; {len(bad)} files refused")
    return receipt


def digest(sounds: Media, scores: Media, pairs: Sequence[corpus.Pair]) -> str:
    """SHA-256 of what hosts must agree on: names, contents, and which recording belongs to which score."""
    total = hashlib.sha256()
    for media in (sounds, scores):
        for file in media.files:
            total.update(f"{file.relative}\0{file.content.hex()}\n".encode())
        total.update(b"\n")
    for pair in pairs:
        total.update(f"{pair.audio.relative}\0{pair.midi.relative}\n".encode())
    return total.hexdigest()


def merge_shards(cache: Path, count: int, corpus_digest: str, say: Callable[[str], None] = print) -> None:
    """Put the parts that `count` hosts decoded together: the stores are then the same, bit for bit, for any `count`.

    Raises DataError if a shard is missing or incomplete, or was made from other files, by other code or of another
    number of shares.
    """
    shards = [Shard(number, count) for number in range(1, count + 1)]
    receipts = {shard: _read(cache, shard) for shard in shards}
    for shard, receipt in receipts.items():
        _check(cache, shard, receipt, corpus_digest)
    names = {part_folder(Path(), shard.name).name for shard in shards}
    for encoder in ENCODERS:
        for other in sorted(cache.glob(f"{encoder.kind}/{PART}*")):
            if other.name not in names:
                raise DataError(
                    f"{printable(other)} is no shard of {count}. Merge what it belongs to first, or delete that folder."
                )
    total: Counter[str] = Counter()
    for encoder in ENCODERS:
        total[encoder.kind] = merge(cache / encoder.kind, [shard.name for shard in shards])
    for shard, receipt in receipts.items():
        write_atomic(_receipt(cache, shard), json.dumps(receipt | {"merged": True}, indent=1).encode() + b"\n")
    say(f"  {count} shards merged: " + ", ".join(f"{new} {kind}" for kind, new in total.items()))


def _check(cache: Path, shard: Shard, receipt: Mapping[str, Any], corpus_digest: str) -> None:
    place = printable(_receipt(cache, shard))
    again = f"Run `prepare --shard {shard}` with the same folders again."
    if receipt["corpus"] != corpus_digest:
        raise DataError(
            f"Shard {shard} ({place}) was made from other files than those that are merged here: all hosts must see "
            f"the same folders (and the same --labels). {again}"
        )
    if receipt["versions"] != _versions():
        raise DataError(f"Shard {shard} ({place}) was made by another version of this program. {again}")
    if receipt.get("merged"):
        return
    for kind, held in receipt["stores"].items():
        if list(_held(cache, kind, shard)) != held:
            where = printable(part_folder(cache / kind, shard.name))
            raise DataError(f"Shard {shard} is incomplete: {where} is not as {place} says. Copy it again, or: {again}")


def _read(cache: Path, shard: Shard) -> dict[str, Any]:
    path = _receipt(cache, shard)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        there = sorted(other.stem for other in _folder(cache).glob("*.json"))
        found = f" There are: {', '.join(there)}." if there else ""
        raise DataError(
            f"Shard {shard} is missing: no {printable(path)}.{found} Run `prepare --shard {shard}`, or copy what it "
            "left in cache/ here."
        ) from None
    except ValueError as error:
        raise DataError(f"{printable(path)} is damaged ({error}). Run `prepare --shard {shard}` again.") from None


def _held(cache: Path, kind: str, shard: Shard) -> tuple[int, str]:
    return contents(part_folder(cache / kind, shard.name))


def _versions() -> dict[str, str]:
    return {encoder.kind: encoder.version for encoder in ENCODERS}


def _folder(cache: Path) -> Path:
    return cache / "shards"


def _receipt(cache: Path, shard: Shard) -> Path:
    return _folder(cache) / f"{shard.name}.json"
