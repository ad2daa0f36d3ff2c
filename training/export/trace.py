"""Traces a module to a torch program with named dynamic axes, from which both ONNX and CoreML are made."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from training.errors import ExportError
from training.graphs import Graph

# Odd, different from each other and from the sizes of trials (1, 2, 7); torch would specialise on the sizes 0 and 1.
_SIZES = (3, 5, 11, 13, 19, 23, 29, 31)
EXAMPLE_SEED = 0


def example_sizes(graph: Graph) -> dict[str, int]:
    """A size of every dynamic axis for the tracer. Raises ExportError if an axis can only have sizes below 2."""
    sizes = {}
    for place, (axis, (low, high)) in enumerate(graph.axes.items()):
        sizes[axis] = min(high, max(low, 0) + _SIZES[place % len(_SIZES)])
        if sizes[axis] < 2:
            raise ExportError(f"{graph.name}: axis `{axis}` can only be {low} to {high}; make it a fixed size.")
    return sizes


def trace(graph: Graph) -> torch.export.ExportedProgram:
    """Capture a graph's module. Raises ExportError with torch's reason if that is impossible with these dynamic axes,
    for example because the code assumes one size of an axis."""
    example = tuple(torch.from_numpy(array) for array in graph.example(example_sizes(graph), EXAMPLE_SEED))
    if len(example) != len(graph.inputs):
        raise ExportError(f"{graph.name} names {len(graph.inputs)} inputs; its example has {len(example)}.")
    dims = {axis: torch.export.Dim(axis, min=low, max=high) for axis, (low, high) in graph.axes.items()}
    shapes = [{at: dims[d] for at, d in enumerate(spec.shape) if isinstance(d, str)} for spec in graph.inputs]
    with plain_attention():
        try:
            return torch.export.export(graph.module, example, dynamic_shapes=_like_arguments(graph.module, shapes))
        except Exception as error:
            raise ExportError(f"{graph.name} cannot be captured for export: {_first_lines(error)}") from error


def _like_arguments(module: torch.nn.Module, shapes: list[dict]) -> tuple:
    """Shapes nested as torch expects them: those of a `*rest` parameter of the module's forward as a separate tuple."""
    parameters = inspect.signature(module.forward).parameters.values()
    for place, parameter in enumerate(parameters):
        if parameter.kind is parameter.VAR_POSITIONAL:
            return (*shapes[:place], tuple(shapes[place:]))
    return tuple(shapes)


@contextmanager
def plain_attention() -> Iterator[None]:
    """A context without gradients and without the fused path of nn.TransformerEncoder, which ONNX and CoreML do not
    support."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # about deprecated functions that torch calls itself
            # about the list of weights that torch's own recurrent layers keep beside their parameters
            warnings.filterwarnings("ignore", r"(?s).*_flat_weights", UserWarning)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _first_lines(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: " + "\n".join(lines[:12])
