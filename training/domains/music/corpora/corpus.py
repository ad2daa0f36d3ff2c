"""A corpus: folders of recordings and scores become songs, each with an id, an emotion and a side of the split."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.data.files import Found, Refused, printable, scan
from training.domains.music.corpora import labels as labelling
from training.domains.music.corpora.labels import Label, Labels
from training.domains.music.corpora.pairing import Pair, Pairing, pair
from training.domains.music.corpora.split import Group, connected, held_out
from training.errors import DataError, HostError, UsageError

AUDIO = (".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".aiff", ".aif", ".au", ".caf", ".w64")
MIDI = (".mid", ".midi", ".kar")
_NO_AUDIO = "this kind of recording is not read; convert it, e.g. ffmpeg -i FILE FILE.flac"
_NO_MIDI = "this kind of score is not read; export it as a MIDI file"
#: Extensions of files that a user may expect to be read, and why they are not.
UNREAD = {
    **dict.fromkeys(
        (".wma", ".ape", ".wv", ".tta", ".mpc", ".dsf", ".dff", ".alac", ".ac3", ".amr", ".mka", ".mp2", ".oga",
         ".ra", ".weba", ".aifc", ".snd"),
        _NO_AUDIO,
    ),
    **dict.fromkeys(
        (".rmi", ".mxl", ".musicxml", ".mscz", ".mscx", ".sib", ".gp", ".gp3", ".gp4", ".gp5", ".gpx", ".krn", ".abc"),
        _NO_MIDI,
    ),
}  # fmt: skip


@dataclass(slots=True)
class Song:
    """A song that will be a manifest row: a score, with or without a recording."""

    midi: Found
    audio: Found | None
    label: Label
    held_out: bool = False
    named: str = ""  # its id, if that is not the path of its file without extension

    @property
    def id(self) -> str:
        """Relative path without extension (with it where two rows would share one): the same on every host."""
        return self.named or (self.audio or self.midi).key


def find(root: Path | None, suffixes: Collection[str], option: str) -> tuple[list[Found], list[Refused]]:
    """Scan a folder that the user named. Raises UsageError if it is not a folder, HostError if it
    may not be read, DataError if it has no usable file."""
    if root is None:
        return [], []
    try:
        found, refused = scan(root, suffixes, UNREAD)
    except OSError as error:
        if isinstance(error, PermissionError):  # a problem of the host, as in `doctor`
            raise HostError(
                f"{option} {printable(root)} cannot be read by uid {os.geteuid()}: {error.strerror}. Make it readable: "
                "chmod -R a+rX DIR."
            ) from None
        raise UsageError(f"{option} {printable(root)}: {error.strerror}.") from None
    if not found:
        listed = "".join(f"\n  {item.path}: {item.reason}" for item in refused[:10])
        kinds = " ".join(suffix.lstrip(".") for suffix in suffixes)
        raise DataError(f"{option} {printable(root)} holds no usable file ({kinds}).{listed}")
    return found, refused


def match(audio: Sequence[Found], midi: Sequence[Found], given: Labels) -> Pairing:
    """Pair recordings with scores. For songs that the user labelled, contradicting folder names are ignored."""

    def contradiction(sound: Found, score: Found) -> str | None:
        if given.find(sound) or given.find(score):
            return None
        return labelling.contradiction(sound, score)

    return pair(audio, midi, contradiction)


def songs(
    pairs: Sequence[Pair], midi: Sequence[Found], given: Labels, share: float, seed: int
) -> tuple[list[Song], list[Song], list[str]]:
    """The songs with recordings, and the songs of every score, with one split over both; each sorted by id. And a
    line about every file that is left out because a copy of it has another emotion (see `_without_contradictions`).

    A score with a recording takes the recording's id and label. Rows of one group (see split.py) are on the same side:
    rows with equal contents, the same relative path, the same recording or score, or copies of any of them.
    """
    paired = [Song(p.midi, p.audio, labelling.of_song((p.audio, p.midi), given)) for p in pairs]
    first: dict[str, Song] = {}
    for song in paired:
        first.setdefault(song.midi.relative, song)
    scores = [
        Song(score, None, song.label, named=song.id)
        if (song := first.get(score.relative)) is not None
        else Song(score, None, labelling.of_song((score,), given))
        for score in midi
    ]
    del first
    paired, contradicted = _without_contradictions(paired, lambda song: song.audio)
    scores, more = _without_contradictions(scores, lambda song: song.midi)
    ids = [*_disambiguated(paired), *_disambiguated(scores)]
    everything = [*paired, *scores]
    tops = connected(map(_bonds, everything, ids))
    leaders: dict[int, int] = {}  # group -> its leading row, if that is not its first row
    with_sound: set[int] = set()
    with_score: set[int] = set()
    for row, top in enumerate(tops):
        leader, alone = leaders.get(top, top), everything[row].audio is None
        if row != leader and (ids[row], alone) < (ids[leader], everything[leader].audio is None):
            leaders[top] = row
        (with_score if alone else with_sound).add(top)
    groups = [
        Group(ids[leader := leaders.get(top, top)], everything[leader].label.name, top in with_sound, top in with_score)
        for row, top in enumerate(tops)
        if row == top
    ]
    out = held_out(groups, share, seed)
    del groups
    for top, song in zip(tops, everything, strict=True):
        song.held_out = ids[leaders.get(top, top)] in out
    paired, scores = (
        [everything[row] for row in sorted(rows, key=ids.__getitem__)]
        for rows in (range(len(paired)), range(len(paired), len(everything)))
    )
    return paired, scores, [*contradicted, *more]


_RANKS = ("none", "path", "labels")  # sources of labels, the weakest first


def _without_contradictions(rows: list[Song], file_of: Callable[[Song], Found]) -> tuple[list[Song], list[str]]:
    """The rows without those whose file has the same content as another row's, but another emotion; and a line about
    each content that is concerned.

    A label of the user comes before one from a path, and that before none: copies with a weaker label are left out. If
    the strongest labels contradict each other, all copies are left out, because no label is guessed.
    """
    first: dict[bytes, Label] = {}
    disputed: set[bytes] = set()
    for song in rows:
        content = file_of(song).content
        if first.setdefault(content, song.label).name != song.label.name:
            disputed.add(content)
    del first
    if not disputed:
        return rows, []
    copies: dict[bytes, list[Song]] = {}
    for song in rows:
        if (content := file_of(song).content) in disputed:
            copies.setdefault(content, []).append(song)
    kept: set[int] = set()
    lines = []
    for alike in copies.values():
        best = max(_RANKS.index(song.label.source) for song in alike)
        strongest = [song for song in alike if song.label.source == _RANKS[best]]
        settled = len({song.label.name for song in strongest}) == 1
        kept |= {id(song) for song in strongest} if settled else set()
        names = ", ".join(f"{file_of(song).relative} ({_named(song.label)})" for song in alike)
        used = f"only {strongest[0].label.name} is used" if settled else "none is used"
        lines.append(f"{names}: {used}")
    return [song for song in rows if file_of(song).content not in disputed or id(song) in kept], sorted(lines)


def _named(label: Label) -> str:
    return "no emotion word" if label.source == "none" else label.name


def _bonds(song: Song, name: str) -> Iterator[str | bytes]:
    """Keys that song shares with others of its group: relative paths and contents of its files. `name`: its id."""
    for file in (song.audio, song.midi):
        if file is not None:
            key = file.key
            yield name if key == name else key  # one string object for both: there may be millions of songs
            yield file.content


def _disambiguated(rows: Sequence[Song]) -> list[str]:
    """The ids of all rows. Rows of the same id (x.wav and x.mp3) get their extensions appended; other ids stay."""
    ids = [song.id for song in rows]
    used = Counter(ids)
    for row, song in enumerate(rows) if len(used) < len(rows) else ():
        if used[ids[row]] > 1:
            song.named = (song.audio or song.midi).relative
    return [song.id for song in rows] if len(used) < len(rows) else ids
