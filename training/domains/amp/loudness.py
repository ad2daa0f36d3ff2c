"""`loudness` and `gain` in the metadata of .nam files, which players use to level captures.

neural-amp-modeler measures both on its own recording. A capture with other weights gets the file's values plus the
difference between the new and the old network on one signal, so that captures stay comparable with all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from training.domains.amp.networks.network import Network
from training.domains.amp.plucks import playing

_SECONDS, _SEED = 1.0, 0


@torch.no_grad()
def _levels(network: Network, gains: np.ndarray) -> np.ndarray:
    """RMS of the output for the test signal times each gain: float64 [gains]."""
    sound = playing(_SECONDS, network.sample_rate, _SEED)
    x = torch.from_numpy((gains[:, None] * sound).astype(np.float32)).to(next(network.parameters()))
    return network.play(x).double().square().mean(1).sqrt().cpu().numpy()


def _measured(network: Network) -> tuple[float, float]:
    """Loudness in dB, and gain between 0 (no compression) and 1: the formulas of neural-amp-modeler
    (`_metadata_loudness`, `_metadata_gain` in nam/models/base.py)."""
    levels = _levels(network, np.linspace(0.0, 1.0, 11))
    largest = levels[-1] * len(levels)
    gain = (levels.sum() - 0.5 * largest) / max(1e-12, 0.5 * largest)
    return 20 * np.log10(max(1e-12, levels[-1])), float(np.clip(gain, 0, 1))


def remeasured(metadata: Mapping[str, Any], old: Network, new: Network) -> dict[str, float]:
    """The new values of those of `loudness` and `gain` that the metadata has as numbers."""
    held = {key for key in ("loudness", "gain") if isinstance(metadata.get(key), int | float)}
    if not held:
        return {}
    (loudness, gain), (loudness_before, gain_before) = _measured(new), _measured(old)
    changed = {
        "loudness": lambda: float(metadata["loudness"] + loudness - loudness_before),
        "gain": lambda: float(np.clip(metadata["gain"] + gain - gain_before, 0, 1)),
    }
    return {key: changed[key]() for key in sorted(held)}
