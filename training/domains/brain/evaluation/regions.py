"""Results by region of an atlas: correlation, ceiling, and whether it is above what shifts of the prediction give."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.domains.brain import places
from training.domains.brain.bold import atlas
from training.domains.brain.bold.atlas import Regions
from training.domains.brain.evaluation import measures
from training.domains.brain.evaluation.measures import Moments
from training.domains.brain.rows import MASK_PATH, REGIONS

if TYPE_CHECKING:
    from training.data.rows import Row

LEAST_CEILING = 0.05  # below it, a share of the ceiling is a division by noise


def regions_of(rows: Sequence[Row]) -> Regions | None:
    """The regions of --atlas, if the rows were prepared with one. Raises DataError if their file is missing."""
    first = rows[0].values
    return atlas.read(places.regions_path(Path(first[MASK_PATH]))) if REGIONS in first else None


def by_region(
    regions: Regions, own: Moments, banded: Moments | None, ceiling_SV: np.ndarray | None,
    shifted: tuple[np.ndarray, np.ndarray] | None,
) -> list[dict[str, Any]]:  # fmt: skip
    """A row for each region: name, number, voxels; r with its interval (None: of too few blocks), the r of banded
    ridge, the ceiling (means over voxels and subjects), the share of it; q.

    `own`, `banded`: of the voxels of all S subjects side by side. `shifted`: Fisher's z of S x V correlations, float
    [S V], and under N shifts, [N, S V]. A region's p is that of the mean z of its voxels and subjects; shifts are the
    same for all of them, so what they share in time stays shared. q: Benjamini and Hochberg over regions.
    """
    subjects = own.p.shape[1] // len(regions.of)
    q = _q(regions, subjects, shifted)
    out = []
    for place, (name, number) in enumerate(zip(regions.names, regions.numbers, strict=True)):
        chosen = regions.voxels(place)
        every = np.tile(chosen, subjects)
        found = own.mean_of(every)
        r = found.interval()
        ceiling = None if ceiling_SV is None else float(ceiling_SV[:, chosen].mean())
        out.append({
            "name": name, "number": number, "voxels": int(chosen.sum()), "r": r.value,
            "low": r.low if found.estimated else None, "high": r.high if found.estimated else None,
            "banded_ridge": None if banded is None else float(banded.correlations()[every].mean()),
            "ceiling": ceiling,
            "share": None if ceiling is None or ceiling < LEAST_CEILING else r.value / ceiling,
            "q": None if q is None else float(q[place]),
        })  # fmt: skip
    return out


def _q(
    regions: Regions, subjects: int, shifted: tuple[np.ndarray, np.ndarray] | None
) -> np.ndarray | None:
    if shifted is None:
        return None
    every = [np.flatnonzero(np.tile(regions.voxels(place), subjects)) for place in range(len(regions.names))]
    own, null = shifted
    means = np.array([own[chosen].mean() for chosen in every])
    return measures.false_discovery(measures.pooled_p(means, np.stack([null[:, of].mean(1) for of in every], 1)))
