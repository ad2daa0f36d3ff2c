"""Samples of an export: a sweep and held-out guitar, before and after, and spectrograms of the sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.domains.amp.families import SIDES
from training.domains.amp.guitar import clip
from training.domains.amp.networks.network import Network
from training.domains.amp.sounds import Heard, heard, spectrogram, sweep

if TYPE_CHECKING:
    from training.data.rows import Row

_CLIPS = 3  # of the held-out guitar, one after the other


def write_samples(teacher: Network, student: Network, held_out: Sequence[Row], folder: Path) -> list[Path]:
    """SOUND_SIDE.flac for the sounds sweep and guitar and the SIDES (16 bits), and sweep_SIDE.png; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    rate = student.sample_rate
    sounds = {"sweep": sweep(rate)}
    if len(held_out):
        sounds["guitar"] = np.concatenate([clip(row, rate) for row in list(held_out)[:_CLIPS]])
    paths = []
    for name, sound in sounds.items():
        both = heard(teacher, student, sound)
        paths += [_flac(folder / f"{name}_{side}.flac", getattr(both, side), rate) for side in SIDES]
        if name == "sweep":
            paths += _pictures(folder, both)
    return paths


def _flac(path: Path, sound: np.ndarray, rate: int) -> Path:
    import soundfile

    soundfile.write(path, sound.clip(-1, 1), rate, "PCM_16", format="FLAC")
    return path


def _pictures(folder: Path, both: Heard) -> list[Path]:
    from matplotlib import image

    paths = []
    for side in ("before", "after"):
        path = folder / f"sweep_{side}.png"
        picture = spectrogram(getattr(both, side), both.rate)
        # without the version of matplotlib, so that the same samples give the same bytes
        image.imsave(path, picture, cmap="magma", vmin=0, vmax=255, metadata={"Software": None})
        paths.append(path)
    return paths
