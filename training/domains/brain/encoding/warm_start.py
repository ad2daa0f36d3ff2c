"""The constants of the encoding model: features, drift, and the weights at which it begins.

They are those of ridge regression of reduced rank: banded ridge of every subject, and the singular vectors of its
training predictions, which give one bottleneck for all subjects and a head for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from training.domains.brain.encoding.windows import cosines_of
from training.domains.brain.features.haemodynamics import derivative_kernel, kernel
from training.domains.brain.material import Material
from training.domains.brain.regression import baselines

if TYPE_CHECKING:
    from training.data.rows import Row


def constants_of(rows: Sequence[Row], rank: int, searches: int, seed: int) -> dict[str, np.ndarray]:
    """Features of the bank, and, for S subjects, R runs, K cosines, V voxels, F features and L lags, float32:

    drift [S, R, K, V] and spread [S, R, V]; kernels [2, L]; bottleneck [2, F, rank]; heads [S, rank, V].
    """
    material = Material.of(rows)
    linear = baselines.banded_ridge(material, seed, searches=searches)
    _, factors = baselines.reduced_rank(material, linear, rank)
    first = rows[0].values
    subjects, voxels = int(first["subjects"]), len(material.train.voxels)
    number = {row.values["subject"]: int(row.values["subject_number"]) - 1 for row in rows}
    own = factors.bottleneck.shape[1]  # fewer than `rank` if there are fewer features
    bottleneck = np.zeros((factors.bottleneck.shape[0], rank), np.float32)
    bottleneck[:, :own] = factors.bottleneck
    heads = np.zeros((subjects, rank, voxels), np.float32)
    parts = np.split(factors.heads, len(material.train.subjects), axis=1)
    for subject, part in zip(material.train.subjects, parts, strict=True):
        heads[number[subject], :own] = part
    drift, spread = normalisers_of(material, rows)
    tr = float(first["tr"])
    return material.bank.arrays() | {
        "drift": drift, "spread": spread, "kernels": np.stack([kernel(tr), derivative_kernel(tr)]).astype(np.float32),
        "bottleneck": bottleneck.reshape(2, -1, rank), "heads": heads,
    }  # fmt: skip


def normalisers_of(material: Material, rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Drift float32 [S, R, C, V] and spread float32 [S, R, V] of every subject and run of the rows' data set."""
    first = rows[0].values
    shape = int(first["subjects"]), int(first["runs"])
    number = {row.values["subject"]: int(row.values["subject_number"]) - 1 for row in rows}
    place = {row.values["run"]: int(row.values["run_number"]) - 1 for row in rows}
    voxels = len(material.train.voxels)
    drift = np.zeros((*shape, cosines_of(rows), voxels), np.float32)
    spread = np.ones((*shape, voxels), np.float32)
    for name, run in material.train.runs.items():
        for subject in run.spans:
            fitted = material.normaliser(subject, name)
            drift[number[subject], place[name], : len(fitted.drift)] = fitted.drift
            spread[number[subject], place[name]] = fitted.spread
    return drift, spread
