"""Measures the alignment of recordings with scores: `alignment.py DIR [--songs N]`.

The songs are half of the demo corpus, half performed music (benchmarks/music/real_music.py); both are made in DIR and
found there by a second run. In both, sound and score agree exactly. Then the truth is changed:

    none      nothing: every change is a false one
    offset    the recording begins -4 to +8 s late: its beginning is cut off, or silence or noise is put before it
    rate      the score is 0.9 to 1.1 times as fast
    both      the two together
    rubato    the tempo of the score wanders by 15 %, with a period of 6 to 20 s
    noise     as `both`, and noise 10 dB below the recording in every band
    swapped   a quarter of the scores is exchanged among the songs

An error is that of a song's median onset. Cost is in processor seconds of one process.
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.music import real_music
from training.domains.music.alignment import align
from training.domains.music.alignment.features import FRAME
from training.domains.music.alignment.pairs import KINDS, others_of
from training.domains.music.audio import encode_audio
from training.domains.music.composing.demo import make_demo_corpus
from training.domains.music.midi.reader import encode_notes

FOUND = 0.05  # seconds: the largest median error of a song whose map was found
FALSE = 0.03  # seconds: the largest change of an onset that is no false change


class Song(NamedTuple):
    name: str
    logmel: np.ndarray
    notes: np.ndarray


class Planted(NamedTuple):
    """A pair whose truth was changed."""

    logmel: np.ndarray
    notes: np.ndarray
    truth: Callable[[np.ndarray], np.ndarray]  # times of the score -> times of the recording


def songs(folder: Path, count: int) -> Iterator[Song]:
    performed = count // 2
    make_demo_corpus(folder / "demo", count - performed)
    if real_music.main([str(folder / "performed"), "--kind", "performed", "--count", str(performed)]):
        raise SystemExit(1)
    for name in ("demo", "performed"):
        root = folder / name
        for midi in sorted((root / "midi").rglob("*.mid")):
            audio = root / "audio" / f"{str(midi.relative_to(root / 'midi'))[:-4]}.wav"
            yield Song(f"{name}/{midi.stem}", encode_audio(audio)["logmel"], encode_notes(midi)["notes"])


# -- planting ----------------------------------------------------------------------------------------------------------


def unchanged(song: Song, random: np.random.Generator) -> Planted:
    return Planted(song.logmel, song.notes, lambda score: score)


def offset(song: Song, random: np.random.Generator) -> Planted:
    frames = round(random.uniform(-4, 8) / FRAME)
    if frames < 0:
        cut = min(-frames, len(song.logmel) // 2)
        return Planted(song.logmel[cut:], song.notes, lambda score: score - cut * FRAME)
    noisy = random.random() < 0.5
    before = song.logmel.min() + noisy * np.abs(random.normal(0, 0.5, (frames, song.logmel.shape[1])))
    logmel = np.concatenate([before.astype(np.float16), song.logmel])
    return Planted(logmel, song.notes, lambda score: score + frames * FRAME)


def rate(song: Song, random: np.random.Generator) -> Planted:
    factor = random.uniform(0.9, 1.1)
    return Planted(song.logmel, moved(song.notes, lambda seconds: seconds * factor), lambda score: score / factor)


def both(song: Song, random: np.random.Generator) -> Planted:
    later = offset(song, random)
    faster = rate(song, random)
    return Planted(later.logmel, faster.notes, lambda score: later.truth(faster.truth(score)))


def rubato(song: Song, random: np.random.Generator) -> Planted:
    period, phase = random.uniform(6, 20), random.uniform(0, 2 * np.pi)
    end = float((song.notes["onset"] + song.notes["duration"]).max())
    recorded = np.arange(0, end + 0.02, 0.01)
    tempo = 1 + 0.15 * np.sin(2 * np.pi * recorded / period + phase)
    written = np.concatenate([[0], np.cumsum(tempo[:-1]) * 0.01])
    notes = moved(song.notes, lambda seconds: np.interp(seconds, recorded, written))
    return Planted(song.logmel, notes, lambda score: np.interp(score, written, recorded))


def noise(song: Song, random: np.random.Generator) -> Planted:
    planted = both(song, random)
    level = np.log(np.exp(song.logmel.astype(np.float64)).mean(axis=0)) - 10 * np.log(10) / 10
    of_noise = level + np.log(random.gamma(3, 1 / 3, planted.logmel.shape))
    return planted._replace(logmel=np.logaddexp(planted.logmel.astype(np.float64), of_noise).astype(np.float16))


def moved(notes: np.ndarray, by: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    out = notes.copy()
    out["onset"] = by(notes["onset"])
    out["duration"] = by(notes["onset"] + notes["duration"]) - out["onset"]
    return out


PLANTED = {"none": unchanged, "offset": offset, "rate": rate, "both": both, "rubato": rubato, "noise": noise}


# -- measuring ---------------------------------------------------------------------------------------------------------


def seeded(kind: str, song: Song) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(f"{kind} {song.name}".encode()))


def measure_maps(kind: str, every: list[Song]) -> None:
    errors, changes, kinds = [], [], Counter()
    for song in every:
        pair = PLANTED[kind](song, seeded(kind, song))
        found = align.align(pair.logmel, pair.notes).map
        score = pair.notes["onset"]
        true, heard = pair.truth(score), found(score)
        inside = (true >= 0) & (true < len(pair.logmel) * FRAME)
        errors.append(float(np.median(np.abs(heard - true)[inside])))
        changes.append(float(np.abs(heard - score).max()))
        kinds[found.kind] += 1
        if errors[-1] > FOUND:
            print(f"    {song.name}: {1000 * errors[-1]:.0f} ms by {found.kind}", file=sys.stderr)
    middle, late, worst = 1000 * np.quantile(errors, [0.5, 0.95, 1])
    within = np.mean(np.array(errors) <= FOUND)
    false = f"{sum(change > FALSE for change in changes)}" if kind == "none" else ""
    shown = ", ".join(f"{kinds[name]} {name}" for name in KINDS if kinds[name])
    print(f"| {kind} | {middle:.0f} | {late:.0f} | {worst:.0f} | {within:.1%} | {false} | {shown} |", flush=True)


def measure_swaps(every: list[Song], kind: str = "none") -> None:
    """A quarter of the scores in a circle: each recording gets the score of the next one."""
    contents = [zlib.crc32(song.name.encode()).to_bytes(4, "big") * 8 for song in every]
    at = {content: number for number, content in enumerate(contents)}
    swapped = np.random.default_rng(13).permutation(len(every))[: len(every) // 4]
    score_of = np.arange(len(every))
    score_of[swapped] = np.roll(swapped, 1)
    refused, certain = np.zeros(len(every), bool), np.zeros(len(every), bool)
    began = time.process_time()
    for number, song in enumerate(every):
        pair = PLANTED[kind](song, seeded(kind, song))
        right = score_of[number] == number
        notes = pair.notes if right else every[score_of[number]].notes
        others = others_of(contents[number], contents[score_of[number]], sorted(contents))
        found = align.align(pair.logmel, notes, [every[at[content]].notes for content in others])
        refused[number], certain[number] = found.other_song, found.same_song
        if found.other_song == right:
            print(f"    {song.name}: {found.strength:.2f} against {found.others.mean():.2f}", file=sys.stderr)
    spent = (time.process_time() - began) / len(every)
    wrong = score_of != np.arange(len(every))
    hits = int((refused & wrong).sum())
    precision, recall = hits / max(int(refused.sum()), 1), hits / int(wrong.sum())
    print(f"swapped ({kind}): {int(wrong.sum())} of {len(every)}; {int(refused.sum())} refused, precision", end=" ")
    print(f"{precision:.3f}, recall {recall:.3f}; {spent:.3f} s of processor time a song;", end=" ")
    right = f"{certain[~wrong].sum()} of {(~wrong).sum()} right"
    print(f"certainly of one song: {right}, {certain[wrong].sum()} wrong pairs")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure the alignment of recordings with scores.")
    parser.add_argument("folder", metavar="DIR", type=Path, help="where the songs are made")
    parser.add_argument("--songs", type=real_music.at_least_one, default=200, help="how many (default: 200)")
    options = parser.parse_args(arguments)
    every = list(songs(options.folder.absolute(), options.songs))
    seconds = sum(len(song.logmel) for song in every) * FRAME
    print(f"{len(every)} songs of {seconds / len(every):.0f} s on average")
    print("| planted | median ms | 95 % ms | worst ms | within 50 ms | false changes | maps |")
    print("|---|---|---|---|---|---|---|")
    for kind in PLANTED:
        measure_maps(kind, every)
    print()
    measure_swaps(every)
    measure_swaps(every, "rubato")
    measure_swaps(every, "noise")
    return 0


if __name__ == "__main__":
    sys.exit(main())
