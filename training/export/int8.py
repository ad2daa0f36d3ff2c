"""Eight-bit weights: a quarter of the size, faster on a CPU, and not quite the same model; by how much is measured in
the task's own metric."""

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

#: Relative change of a task metric above which int8 is called out.
LIMIT = 0.05


def write_int8(source: Path, target: Path) -> None:
    """Quantise the matrix products of `source` (a proven fp32 file) to 8-bit weights, activations scaled as they come.

    Weights take 7 of the 8 bits: with all 8, x86 processors without VNNI overflow in pairs of products, and the same
    file would give other numbers on another host.
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
    """Forget the shapes of intermediate values. Those that the exporter leaves behind contradict what the quantiser
    infers after it has renamed weights, and make it fail; it infers its own."""
    del model.graph.value_info[:]


@dataclass(frozen=True)
class Change:
    """What int8 costs the task: metrics (lower is better) of the fp32 and of the int8 file on the same exam."""

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
    """Grade the outputs of both files. Raises ExportError where there is nothing to grade by."""
    before, after = grade(fp32, references), grade(int8, references)
    if not before:
        raise ExportError("The exam gives no metric; int8 cannot be judged.")
    return Change({k: float(v) for k, v in before.items()}, {k: float(v) for k, v in after.items()}, limit)


def _relative(before: float, after: float) -> float:
    if not (np.isfinite(before) and np.isfinite(after)):
        return float("inf")
    return 0.0 if after == before else (after - before) / abs(before) if before else float("inf")


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser advises pre-processing through the root logger at every call."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
