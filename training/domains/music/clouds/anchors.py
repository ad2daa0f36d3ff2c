"""The 100 anchors: fixed points of musical space that the "lightning" of a cloud strikes.

An anchor fixes three or four of the five musical parameters of a sub-frame; the others are at REST. Its position in
(y, z) follows from all five by the formula of the lifeline. Music near an anchor adds energy to the "storm" (see
cloud.py), which discharges as lightning when it exceeds 1; so the density of the anchors sets how often that happens:
measured, 1.1 to 1.5 times a window in tense chamber music and chorales at velocity 110 and arousal .7 to .8, 1.2 times
in composed angry music, never at an arousal of 0 or less.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

#: The musical parameters of a sub-frame, each in [0, 1]; the order of every array of them.
PARAMETERS = ("pitch", "range", "velocity", "density", "tension")
#: Value of a parameter that an anchor does not fix: typical of ordinary music.
REST = {"pitch": 0.5, "range": 0.35, "velocity": 0.6, "density": 0.4, "tension": 0.35}
#: z of the lifeline = the sum of weight * parameter, in the order of PARAMETERS.
Z_WEIGHTS = np.array([0.0, 0.20, 0.35, 0.15, 0.30])


@dataclass(frozen=True)
class Family:
    """Anchors on a grid over the parameters that they fix: parameter -> the values on its axis."""

    name: str
    charge: float
    grid: dict[str, tuple[float, ...]]


#: Only "dynamics" fixes velocity: the storm's energy has a separate factor for it, so that it rises with loudness.
FAMILIES = (
    # register x consonant, coloured, dissonant x still or moving, openly voiced
    Family(
        "harmony",
        1.2,
        {"pitch": (0.1, 0.3, 0.5, 0.7, 0.9), "tension": (0.0, 0.45, 0.95), "density": (0.2, 0.7), "range": (0.5,)},
    ),
    # held notes to runs x plain or rough chords x in the bass or above, of some width
    Family(
        "rhythm",
        1.0,
        {"density": (0.05, 0.25, 0.45, 0.7, 0.95), "tension": (0.15, 0.8), "pitch": (0.2, 0.6), "range": (0.6,)},
    ),
    # pp, mp, mf, f, fff x consonant or dissonant x calm or busy
    Family("dynamics", 0.8, {"velocity": (0.15, 0.4, 0.6, 0.8, 1.0), "tension": (0.2, 0.7), "density": (0.15, 0.6)}),
    # dark to bright x one register or a blend of many x clear or beating partials, in motion
    Family(
        "timbre",
        0.9,
        {"pitch": (0.15, 0.35, 0.5, 0.65, 0.85), "range": (0.0, 0.6), "tension": (0.15, 0.75), "density": (0.5,)},
    ),
    # one line to a wide weave x sparse or busy, as rough as four voices are
    Family("texture", 0.7, {"range": (0.05, 0.3, 0.55, 0.75, 0.95), "density": (0.15, 0.6), "tension": (0.45,)}),
)


def _lay_out() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values, named, family = [], [], []
    for index, each in enumerate(FAMILIES):
        for point in product(*each.grid.values()):
            of = dict(zip(each.grid, point, strict=True))
            values.append([of.get(name, REST[name]) for name in PARAMETERS])
            named.append([name in of for name in PARAMETERS])
            family.append(index)
    return np.array(values, np.float64), np.array(named), np.array(family)


def z_of(parameters: np.ndarray) -> np.ndarray:
    """z of the lifeline for musical parameters [..., 5], summed in a fixed order."""
    z = parameters[..., 0] * Z_WEIGHTS[0]
    for column in range(1, len(PARAMETERS)):
        z = z + parameters[..., column] * Z_WEIGHTS[column]
    return z


#: [100, 5] parameter values, [100, 5] which of them the anchor fixes, [100] index into FAMILIES.
ANCHOR_VALUES, ANCHOR_NAMED, ANCHOR_FAMILY = _lay_out()
#: [100] how strongly an anchor charges the storm.
ANCHOR_CHARGE = np.array([FAMILIES[index].charge for index in ANCHOR_FAMILY])
#: [100, 2] positions in (y, z).
ANCHORS = np.stack([ANCHOR_VALUES[:, PARAMETERS.index("pitch")], z_of(ANCHOR_VALUES)], axis=1)
