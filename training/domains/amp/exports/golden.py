"""Golden sounds: a tone, guitar and noise, before and after the exported capture, to test other programs with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.domains.amp.networks.network import Network
from training.domains.amp.plucks import playing
from training.errors import ExportError
from training.graphs import Artefact

NAME = "sounds"
SECONDS = 1.0
_TONE, _LEVEL, _SEED = 1318.51, 10 ** (-12 / 20), 7  # Hz (the 24th fret of the upper string), amplitude
#: A 24-bit file has steps of 2^-23, and is half a step from its numbers.
_STEP = 2.0**-23


def inputs(rate: int) -> dict[str, np.ndarray]:
    """Name -> float32 [SECONDS * rate], full scale 1."""
    time = np.arange(int(SECONDS * rate)) / rate
    noise = np.random.default_rng(_SEED).standard_normal(len(time))
    return {
        "tone": (_LEVEL * np.sin(2 * np.pi * _TONE * time)).astype(np.float32),
        "guitar": playing(SECONDS, rate, _SEED),
        "noise": (0.1 * noise).clip(-1, 1).astype(np.float32),
    }


def artefact(network: Network) -> Artefact:
    """A folder with NAME_in.wav, NAME_out.wav (24 bits) and golden.npz (float32) of each sound."""
    return Artefact(NAME, lambda folder: _write(network, folder), "sounds", {"rate": network.sample_rate})


@torch.no_grad()
def _write(network: Network, folder: Path) -> None:
    import soundfile

    folder.mkdir(parents=True)
    arrays: dict[str, np.ndarray] = {}
    for name, sound in inputs(network.sample_rate).items():
        x = torch.from_numpy(sound)[None].to(next(network.parameters()))
        out = network.play(x)[0].float().cpu().numpy()
        # files of integers end at full scale; louder captures are turned down there, by a factor in golden.npz
        scale = np.float32(max(1.0, float(np.abs(out).max()) / 0.999))
        arrays |= {f"{name}_in": sound, f"{name}_out": out, f"{name}_scale": scale}
        soundfile.write(folder / f"{name}_in.wav", sound, network.sample_rate, "PCM_24")
        soundfile.write(folder / f"{name}_out.wav", out / scale, network.sample_rate, "PCM_24")
    np.savez(folder / "golden.npz", **arrays)


def prove_sounds(folder: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs are those that this version makes, and every .wav holds the numbers of golden.npz."""
    import soundfile

    worst = 0.0
    with np.load(folder / "golden.npz") as arrays:
        for name, sound in inputs(int(about["rate"])).items():
            if not np.allclose(arrays[f"{name}_in"], sound, atol=1e-6):
                raise ExportError(f"{folder.name}: {name}_in is not the sound that this version makes.")
            for end, scale in (("in", 1.0), ("out", arrays[f"{name}_scale"])):
                found, rate = soundfile.read(folder / f"{name}_{end}.wav", dtype="float32")
                wanted = arrays[f"{name}_{end}"] / scale
                if rate != about["rate"] or found.shape != wanted.shape or not np.isfinite(wanted).all():
                    raise ExportError(f"{folder.name}/{name}_{end}.wav has another rate or length than golden.npz.")
                worst = max(worst, float(np.abs(found - wanted).max()))
    if not worst <= _STEP:
        raise ExportError(f"{folder.name}: a .wav differs from golden.npz by {worst:.2g}.")
    return {"differs": worst}
