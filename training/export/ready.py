"""Graphs that come as ready-made ONNX with a reference in numpy: what no tracer gives (trees, recurrences by hand)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx

from training.data.files import write_atomic
from training.errors import ExportError
from training.export.files import writer_errors
from training.export.onnx import finish, read_model
from training.recipe import Graph

Named = dict[str, np.ndarray]


def is_ready(graph: Graph) -> bool:
    """Whether `graph` is ready-made; a torch module else. Raises ExportError for one that is both, neither or half."""
    parts = {"module": graph.module, "write": graph.write, "reference": graph.reference}
    given = [name for name, part in parts.items() if part is not None]
    if given not in (["module"], ["write", "reference"]):
        raise ExportError(
            f"{graph.name} has {' and '.join(given) or 'neither a module nor a writer'}: a graph has either a "
            "`module`, or a `write` with its `reference`."
        )
    if graph.module is None and set(graph.formats) != {"onnx"}:
        raise ExportError(f"{graph.name} is ready-made ONNX and leaves as ONNX alone; its formats are {graph.formats}.")
    return graph.module is None


def write_ready(graph: Graph, path: Path, metadata: Mapping[str, str]) -> None:
    """Let the recipe write its model, add the metadata, and check it as any exported graph is checked.

    Raises ExportError where its writer fails, or what it wrote is no valid ONNX with the declared inputs and outputs.
    """
    assert graph.write is not None

    def write(partial: Path) -> None:
        with writer_errors(graph.name):
            graph.write(partial)
        if not partial.is_file():
            raise ExportError(f"{graph.name} was not written: there is nothing at the path that `write` was given.")
        model = read_model(partial, path.name)
        own = {prop.key: prop.value for prop in model.metadata_props}
        partial.write_bytes(finish(model, graph, path, own | dict(metadata)))

    write_atomic(path, write)


def opset(path: Path) -> int | None:
    """Of the standard operators that a file uses; None where it uses none of them (trees alone)."""
    model = onnx.load_model(path, load_external_data=False)
    return next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), None)


def reference_run(graph: Graph) -> Callable[[Mapping[str, np.ndarray]], Named]:
    """The numpy reference of a graph as a function of named arrays, held to the outputs that the graph declares."""

    def run(inputs: Mapping[str, np.ndarray]) -> Named:
        assert graph.reference is not None
        try:
            given = dict(graph.reference(dict(inputs)))
        except Exception as error:
            raise ExportError(f"The reference of {graph.name} fails: {type(error).__name__}: {error}") from error
        wanted = [spec.name for spec in graph.outputs]
        if set(given) != set(wanted):
            raise ExportError(f"The reference of {graph.name} gives {sorted(given)}; its outputs are {sorted(wanted)}.")
        sizes = {
            axis: inputs[spec.name].shape[at]
            for spec in graph.inputs
            for at, axis in enumerate(spec.shape)
            if isinstance(axis, str)
        }
        for spec in graph.outputs:
            array = given[spec.name] = np.asarray(given[spec.name])
            shape = [sizes.get(d, "?") if isinstance(d, str) else d for d in spec.shape]
            agrees = len(shape) == array.ndim and all(d in ("?", n) for d, n in zip(shape, array.shape, strict=True))
            if array.dtype != spec.dtype or not agrees:
                raise ExportError(
                    f"The reference of {graph.name} gives {spec.name} as {array.dtype} {list(array.shape)}; it is "
                    f"declared as {spec.dtype} {shape}."
                )
        return {name: given[name] for name in wanted}

    return run
