"""Aligns the pairs of a corpus in worker processes; results are stored, keyed by the contents that they depend on."""

from __future__ import annotations

import hashlib
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from training.data import sandbox
from training.data.store import Store, key_of, pack, unpack
from training.domains.music.audio import LOGMEL
from training.domains.music.midi.reader import NOTES
from training.threads import share
from training.units import counted

OTHERS = 24  # scores of other songs that a recording is compared with
KINDS = ("identity", "offset", "rate", "bent")  # of maps, the simplest first
IMPORTS = ("training.domains.music.alignment.align",)  # compiled when it is imported: once, for all workers
#: Hop frames of the recordings and scores that are aligned: from 5 seconds to an hour.
SHORTEST, LONGEST = 215, 155_040

_STORE, _VERSION = "alignment", f"3 {LOGMEL.version} {NOTES.version}"
_MEGABYTES = 4096
_SECONDS, _FRAMES_PER_SECOND = 20.0, 500  # limit of processor time for a pair, and what is added for its length
_PUBLISH_SECONDS = 30.0


class Alignment(NamedTuple):
    """What is known about one pair."""

    kind: str  # of its map: one of KINDS
    knots: np.ndarray  # float64 [k, 2]: (score seconds, recording seconds); [0, 2] for the identity
    strength: float  # how well the recording fits its score: about 0 to 1.5
    others: float  # the same for the scores of other songs, the mean
    other_song: bool  # the recording fits its score no better than those of other songs
    error: str = ""  # why the pair could not be aligned; its map is then the identity


class PairOfRecords(NamedTuple):
    """A recording and its score, by the digests of their contents and the keys of their records."""

    sound: bytes
    score: bytes
    logmel: bytes
    notes: bytes


class _Span(NamedTuple):
    """Where a record's bytes are. Workers read them instead of mapping the store, which would count as their memory."""

    path: str
    offset: int
    length: int

    def read(self) -> dict[str, np.ndarray]:
        with Path(self.path).open("rb") as stream:
            stream.seek(self.offset)
            return unpack(np.frombuffer(stream.read(self.length), np.uint8))


class _Item(NamedTuple):
    sound: _Span
    score: _Span
    others: tuple[_Span, ...]


def align_pairs(
    pairs: Sequence[PairOfRecords], cache: Path, workers: int | None = None, say: Callable[[str], None] = print
) -> list[Alignment]:
    """The alignment of every pair. Only what is not in the store is computed, and each pair of contents once."""
    notes_of = {pair.score: pair.notes for pair in pairs}
    ring = sorted(notes_of)
    keys, todo = [], {}
    store = Store.at(cache / _STORE)
    for index, pair in enumerate(pairs):
        others = others_of(pair.sound, pair.score, ring)
        contents = b"".join([pair.sound, pair.score, *others])
        key = key_of(contents.hex(), _VERSION)
        keys.append(key)
        if key not in store:
            todo.setdefault(key, (index, others))
    failed = _compute(pairs, notes_of, todo, cache, workers or share(), say) if todo else {}
    return [_unaligned(failed[key]) if key in failed else _read(store.get(key)) for key in keys]


def others_of(sound: bytes, score: bytes, ring: Sequence[bytes]) -> list[bytes]:
    """OTHERS contents of `ring`, a sorted list, chosen by hashes of the recording's content: a score that is added to a
    corpus changes the choice of few recordings. All but `score`, if there are no more."""
    chosen: dict[bytes, None] = {}
    for number in range(min(OTHERS, len(ring) - 1)):
        at = bisect_left(ring, hashlib.sha256(sound + bytes([number])).digest())
        while (content := ring[at % len(ring)]) == score or content in chosen:
            at += 1
        chosen[content] = None
    return sorted(chosen)


def _unaligned(error: str) -> Alignment:
    return Alignment("identity", np.zeros((0, 2)), 0.0, 0.0, False, error)


def _read(record: dict[str, np.ndarray]) -> Alignment:
    if "error" in record:
        return _unaligned(record["error"].tobytes().decode())
    kind, strength, others, other_song = record["facts"].tolist()
    return Alignment(KINDS[int(kind)], np.array(record["knots"]), strength, others, bool(other_song))


def _compute(
    pairs: Sequence[PairOfRecords],
    notes_of: dict[bytes, bytes],
    todo: dict[bytes, tuple[int, list[bytes]]],
    cache: Path,
    workers: int,
    say: Callable[[str], None],
) -> dict[bytes, str]:
    """Fill the store; returns key -> reason for the pairs that could not be aligned."""
    sounds = _spans(cache / LOGMEL.kind, [pairs[index].logmel for index, _ in todo.values()])
    wanted = {pairs[index].score: None for index, _ in todo.values()}
    wanted |= {content: None for _, others in todo.values() for content in others}
    scores = dict(zip(wanted, _spans(cache / NOTES.kind, [notes_of[content] for content in wanted]), strict=True))
    items = [
        _Item(sound, scores[pairs[index].score], tuple(scores[content] for content in others))
        for sound, (index, others) in zip(sounds, todo.values(), strict=True)
    ]
    began = published = time.monotonic()
    failed: dict[bytes, str] = {}
    every = list(todo)
    outcomes = sandbox.run(aligned, items, seconds=_limit, megabytes=_MEGABYTES, workers=workers, imports=IMPORTS)
    with Store.at(cache / _STORE).writing() as writer, closing(outcomes):
        for outcome in outcomes:
            if outcome.error is None:
                writer.add(every[outcome.index], outcome.value)
            else:
                failed[every[outcome.index]] = outcome.error
            if time.monotonic() - published > _PUBLISH_SECONDS:
                writer.publish()
                published = time.monotonic()
    spent = time.monotonic() - began
    bad = f", {len(failed)} could not be" if failed else ""
    by = counted(min(workers, len(items)), "worker")
    say(f"  alignment: {counted(len(items), 'pair')} in {spent:.1f} s by {by}{bad}")
    return failed


def _spans(folder: Path, keys: Sequence[bytes]) -> list[_Span]:
    located = Store.at(folder).locate(np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32))
    return [
        _Span(str(folder / located.shards[shard]), offset, length)
        for shard, offset, length in zip(
            located.shard.tolist(), located.offset.tolist(), located.length.tolist(), strict=True
        )
    ]


def _limit(item: _Item) -> sandbox.TimeLimit:
    more = item.sound.length / 256 / _FRAMES_PER_SECOND
    return sandbox.TimeLimit(60 + 4 * (_SECONDS + more), _SECONDS + more).on_this_host()


def aligned(item: _Item) -> bytes:
    """Runs in a worker: the packed record of one pair."""
    from training.domains.music.alignment import align

    logmel, notes = item.sound.read()["logmel"], item.score.read()["notes"]
    lengths = len(logmel), align.frames_of(notes)
    if min(lengths) < SHORTEST:
        return pack({"error": np.frombuffer(b"shorter than 5 seconds", np.uint8)})
    if max(lengths) > LONGEST:
        return pack({"error": np.frombuffer(b"longer than an hour", np.uint8)})
    found = align.align(logmel, notes, (span.read()["notes"] for span in item.others))
    mean = float(found.others.mean()) if len(found.others) else 0.0
    if not found.same_song and not found.other_song:
        others = f"those of {len(found.others)} other songs with {mean:.2f} on average" if mean else "no other compared"
        why = f"it fits its score with {found.strength:.2f} ({others}), too little to trust a time map"
        return pack({"error": np.frombuffer(why.encode(), np.uint8)})
    facts: list[Any] = [KINDS.index(found.map.kind), found.strength, mean, found.other_song]
    return pack({"knots": found.map.knots, "facts": np.array(facts, np.float64)})
