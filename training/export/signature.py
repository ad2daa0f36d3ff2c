"""The signature of an exported graph: its inputs and outputs without the module. The receipt contains it, so that files
can be checked without the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from training.errors import ExportError
from training.graphs import Graph, Recurrence, TensorSpec


@dataclass(frozen=True)
class Signature:
    """Inputs, outputs, dynamic axes, tolerance and recurrence of a Graph, as graphs.Graph defines them. Of the start
    states of a recurrence it has only the names; the values are in the golden file."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    axes: Mapping[str, tuple[int, int]]
    tolerance: float
    recurrence: Recurrence | None = None
    start: tuple[str, ...] = ()  # state inputs that do not start from zeros

    @classmethod
    def of(cls, graph: Graph) -> Signature:
        recurrence = graph.recurrence and replace(graph.recurrence, start={})
        start = tuple(sorted(graph.recurrence.start)) if graph.recurrence else ()
        return cls(graph.name, graph.inputs, graph.outputs, dict(graph.axes), graph.tolerance, recurrence, start)

    def to_dict(self) -> dict[str, Any]:
        """The signature as JSON values."""
        out = asdict(self)
        out["axes"] = {axis: list(ends) for axis, ends in self.axes.items()}
        start = list(out.pop("start"))
        if self.recurrence:
            out["recurrence"]["start"] = start
        return out

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Signature:
        """The inverse of to_dict. Raises KeyError, TypeError or ValueError for invalid values."""
        recurrence, start = values.get("recurrence"), ()
        if recurrence:
            start = tuple(str(name) for name in recurrence.get("start", ()))
            recurrence = Recurrence(
                recurrence["full"],
                tuple(recurrence["stream"]),
                tuple((a, b) for a, b in recurrence["state"]),
                recurrence["compare"],
                int(recurrence["steps"]),
                int(recurrence.get("block", 1)),
            )
            if recurrence.block < 1:
                raise ValueError(f"a block of {recurrence.block} elements")
        return cls(
            str(values["name"]),
            tuple(_spec(v) for v in values["inputs"]),
            tuple(_spec(v) for v in values["outputs"]),
            {axis: (int(low), int(high)) for axis, (low, high) in values["axes"].items()},
            float(values["tolerance"]),
            recurrence or None,
            start,
        )

    def first_state(self, inputs: Mapping[str, np.ndarray], start: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The states before the first step: the values of `start`, repeated for every sequence of the batch, or zeros.
        Axes that are shared with `inputs`, the graph's other inputs, have the same size as there; axes that only states
        have start at their smallest size (a cache is empty).

        Raises ExportError if `start` has other states than it should, or one of another type or shape.
        """
        assert self.recurrence is not None
        states = {name for name, _ in self.recurrence.state}
        if set(start) != set(self.start) or not set(start) <= states:
            raise ExportError(
                f"{self.name} needs start values of {sorted(self.start)}; there are values of {sorted(start)}, and its "
                f"states are {sorted(states)}."
            )
        sizes = {
            axis: inputs[spec.name].shape[at]
            for spec in self.inputs
            if spec.name not in states
            for at, axis in enumerate(spec.shape)
            if isinstance(axis, str)
        }
        found = {}
        for spec in self.inputs:
            if spec.name in states:
                shape = [d if isinstance(d, int) else sizes.get(d, self.axes[d][0]) for d in spec.shape]
                given = start.get(spec.name)
                found[spec.name] = np.zeros(shape, spec.dtype) if given is None else self._given(spec, shape[0], given)
        return found

    def _given(self, spec: TensorSpec, batch: int, value: np.ndarray) -> np.ndarray:
        """A start value [...], repeated for each sequence: [batch, ...]."""
        fits = len(value.shape) == len(spec.shape) - 1 and all(
            n == d if isinstance(d, int) else self.axes[d][0] <= n <= self.axes[d][1]
            for d, n in zip(spec.shape[1:], value.shape, strict=True)
        )
        if not fits or value.dtype != spec.dtype:
            raise ExportError(
                f"{self.name}: the start value of `{spec.name}` is {value.dtype} {list(value.shape)}; without its "
                f"batch axis it must be {spec.dtype} {list(spec.shape[1:])}."
            )
        return np.ascontiguousarray(np.broadcast_to(value, (batch, *value.shape)))


def _spec(values: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(
        str(values["name"]),
        str(values["dtype"]),
        tuple(d if isinstance(d, str) else int(d) for d in values["shape"]),
        str(values.get("meaning", "")),
    )


def shape_text(spec: TensorSpec) -> str:
    """A type and shape as text: `f32 [batch, 128, 64]`."""
    short = {"float32": "f32", "int64": "i64"}.get(spec.dtype, spec.dtype)
    return f"{short} [{', '.join(str(d) for d in spec.shape)}]"
