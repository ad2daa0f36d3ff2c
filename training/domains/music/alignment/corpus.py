"""The alignments of a corpus's songs, for `prepare`: which pairs are kept, their time maps, and lines for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from training.data.encode import Quarantined
from training.data.files import printable
from training.data.media import Media
from training.domains.music.alignment.pairs import KINDS, Alignment, PairOfRecords, align_pairs
from training.domains.music.alignment.timemap import mapped
from training.domains.music.audio import LOGMEL
from training.domains.music.corpora.corpus import Song
from training.domains.music.corpora.pairing import Pair
from training.domains.music.midi.reader import NOTES

ALIGNMENT = "alignment"  # the kind of what is quarantined here
NOT_THE_SAME = "not the same song"


@dataclass
class Alignments:
    """What `prepare` keeps of the alignments; pairs are identified by the numbers of their files."""

    maps: dict[tuple[int, int], Alignment] = field(default_factory=dict)  # those that are not the identity
    failed: dict[tuple[int, int], str] = field(default_factory=dict)  # pair -> why it could not be aligned
    counts: dict[str, int] = field(default_factory=dict)  # kind of map -> pairs; empty: nothing was aligned

    def knots(self, song: Song) -> np.ndarray:
        """Of a song's time map, float64 [k, 2]; [0, 2] for the identity."""
        found = self.maps.get(_numbers(song))
        return np.zeros((0, 2)) if found is None else found.knots

    def end(self, song: Song, seconds: float) -> float:
        """A time of the score as a time of the recording."""
        return float(mapped(self.knots(song), np.array([seconds]))[0])

    def listed(self, songs: Sequence[Song]) -> list[dict[str, Any]]:
        """The songs with a time map, the largest change first."""
        found = [(song, self.maps[_numbers(song)]) for song in songs if _numbers(song) in self.maps]
        lines = [
            {"song": song.id, "map": of.kind, "seconds": _largest(of), "what": described(of)} for song, of in found
        ]
        return sorted(lines, key=lambda line: (-line["seconds"], line["song"]))

    def unaligned(self, songs: Sequence[Song]) -> list[str]:
        """A line for every song that could not be aligned."""
        return [f"{song.id}: {self.failed[_numbers(song)]}" for song in songs if _numbers(song) in self.failed]


def aligned(
    pairs: Sequence[Pair],
    sounds: Media,
    scores: Media,
    cache: Path,
    workers: int | None,
    say: Callable[[str], None],
) -> tuple[list[Pair], list[Quarantined], Alignments]:
    """Align the pairs: those of one song, the recordings of another song than their scores, and the time maps."""
    logmels = sounds.keys([pair.audio for pair in pairs], LOGMEL)
    notes = scores.keys([pair.midi for pair in pairs], NOTES)
    records = [
        PairOfRecords(pair.audio.content, pair.midi.content, logmel.tobytes(), of_score.tobytes())
        for pair, logmel, of_score in zip(pairs, logmels, notes, strict=True)
    ]
    kept, refused, out = [], [], Alignments()
    counts: Counter[str] = Counter()
    for pair, found in zip(pairs, align_pairs(records, cache, workers, say), strict=True):
        if found.other_song:
            refused.append(Quarantined(printable(pair.audio.place), ALIGNMENT, _reason(pair, found)))
            continue
        kept.append(pair)
        numbers = pair.audio.number, pair.midi.number
        if found.error:
            out.failed[numbers] = found.error
            continue
        counts[found.kind] += 1
        if found.kind != "identity":
            out.maps[numbers] = found
    out.counts = {kind: counts[kind] for kind in KINDS}
    return kept, refused, out


def described(found: Alignment) -> str:
    """A time map in words."""
    knots = found.knots
    if found.kind == "bent":
        return f"tempo follows {len(knots)} points, up to {_largest(found):.2f} s from the score"
    late = float(knots[0, 1] - knots[0, 0])
    words = [f"{abs(late):.2f} s {'late' if late > 0 else 'early'}"]
    if found.kind == "rate":
        rate = float((knots[1, 1] - knots[1, 0] - late) / (knots[1, 0] - knots[0, 0]))
        words.append(f"{abs(rate):.1%} {'slower' if rate > 0 else 'faster'}")
    return ", ".join(words)


def _largest(found: Alignment) -> float:
    return round(float(np.abs(found.knots[:, 1] - found.knots[:, 0]).max()), 2)


def _reason(pair: Pair, found: Alignment) -> str:
    return (
        f"{NOT_THE_SAME} as {printable(pair.midi.relative)}: it fits that score with {found.strength:.2f}, and "
        f"scores of other songs with {found.others:.2f} on average (--no-align keeps such pairs)"
    )


def _numbers(song: Song) -> tuple[int, int]:
    return song.audio.number, song.midi.number
