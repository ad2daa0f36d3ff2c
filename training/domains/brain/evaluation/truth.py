"""The truth of a simulated data set: what could be known at best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.domains.brain.demo.making import TRUTH
from training.domains.brain.features.haemodynamics import with_response
from training.domains.brain.material import Material
from training.domains.brain.regression.baselines import Linear, plain_ridge


@dataclass(frozen=True, eq=False)
class Truth:
    """The drives of the film, and the exact ceiling of each subject and voxel."""

    drives_TD: np.ndarray  # float64
    ceiling_SV: np.ndarray  # float64; 0: the voxel depends on nothing

    def oracle(self, material: Material) -> Linear:
        """Ridge on the true drives, with the response and its derivative: what so many training rows can teach."""
        features = {
            name: with_response(self.drives_TD[: run.volumes].astype(np.float32), run.tr)
            for name, run in material.train.runs.items()
        }
        return plain_ridge(material, features)

    def beside(self, r_SV: np.ndarray, subjects: Sequence[str]) -> dict[str, float]:
        """Correlations beside the exact ceiling: of voxels that depend on the film, and of those that do not."""
        responsive = self.ceiling_SV[: len(subjects)] > 0
        if r_SV.shape != responsive.shape:
            return {}
        out = {"null_r": float(r_SV[~responsive].mean())} if (~responsive).any() else {}
        if responsive.any():
            out |= {
                "responsive_r": float(r_SV[responsive].mean()),
                "exact_ceiling": float(self.ceiling_SV[: len(subjects)][responsive].mean()),
            }
        return out


def truth_of(bold: Path) -> Truth | None:
    """The truth beside the folder of a simulated BOLD file; None for other data."""
    path = bold.parent.parent / TRUTH
    if not path.is_file():
        return None
    with np.load(path) as arrays:
        return Truth(arrays["drives"], arrays["ceiling"])
