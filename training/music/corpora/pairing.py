"""Which recording belongs to which score: decided by names, never guessed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from training.data.files import Found


@dataclass(frozen=True)
class Pair:
    audio: Found
    midi: Found
    by: str  # "path" or "stem"


@dataclass(frozen=True)
class Ambiguous:
    """Files that might belong together, and why that cannot be told."""

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
    digests: Mapping[Path, str],
    contradiction: Callable[[Found, Found], str | None] = lambda audio, midi: None,
) -> Pairing:
    """Pair by the same relative path without extension; else by the same stem, if it is unique on both sides.

    Several recordings of one relative path (x.wav, x.mp3) are formats of one song: each is paired. Several scores of
    one relative path (x.mid, x.midi) with different contents are ambiguous.

    Args:
        digests: path -> content, to see that two scores are the same.
        contradiction: says why two files of one stem are different songs all the same, or None.
    """
    out = Pairing()
    sounds, scores = _by(audio, lambda f: f.key), _by(midi, lambda f: f.key)
    stems_of_sounds, stems_of_scores = _by(audio, lambda f: f.stem), _by(midi, lambda f: f.stem)
    taken: set[str] = set()
    for key in sorted(sounds.keys() & scores.keys()):
        if len({digests[score.path] for score in scores[key]}) > 1:
            why = "several scores of one name, with different contents"
            out.ambiguous.append(Ambiguous(tuple(sounds[key]), tuple(scores[key]), why))
        else:
            out.pairs.extend(Pair(sound, scores[key][0], "path") for sound in sounds[key])
        taken.add(key)
    unsettled: set[str] = set()
    for stem in sorted(stems_of_sounds.keys() & stems_of_scores.keys()):
        sound_keys = {sound.key for sound in stems_of_sounds[stem]}
        score_keys = {score.key for score in stems_of_scores[stem]}
        if not sound_keys - taken or not score_keys - taken:
            continue
        left = tuple(sound for sound in stems_of_sounds[stem] if sound.key not in taken)
        right = tuple(score for score in stems_of_scores[stem] if score.key not in taken)
        if len(sound_keys) > 1 or len(score_keys) > 1:
            why = "the name is in several folders"
        elif len({digests[score.path] for score in right}) > 1:
            why = "several scores of one name, with different contents"
        else:
            why = contradiction(left[0], right[0])
            if why is None:
                out.pairs.extend(Pair(sound, right[0], "stem") for sound in left)
                taken |= sound_keys | score_keys
                continue
        out.ambiguous.append(Ambiguous(left, right, why))
        unsettled |= sound_keys | score_keys
    settled = taken | unsettled
    out.pairs.sort(key=lambda p: p.audio.relative)
    out.unmatched_audio.extend(sound for sound in audio if sound.key not in settled)
    out.unmatched_midi.extend(score for score in midi if score.key not in settled)
    return out


def _by(files: Sequence[Found], name: Callable[[Found], str]) -> dict[str, list[Found]]:
    out: dict[str, list[Found]] = defaultdict(list)
    for file in files:
        out[name(file)].append(file)
    return dict(out)
