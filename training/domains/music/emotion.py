"""Emotion words in the names of folders and files, their vectors on the circumplex, and the rules for composing them.

The words, their places and the production rules are in `emotions.yaml`, next to this file. A vector is
(valence, arousal, intensity): valence and arousal in [-1, 1], intensity in [0, 1].

How a name is read: it is normalised (NFC), split at everything that is not a letter and at camelCase humps, and case is
folded. Only complete words match, so "garage" does not match "rage", nor "crusader" "sad"; "unhappy" is a separate
word. The first match in a name is used; where entries overlap, the longest ("off guard"). A degree in front moves a
word by tiers ("very sad"); after a negation a word is ignored ("no fear").
"""

from __future__ import annotations

import difflib
import functools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from training.config import Layer, Section, build, read_yaml
from training.data.files import suffix_of
from training.errors import UsageError

LEXICON = Path(__file__).with_name("emotions.yaml")
BASES = ("happy", "sad", "angry", "fear", "surprise", "disgust")
TIERS = ("subtle", "mild", "moderate", "strong", "intense", "overwhelming")
NEUTRAL = (0.0, 0.0, 0.5)

Vector = tuple[float, float, float]
Share = Annotated[float, Field(ge=0, le=1)]
Signed = Annotated[float, Field(ge=-1, le=1)]
Weights = dict[str, Annotated[float, Field(gt=0)]]
Names = Annotated[tuple[str, ...], Field(min_length=1)]


class ProductionRules(Section):
    """How music of an emotion is composed; pairs are ranges (lowest, highest), weights need not add up to 1."""

    tempo: tuple[float, float]  # beats a minute; the beat of 6/8 is its dotted quarter
    density: tuple[float, float]  # onsets of the melody a second
    modes: Weights  # scale -> weight
    velocity: tuple[float, float]  # mean MIDI velocity of a piece
    accent: Annotated[float, Field(ge=0)]  # MIDI velocity by which strong and weak beats deviate from the mean
    pitches: tuple[int, int]  # MIDI pitches between which the melody moves
    articulation: tuple[float, float]  # share of the time to the voice's next note in which a note sounds
    leap: Share  # chance that the melody jumps
    syncopation: Share
    metres: Weights  # "4/4" -> weight
    drums: Share  # share of pieces with drums
    beats: Names  # drum patterns
    chords: tuple[Literal["triad", "seventh", "power", "cluster", "open"], ...]
    accompaniment: Names  # figures (training/domains/music/composing/figures.py)
    bassline: Names
    lead: Names  # instruments, by their names in the lexicon
    backing: Names
    bass: Names
    progressions: Names  # scale degrees of one phrase: "1 5 6 4"
    cadence: tuple[int, int]  # the degrees that close a piece
    devices: tuple[Literal["sudden_rests", "sforzando", "modulation", "grace_notes", "thirds", "ritardando"], ...] = ()

    @model_validator(mode="after")
    def _ranges_rise(self) -> ProductionRules:
        for name in ("tempo", "density", "velocity", "pitches", "articulation"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"ranges [lowest, highest] above 0; {name} is [{low}, {high}]")
        return self


class _Degree(Section):
    """A sub-emotion: its place at full intensity, and the words of each tier, separated by commas."""

    place: tuple[Signed, Signed]
    subtle: str
    mild: str
    moderate: str
    strong: str
    intense: str
    overwhelming: str


class _Base(Section):
    rules: ProductionRules
    subs: dict[str, _Degree]


class _Other(Section):
    """A state that does not belong to a base emotion."""

    vector: tuple[Signed, Signed, Share]
    family: str
    words: str
    like: Literal["happy", "sad", "angry", "fear", "surprise", "disgust"]
    rules: dict[str, Any]


class _Tiers(Section):
    subtle: Share
    mild: Share
    moderate: Share
    strong: Share
    intense: Share
    overwhelming: Share


class _File(Section):
    tiers: _Tiers
    degrees: dict[str, Annotated[int, Field(ge=-5, le=5)]]
    negations: Names
    fillers: Names
    instruments: dict[str, Annotated[int, Field(ge=0, le=127)]]
    bases: dict[str, _Base]
    others: dict[str, _Other]


@dataclass(frozen=True)
class Entry:
    """One word (or few words in a row) of the lexicon."""

    word: str
    vector: Vector
    emotion: str  # a base emotion, or the name of another state: calm, neutral
    family: str  # the base emotion that it is grouped with, or neutral
    sub: str = ""  # sub-emotion; empty for another state
    tier: str = ""


@dataclass(frozen=True)
class Match:
    """The emotion found in a name, and why."""

    vector: Vector
    word: str  # the lexicon's entry; empty: no hint
    emotion: str
    family: str
    sub: str = ""
    tier: str = ""
    where: str = ""  # the folder or file name that contains the word
    why: str = "no hint"
    alone: bool = False  # the name consists of emotion words, degrees and fillers ("very sad songs 2")
    against: str = ""  # the path's other folders that name another emotion, as text

    @property
    def hinted(self) -> bool:
        return bool(self.word)


@dataclass(frozen=True)
class Lexicon:
    """The lexicon, typed and indexed. `words` maps a tuple of folded words to its entry."""

    words: Mapping[tuple[str, ...], Entry]
    places: Mapping[str, tuple[float, float]]  # "happy.joy" -> (valence, arousal) at full intensity
    tiers: Mapping[str, float]
    degrees: Mapping[str, int]
    negations: frozenset[str]
    fillers: frozenset[str]
    instruments: Mapping[str, int]
    rules: Mapping[str, ProductionRules]
    longest: int  # words in the longest entry

    def graded(self, base: str, sub: str, tier: str) -> Vector:
        """The vector of a tier of a sub-emotion: further from the centre, the more intense (Reisenzein 1994)."""
        valence, arousal = self.places[f"{base}.{sub}"]
        intensity = self.tiers[tier]
        radius = 0.5 + 0.5 * intensity
        return (round(valence * radius, 4), round(arousal * radius, 4), intensity)


@functools.cache
def lexicon(path: Path = LEXICON) -> Lexicon:
    """The lexicon in a YAML file. Raises UsageError for a mistyped key, a missing base or tier, a word set twice."""
    layer = read_yaml(path)
    raw = build(_File, layer)
    if set(raw.bases) != set(BASES):
        raise UsageError(f"{path}: bases must be {', '.join(BASES)}; they are {', '.join(raw.bases)}.")
    places = {f"{base}.{sub}": degree.place for base, body in raw.bases.items() for sub, degree in body.subs.items()}
    rules = {name: body.rules for name, body in raw.bases.items()}
    for name, other in raw.others.items():
        default = Layer(raw.bases[other.like].rules.model_dump())
        at = f"others.{name}.rules."
        over = {k.removeprefix(at): v for k, v in layer.places.items() if k.startswith(at)}
        own = dict(default.values) | other.rules  # a weight table replaces the base's complete table
        rules[name] = build(ProductionRules, Layer(own, over))
    book = Lexicon(
        words={},
        places=places,
        tiers=raw.tiers.model_dump(),
        degrees=raw.degrees,
        negations=frozenset(raw.negations),
        fillers=frozenset(raw.fillers),
        instruments=raw.instruments,
        rules=rules,
        longest=0,
    )
    words: dict[tuple[str, ...], Entry] = {}
    for entry in _entries(raw, book):
        key = tuple(split_words(entry.word))
        if key in words:
            raise UsageError(f"{path}: `{entry.word}` occurs twice, under {_name(words[key])} and {_name(entry)}.")
        words[key] = entry
    for word in (*book.fillers, *book.degrees):
        if (word,) in words:
            raise UsageError(f"{path}: `{word}` is an emotion word, and a filler or a degree.")
    return Lexicon(**{**vars(book), "words": words, "longest": max(map(len, words))})


def _entries(raw: _File, book: Lexicon) -> list[Entry]:
    entries = []
    for base, body in raw.bases.items():
        for sub, degree in body.subs.items():
            for tier in TIERS:
                vector = book.graded(base, sub, tier)
                for word in getattr(degree, tier).split(","):
                    entries.append(Entry(word.strip(), vector, base, base, sub, tier))
    for name, other in raw.others.items():
        entries += [Entry(word.strip(), other.vector, name, other.family) for word in other.words.split(",")]
    return entries


def _name(entry: Entry | Match) -> str:
    return f"{entry.emotion} > {entry.sub} > {entry.tier}" if entry.sub else entry.emotion


# -- names -> matches ----------------------------------------------------------------------------------------------

_NO_LETTERS = re.compile(r"[^A-Za-z]+")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def split_words(name: str) -> list[str]:
    """The words of a file or folder name: "DarkSADSongs_02" -> ["dark", "sad", "songs"]."""
    text = unicodedata.normalize("NFC", name)
    if text.isascii():
        letters = _NO_LETTERS.sub(" ", text)
    else:
        letters = "".join(c if c.isalpha() or unicodedata.combining(c) else " " for c in text)
    return _HUMP.sub(" ", letters).casefold().split()


def match(text: str, where: str = "") -> Match | None:
    """The first emotion word in a word, phrase or name, or None. `where` names the text in `why`."""
    book = lexicon()
    words = split_words(text)
    hints, others = _hints(words, book)
    if not hints:
        return None
    alone = all(word in book.fillers or word in book.degrees for word in others)
    entry, shift = hints[0]
    vector, tier = entry.vector, entry.tier
    why = f"`{entry.word}` in {where or repr(text)} is {_name(entry)}"
    if shift and entry.sub:
        tier = TIERS[min(len(TIERS) - 1, max(0, TIERS.index(tier) + shift))]
        vector = book.graded(entry.emotion, entry.sub, tier)
        why += f", moved to {tier} by the word before it"
    later = [e.word for e, _ in hints[1:] if e.emotion != entry.emotion]
    if later:
        why += f" (the first word is used; also found: {', '.join(later)})"
    return Match(vector, entry.word, entry.emotion, entry.family, entry.sub, tier, where or text, why, alone)


def _hints(words: Sequence[str], book: Lexicon) -> tuple[list[tuple[Entry, int]], list[str]]:
    """(entry, tiers to move by) in reading order: the longest entry at each place, without negated ones. And the words
    that belong to no entry."""
    found, others = [], []
    at = 0
    while at < len(words):
        for length in range(min(book.longest, len(words) - at), 0, -1):
            entry = book.words.get(tuple(words[at : at + length]))
            if entry is None:
                continue
            before = at - 1
            shift = 0
            while before >= 0 and words[before] in book.degrees:
                shift += book.degrees[words[before]]
                before -= 1
            if before < 0 or words[before] not in book.negations:
                found.append((entry, shift))
            at += length
            break
        else:
            others.append(words[at])
            at += 1
    return found, others


def label_for(relative_path: PurePath | str) -> Match:
    """The emotion in a file's path: from a folder whose name has an emotion word, else from the file name.

    Names of artists and albums may contain an emotion word ("sad/Joy Division"). So folders whose names hold nothing
    else ("sad", "very sad songs 2") come before all others. Where several of those disagree, the outermost is right; of
    those that agree with it, the nearest to the file is used, because it is more specific ("sad/grief"). Without such a
    folder, the nearest that contains an emotion word is used. `against` holds the folders that disagree.

    `relative_path` is the file's path below the corpus root; folders above the root do not describe a song.
    Without such a word: neutral, (0, 0, .5), with why "no hint".
    """
    folders, _, name = str(relative_path).rpartition("/")
    found = _of_folders(folders) if folders else None
    return found or match(name[: len(name) - len(suffix_of(name))], f"file name {name!r}") or _NOTHING


_NOTHING = Match(NEUTRAL, "", "neutral", "neutral")


@functools.lru_cache(1 << 14)
def _of_folders(folders: str) -> Match | None:
    """The match of the folder that decides; cached for all files in the folder."""
    found = [hit for folder in PurePath(folders).parts if (hit := match(folder, f"folder {folder!r}"))]
    if not found:
        return None
    clear = [hit for hit in found if hit.alone]
    chosen = [hit for hit in clear if hit.emotion == clear[0].emotion][-1] if clear else found[-1]
    against = ", ".join(f"{hit.where} names {hit.emotion}" for hit in found if hit.emotion != chosen.emotion)
    if not against:
        return chosen
    return replace(chosen, why=f"{chosen.why}, although {against}", against=against)


# -- lookups -------------------------------------------------------------------------------------------------------


def names() -> tuple[str, ...]:
    """Every emotion that has production rules: the six base emotions, then the other states."""
    return tuple(lexicon().rules)


def vector(name: str) -> Vector:
    """The vector of a lexicon word. Raises UsageError, with the nearest words, if it is not in the lexicon."""
    entry = lexicon().words.get(tuple(split_words(name)))
    if entry is None:
        raise UsageError(f"`{name}` is not in the emotion lexicon.{_suggestion(name)}")
    return entry.vector


def rules(name: str) -> ProductionRules:
    """The production rules of an emotion named in `names()`. Raises UsageError for another name."""
    known = lexicon().rules
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"Did you mean `{near[0]}`?" if near else f"There are rules for: {', '.join(known)}."
        raise UsageError(f"No production rules for `{name}`. {hint}")
    return known[name]


def near_misses(word: str, count: int = 5) -> list[Entry]:
    """Lexicon entries spelt most like `word`, best first."""
    by_text = {" ".join(key): entry for key, entry in lexicon().words.items()}
    text = " ".join(split_words(word))
    return [by_text[found] for found in difflib.get_close_matches(text, by_text, count, 0.7)]


def _suggestion(word: str) -> str:
    near = near_misses(word, 3)
    return f" Did you mean {' or '.join(f'`{entry.word}`' for entry in near)}?" if near else ""


def classify(values: Sequence[float]) -> str:
    """The emotion of the lexicon word nearest to a vector (its first three numbers), by Euclidean distance.

    For the vector of a lexicon word this is the word's emotion.
    """
    if len(values) < 3:
        raise ValueError(f"an emotion needs at least [valence, arousal, intensity]; it has {len(values)} numbers")
    v, a, i = (float(x) for x in values[:3])
    nearest = min(_distinct(), key=lambda e: (e.vector[0] - v) ** 2 + (e.vector[1] - a) ** 2 + (e.vector[2] - i) ** 2)
    return nearest.emotion


@functools.cache
def _distinct() -> tuple[Entry, ...]:
    return tuple({entry.vector: entry for entry in lexicon().words.values()}.values())
