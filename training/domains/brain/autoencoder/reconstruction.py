"""How much of pictures, sound and words of held-out time the bottleneck keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from training.domains.brain.material import Material, Rows
from training.domains.brain.regression.baselines import MEAN
from training.judgement import About, BootstrapDraws, Metric, Resampling, compare, resample

if TYPE_CHECKING:
    from training.domains.brain.autoencoder.model import Autoencoder


def judge_reconstruction(model: Autoencoder, material: Material, rows: Rows, seed: int) -> dict[str, Metric]:
    """R2 of each modality against the mean of the training rows, drawn by held-out blocks."""
    sums: dict[str, list[tuple[float, int]]] = {}
    for name, begin, end in rows.held():
        for key, of in _errors(model, rows, name).items():
            sums.setdefault(key, []).append((float(of[begin:end].sum()), end - begin))
    blocks = Resampling(len(next(iter(sums.values()))), seed)

    def summarise(means: Mapping[str, float]) -> dict[str, float]:
        return {f"{modality}_r2": 1 - means[modality] / means[f"{modality} none"] for modality in model.modalities}

    draws = resample({key: np.array(of, np.float64) for key, of in sums.items()}, blocks, summarise)
    nothing = {
        name: BootstrapDraws(0.0, np.zeros_like(one.draws), np.zeros_like(one.without), one.estimated)
        for name, one in draws.items()
    }
    about = {
        f"{modality}_r2": About("higher", "", f"Share of the variance of {modality} on held-out time that the "
                                "bottleneck gives back; 0 for the mean of the training rows.",
                                title=f"reconstruction R2, {modality}")
        for modality in model.modalities
    }  # fmt: skip
    return compare(about, draws, {MEAN: nothing})


def _errors(model: Autoencoder, rows: Rows, run: str) -> dict[str, np.ndarray]:
    """Modality -> error of each volume of a run; "<modality> none" -> that of the training mean."""
    device = next(model.parameters()).device
    stimulus = rows.runs[run].stimulus
    bands = {
        band: torch.from_numpy(np.array(stimulus.bands[band], np.float32)).to(device) for band in model.features.bands
    }  # fmt: skip
    with torch.no_grad():
        features = model.features(bands)
        own = model.errors(model.decode(model.inner(features)), features)
        none = model.errors(torch.zeros_like(features), features)
    return {name: of.cpu().numpy() for name, of in own.items()} | {
        f"{name} none": of.cpu().numpy() for name, of in none.items()
    }
