"""The fold models and the final model of a family of trees: what is saved, and what is kept beside it in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from training.domains.market.trees.forest import Forest, softmax
from training.domains.market.trees.settings import Trees


@dataclass(frozen=True, eq=False)
class Fit:
    """What one model is fitted on: its decisions, the library's table of them, and the margins of the trees so far."""

    features: np.ndarray  # float32 [N, F], of all decisions: one array, a mapped file, for all models
    rows: np.ndarray  # int64 [n]: which of them
    table: Any
    margins: np.ndarray  # float64 [n, C], advanced in place


@dataclass(frozen=True, eq=False)
class Known:
    """A split on which the final model is scored: the margins of the trees so far."""

    features: np.ndarray  # float32 [N, F], as above
    rows: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    margins: np.ndarray  # float64 [n, C], advanced in place


@dataclass(frozen=True, eq=False)
class Boosted:
    """K fold models and, last, the final one, after the same number of rounds. `fits` and `known` are in memory
    alone."""

    prior: np.ndarray  # float64 [K+1, C]: log shares of the classes, the margins before the first tree
    forests: tuple[Forest, ...]  # K+1
    rounds: int
    trees: Trees  # the settings that it grows with: those of the run, or the best of a search
    sample: np.ndarray  # float32 [n, F]: some decisions, with which exported files are compared
    fits: tuple[Fit, ...] = ()
    known: dict[str, Known] = field(default_factory=dict)

    def margins(self, features: np.ndarray, number: int, rows: np.ndarray | None = None) -> np.ndarray:
        """The margins, float64 [n, C], of model `number` for the `rows` (default: all) of features float32 [N, F]."""
        out = np.repeat(self.prior[number][None], len(features) if rows is None else len(rows), 0)
        self.forests[number].add_to(out, np.ascontiguousarray(features), rows)
        return out

    def predict(self, number: int, features: np.ndarray, run: np.ndarray, decided: np.ndarray) -> np.ndarray:
        """The probabilities float32 [N, C] of one of the models; -1: the final one. Trees look at one decision, so
        `run` and `decided` do not matter."""
        return softmax(self.margins(features, number))

    def dump(self) -> bytes:
        parts = {f"{name}.{number}": array for number, forest in enumerate(self.forests)
                 for name, array in forest.arrays().items()}  # fmt: skip
        trees = np.frombuffer(self.trees.model_dump_json().encode(), np.uint8)
        more = {"prior": self.prior, "rounds": np.array([self.rounds], np.int64), "sample": self.sample}
        return save(parts | more | {"trees": trees})

    @classmethod
    def loaded(cls, content: bytes) -> Boosted:
        arrays = load(content)
        forests = []
        for number in range(len(arrays["prior"])):
            own = {name.partition(".")[0]: array for name, array in arrays.items() if name.endswith(f".{number}")}
            forests.append(Forest.of(own))
        trees = Trees.model_validate_json(arrays["trees"].tobytes())
        return cls(arrays["prior"], tuple(forests), int(arrays["rounds"][0]), trees, arrays["sample"])
