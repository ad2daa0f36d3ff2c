"""Small corpora on disk, prepared, and recipes of families that load them."""

import json
from pathlib import Path

import mido
import numpy as np
import soundfile

from training.domain import Job
from training.domains.music.audio import LOGMEL
from training.domains.music.midi.reader import NOTES
from training.domains.music.midi.tokens import TOKENS
from training.domains.music.prepare import prepare
from training.recipe import Stepped
from training.settings import Data, RunSettings
from training.stages.splits import load_split
from training.workspace import Workspace

EMOTIONS = ("happy", "sad", "calm")


def write_wav(path: Path, pitch: int, seconds: float = 2.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.3 * np.sin(2 * np.pi * 55 * 2 ** (pitch / 12) * np.arange(int(seconds * 44100)) / 44100)
    soundfile.write(path, wave, 44100, format="WAV", subtype="PCM_16")


def write_mid(path: Path, pitch: int, notes: int = 8, ticks_per_beat: int = 480, delay: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = mido.MidiFile(ticks_per_beat=ticks_per_beat)
    track = mido.MidiTrack()
    file.tracks.append(track)
    for n in range(notes):
        track.append(mido.Message("note_on", note=40 + pitch + n, velocity=80, time=delay))
        track.append(mido.Message("note_off", note=40 + pitch + n, velocity=0, time=240))
    file.save(path)


def make_corpus(root: Path, songs: int = 9) -> Path:
    for n in range(songs):
        folder = EMOTIONS[n % 3]
        write_wav(root / "audio" / folder / f"t{n}.WAV", n)
        write_mid(root / "midi" / folder / f"t{n}.Mid", n)
    return root


def job(root: Path, out: Path | None = None, *, seed: int = 42, workers: int = 2, say=lambda _: None, **options) -> Job:
    """A job for `prepare` on the corpus in `root`; options are those of music and of the verb. Its recordings are not
    of its scores, so they are not aligned unless `no_align` is False."""
    named = {"audio_root": root / "audio", "midi_root": root / "midi", "val_split": 0.2, "no_align": True, **options}
    return Job(Workspace(out or root / "out"), named, seed, workers, say)


def run(root: Path, **options):
    messages = []
    summary = prepare(job(root, say=messages.append, **options))
    summary.output = "\n".join(messages)
    return summary


def rows(root: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (root / "out/data/manifests" / f"{name}.jsonl").read_text().splitlines()]


class PairRecipe(Stepped):
    """The part of a recipe that `prepare` needs."""

    family, title, manifest, settings_type = "spectocloud", "Spectocloud", "spectocloud", RunSettings
    build = counts = losses = validate = dataset = None
    __abstractmethods__ = frozenset()

    def encoders(self):
        return {"audio_path": LOGMEL, "midi_path": NOTES}

    def check_row(self, row):
        if row["emotion"][0] == 0.123:
            raise ValueError("refused by the family")


class ScoreRecipe(PairRecipe):
    family, title, manifest = "midi_generator", "MIDI generator", "midi"

    def encoders(self):
        return {"midi_path": TOKENS}


ScoreRecipe.__abstractmethods__ = frozenset()


def recipe(kind=PairRecipe, **data) -> Stepped:
    return kind(RunSettings(data=Data(**data)))


def split(root: Path, which="train", kind=PairRecipe, data=None, **options):
    messages = []
    out = load_split(
        recipe(kind, **(data or {})), Workspace(root / "out"), which, say=messages.append, workers=2, options=options
    )
    return out, "\n".join(messages)
