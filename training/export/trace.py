"""A module becomes a torch program with named dynamic axes; ONNX and CoreML are both made from it."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from training.errors import ExportError
from training.recipe import Graph

# Odd, unequal to each other and to the sizes that are tried (1, 2, 7), and never 0 or 1, which torch would bake in.
_SIZES = (3, 5, 11, 13, 19, 23, 29, 31)
EXAMPLE_SEED = 0


def example_sizes(graph: Graph) -> dict[str, int]:
    """A size for every dynamic axis, for the tracer to see. Raises ExportError where an axis has no size above 1."""
    sizes = {}
    for place, (axis, (low, high)) in enumerate(graph.axes.items()):
        sizes[axis] = min(high, max(low, 0) + _SIZES[place % len(_SIZES)])
        if sizes[axis] < 2:
            raise ExportError(f"{graph.name}: axis `{axis}` may only be {low} to {high}; make it a fixed size.")
    return sizes


def trace(graph: Graph) -> torch.export.ExportedProgram:
    """Raises ExportError with torch's reason where the module cannot be captured with these dynamic axes: an axis
    that the code ties to one size is refused here."""
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
    """Shapes nested as torch wants them: what a `*rest` in the module's forward takes is a tuple of its own."""
    parameters = inspect.signature(module.forward).parameters.values()
    for place, parameter in enumerate(parameters):
        if parameter.kind is parameter.VAR_POSITIONAL:
            return (*shapes[:place], tuple(shapes[place:]))
    return tuple(shapes)


@contextmanager
def plain_attention() -> Iterator[None]:
    """No gradients, and nn.TransformerEncoder without its fused path, which neither ONNX nor CoreML knows."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's own, on its own deprecated calls
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _first_lines(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: " + "\n".join(lines[:12])
