"""A corpus: folders of recordings and scores become songs, each with an id, an emotion and a side of the split."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.data.files import Found, Refused, printable, scan
from training.errors import DataError, UsageError
from training.music.corpora import labels as labelling
from training.music.corpora.labels import Label, Labels
from training.music.corpora.pairing import Pair, Pairing, pair
from training.music.corpora.split import Group, connected, held_out

AUDIO = (".wav", ".mp3", ".flac", ".ogg", ".m4a", ".aac")
MIDI = (".mid", ".midi")


@dataclass(frozen=True)
class Song:
    """One row to be: a score, with its recording or without."""

    id: str  # relative path without extension (with it where two rows would share one): the same on every host
    midi: Found
    audio: Found | None
    label: Label
    held_out: bool = False


def find(root: Path | None, suffixes: Collection[str], option: str) -> tuple[list[Found], list[Refused]]:
    """Scan a folder that the user named. Raises UsageError if it is none, DataError if nothing in it is usable."""
    if root is None:
        return [], []
    try:
        found, refused = scan(root, suffixes)
    except OSError as error:
        raise UsageError(f"{option} {printable(root)}: {error.strerror}.") from None
    if not found:
        listed = "".join(f"\n  {item.path}: {item.reason}" for item in refused[:10])
        kinds = " ".join(suffix.lstrip(".") for suffix in suffixes)
        raise DataError(f"{option} {printable(root)} holds no usable file ({kinds}).{listed}")
    return found, refused


def match(audio: Sequence[Found], midi: Sequence[Found], digests: Mapping[Path, str], given: Labels) -> Pairing:
    """Pair recordings with scores. Songs that the user labelled are not judged by their folders' names."""

    def contradiction(sound: Found, score: Found) -> str | None:
        if given.find(sound) or given.find(score):
            return None
        return labelling.contradiction(sound, score)

    return pair(audio, midi, digests, contradiction)


def songs(
    pairs: Sequence[Pair], midi: Sequence[Found], digests: Mapping[Path, str], given: Labels, share: float, seed: int
) -> tuple[list[Song], list[Song]]:
    """The songs with recordings, and the songs of every score, with one split over both; each sorted by id.

    A score that has a recording bears its id and label. Rows of one group (see split.py) share a side:
    equal contents, one relative path, one recording, one score, and copies of any of them.
    """
    paired = [Song(p.audio.key, p.midi, p.audio, labelling.of_song((p.audio, p.midi), given)) for p in pairs]
    first: dict[Path, Song] = {}
    for song in paired:
        first.setdefault(song.midi.path, song)
    scores = [
        Song(first[score.path].id, score, None, first[score.path].label)
        if score.path in first
        else Song(score.key, score, None, labelling.of_song((score,), given))
        for score in midi
    ]
    paired, scores = _unique_ids(paired), _unique_ids(scores)
    everything = [*paired, *scores]
    tops = connected([_bonds(song, digests) for song in everything])
    members: dict[int, list[Song]] = {}
    for top, song in zip(tops, everything, strict=True):
        members.setdefault(top, []).append(song)
    groups = {top: _group(rows) for top, rows in members.items()}
    out = held_out(list(groups.values()), share, seed)
    sided = [
        Song(song.id, song.midi, song.audio, song.label, groups[top].key in out)
        for top, song in zip(tops, everything, strict=True)
    ]
    return sorted(sided[: len(paired)], key=lambda s: s.id), sorted(sided[len(paired) :], key=lambda s: s.id)


def _bonds(song: Song, digests: Mapping[Path, str]) -> list[tuple[str, str]]:
    files = [file for file in (song.audio, song.midi) if file is not None]
    return [("name", file.key) for file in files] + [("content", digests[file.path]) for file in files]


def _group(rows: Sequence[Song]) -> Group:
    leader = min(rows, key=lambda song: (song.id, song.audio is None))
    is_paired = any(song.audio is not None for song in rows)
    return Group(leader.id, leader.label.name, is_paired)


def _unique_ids(rows: Sequence[Song]) -> list[Song]:
    """Rows of one id (x.wav and x.mp3) are told apart by their extension; the ids of others stay."""
    used: dict[str, int] = {}
    for song in rows:
        used[song.id] = used.get(song.id, 0) + 1
    out = []
    for song in rows:
        name = song.id if used[song.id] == 1 else (song.audio or song.midi).relative
        out.append(Song(name, song.midi, song.audio, song.label))
    return out
