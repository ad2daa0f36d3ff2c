"""Short songs of random notes, and their sound (decaying tones of five partials)."""

import numpy as np

from training.config import Layer, build
from training.data.manifest import Row
from training.domains.music.audio import SAMPLE_RATE, log_mel
from training.domains.music.midi.notes import NOTE
from training.domains.music.spectocloud.config import SpectocloudConfig

SMALL = {
    "model": {"width": 32, "layers": 1, "heads": 2, "mlp_ratio": 2, "particle_width": 8, "dropout": 0.0},
    "windows": {"per_song": 4, "validation_per_song": 2},
}
EMOTIONS = ([0.8, 0.6, 0.7], [-0.7, -0.8, 0.3], [-0.8, 0.9, 0.9])


def make_notes(rng: np.random.Generator, seconds: float, rate: float = 4.0) -> np.ndarray:
    count = int(seconds * rate)
    notes = np.zeros(count, NOTE)
    notes["onset"] = np.sort(rng.uniform(0, seconds - 0.5, count))
    notes["duration"] = rng.uniform(0.2, 0.6, count)
    notes["pitch"] = rng.integers(45, 80, count)
    notes["velocity"] = rng.integers(40, 120, count)
    return np.sort(notes, order=("onset", "program", "pitch"))


def make_sound(notes: np.ndarray, seconds: float) -> np.ndarray:
    wave = np.zeros(int(seconds * SAMPLE_RATE), np.float32)
    for note in notes:
        t = np.arange(int(note["duration"] * SAMPLE_RATE)) / SAMPLE_RATE
        hertz = 440 * 2 ** ((int(note["pitch"]) - 69) / 12)
        tone = sum(np.sin(2 * np.pi * hertz * n * t) / n**2 for n in range(1, 6))
        at = int(note["onset"] * SAMPLE_RATE)
        wave[at : at + len(t)] += (note["velocity"] / 127 * 0.2 * np.exp(-3 * t) * tone)[: len(wave) - at]
    return wave


def make_row(number: int, seconds: float = 5.0, **values) -> Row:
    notes = make_notes(np.random.default_rng(number), seconds)
    logmel = log_mel(make_sound(notes, seconds)).astype(np.float16)
    values = {"id": f"song{number}", "emotion": EMOTIONS[number % 3]} | values
    return Row(
        values, f"manifest.jsonl:{number + 1}", {"audio_path": {"logmel": logmel}, "midi_path": {"notes": notes}}
    )


def make_settings(**sections) -> SpectocloudConfig:
    return build(SpectocloudConfig, Layer(SMALL), Layer(sections))
