"""Trees as plain arrays: what the three libraries grow is converted to one form, which is saved, predicts, and is
exported. So a model does not depend on a version of the library that grew it, and its bytes hold no date or name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.domains.market.compiling import compiled

LEAF = -1
DTYPES = {"roots": np.int32, "feature": np.int32, "threshold": np.float32, "left": np.int32, "right": np.int32,
          "value": np.float32}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Forest:
    """T trees with M nodes together. An inner node sends x to the left if x[feature] <= threshold, in float32.

    Features must be finite; the libraries' treatment of missing values is not represented.
    """

    roots: np.ndarray  # int32 [T]: index of each tree's first node
    feature: np.ndarray  # int32 [M]; LEAF: the node is a leaf
    threshold: np.ndarray  # float32 [M]
    left: np.ndarray  # int32 [M]: index of the child
    right: np.ndarray  # int32 [M]
    value: np.ndarray  # float32 [M, C]: what a leaf adds to the margins of the C classes; 0 for inner nodes

    @classmethod
    def empty(cls, classes: int = 3) -> Forest:
        return cls(**{name: np.zeros((0, classes) if name == "value" else 0, of) for name, of in DTYPES.items()})

    @classmethod
    def join(cls, parts: Sequence[Forest]) -> Forest:
        """The trees of all parts, in their order."""
        shifts = np.cumsum([0, *(len(part.feature) for part in parts[:-1])]).astype(np.int32)
        pairs = list(zip(parts, shifts, strict=True))
        moved = {name: np.concatenate([getattr(part, name) + shift for part, shift in pairs])
                 for name in ("roots", "left", "right")}  # fmt: skip
        same = {name: np.concatenate([getattr(part, name) for part in parts])
                for name in ("feature", "threshold", "value")}  # fmt: skip
        return cls(**moved, **same)

    def arrays(self) -> dict[str, np.ndarray]:
        """The fields, as they are stored."""
        return {name: getattr(self, name) for name in DTYPES}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Forest:
        """The inverse of `arrays`."""
        return cls(**{name: arrays[name] for name in DTYPES})

    def add_to(self, margins: np.ndarray, features: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Add what each tree gives for the `rows` (int64 [n]; default: all) of `features` (float32 [N, F]) to `margins`
        (float64 [n, C]), tree by tree.

        The order of the additions is that of the trees, so adding two forests one after the other gives the same bits
        as adding their `join`."""
        features, rows = np.asarray(features), np.arange(len(features)) if rows is None else rows
        _add(self.roots, self.feature, self.threshold, self.left, self.right, self.value, features, rows, margins)


@compiled
def _add(roots, feature, threshold, left, right, value, features, rows, margins):
    for root in roots:
        for at in range(len(rows)):
            row, node = rows[at], root
            while feature[node] >= 0:
                node = left[node] if features[row, feature[node]] <= threshold[node] else right[node]
            for c in range(margins.shape[1]):
                margins[at, c] += value[node, c]


def softmax(margins: np.ndarray) -> np.ndarray:
    """Margins [..., C] -> probabilities float32 [..., C], computed in float64."""
    exponent = np.exp(margins - margins.max(-1, keepdims=True))
    return (exponent / exponent.sum(-1, keepdims=True)).astype(np.float32)


def log_loss(margins: np.ndarray, label: np.ndarray, weight: np.ndarray) -> float:
    """The weighted mean of -log p(label): margins float64 [N, C], label int [N], weight [N]."""
    margins = margins - margins.max(-1, keepdims=True)
    rows = np.log(np.exp(margins).sum(-1)) - margins[np.arange(len(label)), label]
    return float(np.average(rows, weights=weight))


def floor32(threshold: np.ndarray) -> np.ndarray:
    """The largest float32 not above each float64: for a float32 x, x <= threshold is x <= floor32(threshold)."""
    near = threshold.astype(np.float32)
    return np.where(near.astype(np.float64) > threshold, np.nextafter(near, np.float32(-np.inf)), near)
