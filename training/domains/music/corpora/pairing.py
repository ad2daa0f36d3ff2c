"""Pairs recordings with scores by their names. Ambiguous cases are reported, not guessed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from training.data.files import Found


@dataclass(frozen=True, slots=True)
class Pair:
    audio: Found
    midi: Found
    by: str  # "path" or "stem"


@dataclass(frozen=True)
class Ambiguous:
    """Files that might belong together, and why that cannot be decided."""

    audio: tuple[Found, ...]
    midi: tuple[Found, ...]
    reason: str


@dataclass(frozen=True)
class Pairing:
    pairs: list[Pair] = field(default_factory=list)
    ambiguous: list[Ambiguous] = field(default_factory=list)
    unmatched_audio: list[Found] = field(default_factory=list)
    unmatched_midi: list[Found] = field(default_factory=list)


def pair(
    audio: Sequence[Found],
    midi: Sequence[Found],
    contradiction: Callable[[Found, Found], str | None] = lambda audio, midi: None,
) -> Pairing:
    """Pair by the same relative path without extension; else by the same stem, if it is unique on both sides.

    Several recordings of one relative path (x.wav, x.mp3) are formats of one song: each is paired. Several scores of
    one relative path (x.mid, x.midi) with different contents are ambiguous.

    Args:
        contradiction: returns why two files of the same stem are different songs, or None.
    """
    if not (audio and midi):
        return Pairing(unmatched_audio=[*audio], unmatched_midi=[*midi])
    out = Pairing()
    sounds = _by(audio, _key, _names(midi, _key))
    scores = _by(midi, _key, sounds)
    for key in sorted(scores):
        if len({score.content for score in scores[key]}) > 1:
            why = "several scores of one name, with different contents"
            out.ambiguous.append(Ambiguous(tuple(sounds[key]), tuple(scores[key]), why))
        else:
            out.pairs.extend(Pair(sound, scores[key][0], "path") for sound in sounds[key])
    # The remaining files are paired by stem.
    left = [[file for file in files if file.key not in scores] for files in (audio, midi)]
    stems = _names(left[0], _stem) & _names(left[1], _stem)
    stems_of_sounds, stems_of_scores = _by(audio, _stem, stems), _by(midi, _stem, stems)
    taken: set[str] = set()
    unsettled: set[str] = set()
    for stem in sorted(stems):
        sound_keys = {sound.key for sound in stems_of_sounds[stem]}
        score_keys = {score.key for score in stems_of_scores[stem]}
        left_sounds = tuple(sound for sound in stems_of_sounds[stem] if sound.key not in scores)
        left_scores = tuple(score for score in stems_of_scores[stem] if score.key not in scores)
        if len(sound_keys) > 1 or len(score_keys) > 1:
            why = "the name is in several folders"
        elif len({score.content for score in left_scores}) > 1:
            why = "several scores of one name, with different contents"
        else:
            why = contradiction(left_sounds[0], left_scores[0])
            if why is None:
                out.pairs.extend(Pair(sound, left_scores[0], "stem") for sound in left_sounds)
                taken |= sound_keys | score_keys
                continue
        out.ambiguous.append(Ambiguous(left_sounds, left_scores, why))
        unsettled |= sound_keys | score_keys
    settled = taken | unsettled
    out.pairs.sort(key=lambda p: p.audio.relative)
    out.unmatched_audio.extend(sound for sound in left[0] if sound.key not in settled)
    out.unmatched_midi.extend(score for score in left[1] if score.key not in settled)
    return out


def _key(file: Found) -> str:
    return file.key


def _stem(file: Found) -> str:
    return file.stem


def _names(files: Sequence[Found], name: Callable[[Found], str]) -> set[str]:
    return {name(file) for file in files}


def _by(files: Sequence[Found], name: Callable[[Found], str], wanted: Collection[str]) -> dict[str, list[Found]]:
    """Files by name, for the wanted names that occur."""
    out: dict[str, list[Found]] = {}
    for file in files:
        if (named := name(file)) in wanted:
            out.setdefault(named, []).append(file)
    return out
