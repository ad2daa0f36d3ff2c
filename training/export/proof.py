"""Compares an exported file, run by ONNX Runtime, with its model, on other inputs than those it was traced with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from training import threads
from training.errors import ExportError
from training.export.onnx import read_model
from training.export.ready import is_ready, reference_run
from training.export.signature import Signature
from training.export.trace import example_sizes, plain_attention
from training.graphs import Graph

Named = dict[str, np.ndarray]
Run = Callable[[Mapping[str, np.ndarray]], Named]

FRESH_SEED = 7_001  # the first seed for the inputs of trials; the tracer used seed 0


@dataclass(frozen=True)
class Trial:
    """One comparison: the axis sizes, and the error of each output, max |file - model| / max |model|."""

    sizes: dict[str, int]
    errors: dict[str, float]
    failure: str = ""  # why the outputs could not be compared

    @property
    def worst(self) -> float:
        return float("inf") if self.failure else max(self.errors.values(), default=float("inf"))

    def to_dict(self) -> dict[str, object]:
        out: dict[str, object] = {"sizes": self.sizes, "error": {k: float(v) for k, v in self.errors.items()}}
        return out | ({"failure": self.failure} if self.failure else {})


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    """max |got - want| / max |want|; infinite where shapes or types differ or either holds a NaN or an infinity."""
    if got.shape != want.shape or got.dtype != want.dtype:
        return float("inf")
    if want.size == 0:
        return 0.0
    got64, want64 = got.astype(np.float64), want.astype(np.float64)
    if not (np.isfinite(got64).all() and np.isfinite(want64).all()):
        return float("inf")
    difference, scale = np.abs(got64 - want64).max(), np.abs(want64).max()
    return 0.0 if difference == 0 else float(difference / scale) if scale else float("inf")


def session(path: Path) -> Run:
    """An ONNX file as a function of named arrays.

    Raises ExportError for a file that ONNX Runtime refuses, or that refers to external data.
    """
    model = read_model(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # By default ONNX Runtime starts a thread for every core that the host shows, binds each to its core, and lets it
    # spin while it waits.
    options.intra_op_num_threads, options.inter_op_num_threads = threads.count(), 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        runtime = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001  (ONNX Runtime's errors share no base; each means: refused)
        raise ExportError(f"ONNX Runtime refuses {path.name}: {_line(error)}") from None
    names = [output.name for output in runtime.get_outputs()]

    def run(inputs: Mapping[str, np.ndarray]) -> Named:
        return dict(zip(names, runtime.run(names, dict(inputs)), strict=True))

    return run


def module_run(graph: Graph) -> Run:
    """The torch module of a graph as a function of named arrays."""

    def run(inputs: Mapping[str, np.ndarray]) -> Named:
        with plain_attention():
            given = graph.module(*(torch.from_numpy(np.ascontiguousarray(inputs[s.name])) for s in graph.inputs))
        values = (given,) if isinstance(given, torch.Tensor) else tuple(given)
        if len(values) != len(graph.outputs):
            raise ExportError(f"{graph.name} names {len(graph.outputs)} outputs; its module returns {len(values)}.")
        return {spec.name: v.detach().numpy() for spec, v in zip(graph.outputs, values, strict=True)}

    return run


def truth(graph: Graph) -> Run:
    """What a graph's file is compared with: its torch module, or the numpy reference of ready-made ONNX."""
    return reference_run(graph) if is_ready(graph) else module_run(graph)


def trial_inputs(graph: Graph) -> list[tuple[dict[str, int], Named]]:
    """The axis sizes of every trial, with new inputs of those sizes.

    Raises ExportError if no trial has another size of an axis than the tracer used: an axis whose size became a
    constant in the file would not be noticed.
    """
    seen = {} if is_ready(graph) else example_sizes(graph)
    for axis in graph.axes:
        tried = {trial[axis] for trial in graph.trials}
        if len(tried - {seen.get(axis)}) < 2:
            raise ExportError(
                f"{graph.name}: its trials have only the size {sorted(tried)} of axis `{axis}`; they need two sizes or "
                "more."
            )
    return [(dict(sizes), _example(graph, sizes, FRESH_SEED + at)) for at, sizes in enumerate(graph.trials)]


def _example(graph: Graph, sizes: Mapping[str, int], seed: int) -> Named:
    """Inputs by name. Raises ExportError if the example has another number of arrays than the graph has inputs."""
    arrays = graph.example(sizes, seed)
    if len(arrays) != len(graph.inputs):
        raise ExportError(f"{graph.name} names {len(graph.inputs)} inputs; its example has {len(arrays)}.")
    return {spec.name: array for spec, array in zip(graph.inputs, arrays, strict=True)}


def compare(run: Run, cases: Sequence[tuple[Mapping[str, int], Named, Named]]) -> list[Trial]:
    """Run cases of (sizes, inputs, expected outputs). An error of the runtime becomes the failure of that trial."""
    trials = []
    for sizes, inputs, expected in cases:
        try:
            got = run(inputs)
        except Exception as error:  # noqa: BLE001  (a graph that cannot run at this size fails the trial)
            trials.append(Trial(dict(sizes), {}, _line(error)))
            continue
        missing = np.empty(0)
        trials.append(
            Trial(dict(sizes), {k: relative_error(got.get(k, missing), want) for k, want in expected.items()})
        )
    return trials


def step_through(
    run: Run, signature: Signature, inputs: Mapping[str, np.ndarray], start: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Run a one-step graph along complete sequences. `inputs`: those of the full graph, with streams [B, S, ...] of S =
    steps x block elements. `start`: state input -> value before the first step, without the batch axis. Returns the
    compared output of all steps, concatenated along axis 1. Raises ExportError if S is not a multiple of the block."""
    recurrence = signature.recurrence
    assert recurrence is not None
    fixed = {spec.name: inputs[spec.name] for spec in signature.inputs if spec.name in inputs}
    length, block = fixed[recurrence.stream[0]].shape[1], recurrence.block
    if length % block:
        raise ExportError(f"{signature.name} takes {block} elements per step; {length} elements are not a multiple.")

    def elements(at: int) -> Named:
        return {name: np.ascontiguousarray(fixed[name][:, at : at + block]) for name in recurrence.stream}

    state = signature.first_state({**fixed, **elements(0)}, start)
    pieces = []
    for at in range(0, length, block):
        outputs = run({**fixed, **elements(at), **state})
        state = {taken: outputs[given] for taken, given in recurrence.state}
        pieces.append(outputs[recurrence.compare])
    return np.concatenate(pieces, 1)


def stepped_trial(
    run: Run,
    signature: Signature,
    inputs: Mapping[str, np.ndarray],
    expected: np.ndarray,
    start: Mapping[str, np.ndarray] | None = None,
) -> Trial:
    """Compare a one-step graph with the output of the full graph for the same sequences."""
    recurrence = signature.recurrence
    assert recurrence is not None
    length = inputs[recurrence.stream[0]].shape[1]
    sizes = {"batch": int(expected.shape[0]), "steps": length // recurrence.block}
    if recurrence.block > 1:
        sizes["block"] = recurrence.block
    try:
        got = step_through(run, signature, inputs, start or {})
    except Exception as error:  # noqa: BLE001  (a graph that cannot be stepped fails the trial)
        return Trial(sizes, {}, _line(error))
    return Trial(sizes, {recurrence.compare: relative_error(got, expected)})


def sequence_inputs(graph: Graph, full: Graph) -> Named:
    """New inputs of the full graph, with the number of steps that the recurrence requires (or that the graph allows).

    Raises ExportError if the full graph cannot take the elements of a single step.
    """
    recurrence = graph.recurrence
    assert recurrence is not None
    if recurrence.block < 1:
        raise ExportError(f"{graph.name} takes {recurrence.block} elements per step; it must be one or more.")
    specs = {spec.name: spec for spec in full.inputs}
    sizes = dict(full.trials[0])
    lengths = {specs[name].shape[1] for name in recurrence.stream}
    for axis in full.axes:
        low, high = full.axes[axis]
        if axis not in lengths:
            sizes[axis] = min(high, max(low, 2))
            continue
        steps = min(high // recurrence.block, max(-(-low // recurrence.block), recurrence.steps))
        sizes[axis] = steps * recurrence.block
        if not low <= sizes[axis] or steps < 1:
            raise ExportError(
                f"{graph.name} takes {recurrence.block} elements per step, but `{axis}` of {full.name} may be {low} to "
                f"{high}."
            )
    return _example(full, sizes, FRESH_SEED + 999)


def require(name: str, trials: Sequence[Trial], tolerance: float) -> None:
    """Raise ExportError with all errors unless each is within the tolerance. (A comparison with NaN is false, so a NaN
    never passes.)"""
    if trials and all(trial.worst <= tolerance for trial in trials):
        return
    lines = [
        f"  {describe_sizes(t.sizes)}: " + (t.failure or ", ".join(f"{k} {v:.3g}" for k, v in t.errors.items()))
        for t in trials
    ]
    raise ExportError(
        f"{name} differs from its model (allowed: {tolerance:g} of the largest value):\n" + "\n".join(lines)
    )


def describe_sizes(sizes: Mapping[str, int]) -> str:
    """Axis sizes as text: `batch 7, length 12`."""
    return ", ".join(f"{axis} {n}" for axis, n in sizes.items())


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
