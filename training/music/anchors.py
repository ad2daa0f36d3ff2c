"""The hundred fixed points of musical space that draw lightning: what each stands for, and where it lies.

Each anchor names two of the five musical parameters of a sub-frame and the values it stands for; the three others are
at REST. Its place in (y, z) is the lifeline's own formula of those five values.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

#: The musical parameters of a sub-frame, each in [0, 1]; the order of every array of them.
PARAMETERS = ("pitch", "range", "velocity", "density", "tension")
#: What a parameter is where an anchor does not name it: the middle of ordinary music.
REST = {"pitch": 0.5, "range": 0.35, "velocity": 0.6, "density": 0.4, "tension": 0.35}
#: z of the lifeline = the sum of weight * parameter, in the order of PARAMETERS.
Z_WEIGHTS = np.array([0.0, 0.20, 0.35, 0.15, 0.30])


@dataclass(frozen=True)
class Family:
    """Anchors on a grid over two parameters."""

    name: str
    charge: float
    named: tuple[str, str]
    values: tuple[tuple[float, ...], tuple[float, ...]]


FAMILIES = (
    # registers from bass to treble x consonance to cluster
    Family("harmony", 1.2, ("pitch", "tension"), ((0.15, 0.32, 0.48, 0.64, 0.82), (0.0, 0.15, 0.3, 0.5, 0.7, 0.95))),
    # held notes to runs x light to accented
    Family("rhythm", 1.0, ("density", "velocity"), ((0.08, 0.25, 0.45, 0.7, 0.95), (0.25, 0.5, 0.75, 1.0))),
    # pp to fff x registers
    Family("dynamics", 0.8, ("velocity", "pitch"), ((0.15, 0.35, 0.55, 0.75, 0.95), (0.2, 0.4, 0.6, 0.8))),
    # one register to the whole keyboard, which partials blend x dark to bright
    Family("timbre", 0.9, ("range", "pitch"), ((0.0, 0.25, 0.5, 0.75, 1.0), (0.25, 0.45, 0.6, 0.75))),
    # one line to a wide weave x sparse or busy
    Family("texture", 0.7, ("range", "density"), ((0.05, 0.3, 0.55, 0.75, 0.95), (0.2, 0.7))),
)


def _lay_out() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values, named, family = [], [], []
    for index, each in enumerate(FAMILIES):
        columns = [PARAMETERS.index(name) for name in each.named]
        for pair in product(*each.values):
            whole = [REST[name] for name in PARAMETERS]
            for column, value in zip(columns, pair, strict=True):
                whole[column] = value
            values.append(whole)
            named.append(columns)
            family.append(index)
    return np.array(values, np.float64), np.array(named), np.array(family)


def z_of(parameters: np.ndarray) -> np.ndarray:
    """z of the lifeline for musical parameters [..., 5], summed in a fixed order."""
    z = parameters[..., 0] * Z_WEIGHTS[0]
    for column in range(1, len(PARAMETERS)):
        z = z + parameters[..., column] * Z_WEIGHTS[column]
    return z


#: [100, 5] parameter values, [100, 2] columns of PARAMETERS that the anchor names, [100] index into FAMILIES.
ANCHOR_VALUES, ANCHOR_NAMED, ANCHOR_FAMILY = _lay_out()
#: [100] how strongly an anchor charges the storm.
ANCHOR_CHARGE = np.array([FAMILIES[index].charge for index in ANCHOR_FAMILY])
#: [100, 2] places in (y, z).
ANCHORS = np.stack([ANCHOR_VALUES[:, PARAMETERS.index("pitch")], z_of(ANCHOR_VALUES)], axis=1)
