"""How much of pictures, sound and words of held-out time the bottleneck keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from training.domains.brain.evaluation.measures import BlockEstimate, left_out
from training.domains.brain.material import Rows
from training.domains.brain.regression.baselines import MEAN
from training.judgement import About, Metric, compare

if TYPE_CHECKING:
    from training.domains.brain.autoencoder.model import Autoencoder


def judge_reconstruction(model: Autoencoder, rows: Rows) -> dict[str, Metric]:
    """R2 of each modality against the mean of the training rows, with intervals by held-out blocks."""
    sums: dict[str, list[float]] = {}
    for name, begin, end in rows.held():
        for key, of in _errors(model, rows, name).items():
            sums.setdefault(key, []).append(float(of[begin:end].sum()))
    found = {f"{one}_r2": _explained(np.array(sums[one]), np.array(sums[f"{one} none"])) for one in model.modalities}
    nothing = {name: one.constant(0.0) for name, one in found.items()}
    about = {
        f"{modality}_r2": About("higher", "", f"Share of the variance of {modality} on held-out time that the "
                                "bottleneck gives back; 0 for the mean of the training rows.",
                                title=f"reconstruction R2, {modality}")
        for modality in model.modalities
    }  # fmt: skip
    return compare(about, found, {MEAN: nothing})


def _explained(error_U: np.ndarray, none_U: np.ndarray) -> BlockEstimate:
    """1 - error / error of the training mean, from the sums of both over each block."""
    some = left_out(len(error_U))
    return BlockEstimate.of(1 - error_U.sum() / none_U.sum(), 1 - (some @ error_U) / (some @ none_U))


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
