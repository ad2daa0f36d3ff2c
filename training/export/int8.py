"""Quantises weights to eight bits: a quarter of the size, and faster on a CPU. The loss of quality is measured in the
task's metrics."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from training.data.files import write_atomic
from training.errors import AthanorError, ExportError
from training.export.onnx import read_model

#: Relative change of a task metric above which an export prints a warning.
LIMIT = 0.05


def write_int8(source: Path, target: Path) -> None:
    """Quantise the matrix products of `source` (a proved fp32 file): weights to 8 bits, activations dynamically.

    Weights use 7 of the 8 bits. With all 8, the sum of two products can overflow on x86 processors without VNNI, and
    the same file would compute other numbers on another host.
    """
    model = read_model(source)
    metadata = {p.key: p.value for p in model.metadata_props} | {"precision": "int8 weights"}
    drop_stale_shapes(model)

    def quantise(partial: Path) -> None:
        quantize_dynamic(
            model,
            partial,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
        quantised = onnx.load_model(partial, load_external_data=False)
        onnx.helper.set_model_props(quantised, metadata)
        partial.write_bytes(quantised.SerializeToString(deterministic=True))

    try:
        with _quiet():
            write_atomic(target, quantise)
    except AthanorError:
        raise
    except Exception as error:
        raise ExportError(f"{source.name} cannot be quantised: {type(error).__name__}: {error}") from error


def drop_stale_shapes(model: onnx.ModelProto) -> None:
    """Delete the recorded shapes of intermediate values. The exporter's contradict those that the quantiser infers
    after it has renamed weights, and make it fail; without them it infers all shapes."""
    del model.graph.value_info[:]


@dataclass(frozen=True)
class Change:
    """The effect of int8 on the task: metrics (lower is better) of the fp32 and the int8 file on the same inputs."""

    fp32: dict[str, float]
    int8: dict[str, float]
    limit: float

    @property
    def relative(self) -> dict[str, float]:
        """Metric -> (int8 - fp32) / |fp32|; infinite where a metric is not finite or rises from zero."""
        return {name: _relative(self.fp32[name], self.int8.get(name, float("nan"))) for name in self.fp32}

    @property
    def worst(self) -> float:
        return max(self.relative.values(), default=float("inf"))

    @property
    def within(self) -> bool:
        return self.worst <= self.limit

    def to_dict(self) -> dict[str, object]:
        return {
            "fp32": self.fp32,
            "int8": self.int8,
            "relative_change": self.relative,
            "limit": self.limit,
            "within_limit": self.within,
        }

    def __str__(self) -> str:
        return ", ".join(
            f"{name} {self.fp32[name]:.4g} -> {self.int8.get(name, float('nan')):.4g} ({change:+.2%})"
            for name, change in self.relative.items()
        )


def measure(
    grade: Callable[[Mapping[str, np.ndarray], Mapping[str, np.ndarray]], dict[str, float]],
    fp32: Mapping[str, np.ndarray],
    int8: Mapping[str, np.ndarray],
    references: Mapping[str, np.ndarray],
    limit: float,
) -> Change:
    """Grade the outputs of both files. Raises ExportError if `grade` returns no metric."""
    before, after = grade(fp32, references), grade(int8, references)
    if not before:
        raise ExportError("The recipe's `grade` returns no metric, so the int8 file cannot be judged.")
    return Change({k: float(v) for k, v in before.items()}, {k: float(v) for k, v in after.items()}, limit)


def _relative(before: float, after: float) -> float:
    if not (np.isfinite(before) and np.isfinite(after)):
        return float("inf")
    return 0.0 if after == before else (after - before) / abs(before) if before else float("inf")


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress a warning about pre-processing that the quantiser logs through the root logger at every call."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
