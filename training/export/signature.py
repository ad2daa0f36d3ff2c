"""What an exported graph takes and gives, apart from the module behind it: the part of a Graph that the receipt keeps,
so that files can be checked without the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from training.recipe import Graph, Recurrence, TensorSpec


@dataclass(frozen=True)
class Signature:
    """Inputs, outputs, dynamic axes, tolerance and recurrence of a Graph, as recipe.Graph defines them."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    axes: Mapping[str, tuple[int, int]]
    tolerance: float
    recurrence: Recurrence | None = None

    @classmethod
    def of(cls, graph: Graph) -> Signature:
        return cls(graph.name, graph.inputs, graph.outputs, dict(graph.axes), graph.tolerance, graph.recurrence)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        out = asdict(self)
        out["axes"] = {axis: list(ends) for axis, ends in self.axes.items()}
        return out

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Signature:
        """The inverse of to_dict. Raises KeyError or TypeError for what is not one."""
        recurrence = values.get("recurrence")
        if recurrence:
            recurrence = Recurrence(
                recurrence["full"],
                tuple(recurrence["stream"]),
                tuple((a, b) for a, b in recurrence["state"]),
                recurrence["compare"],
                int(recurrence["steps"]),
            )
        return cls(
            str(values["name"]),
            tuple(_spec(v) for v in values["inputs"]),
            tuple(_spec(v) for v in values["outputs"]),
            {axis: (int(low), int(high)) for axis, (low, high) in values["axes"].items()},
            float(values["tolerance"]),
            recurrence or None,
        )

    def empty_state(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What a recurrence starts from: zeros, an axis that only states have being at its smallest (no past yet);
        shared axes take their size from `inputs`, the graph's other inputs."""
        assert self.recurrence is not None
        states = {name for name, _ in self.recurrence.state}
        sizes = {
            axis: inputs[spec.name].shape[at]
            for spec in self.inputs
            if spec.name not in states
            for at, axis in enumerate(spec.shape)
            if isinstance(axis, str)
        }
        return {
            spec.name: np.zeros(
                [d if isinstance(d, int) else sizes.get(d, self.axes[d][0]) for d in spec.shape], spec.dtype
            )
            for spec in self.inputs
            if spec.name in states
        }


def _spec(values: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(
        str(values["name"]),
        str(values["dtype"]),
        tuple(d if isinstance(d, str) else int(d) for d in values["shape"]),
        str(values.get("meaning", "")),
    )


def shape_text(spec: TensorSpec) -> str:
    """`f32 [batch, 128, 64]`."""
    short = {"float32": "f32", "int64": "i64"}.get(spec.dtype, spec.dtype)
    return f"{short} [{', '.join(str(d) for d in spec.shape)}]"
