"""Graphs that a recipe supplies as ready-made ONNX with a reference in numpy, because no tracer can produce them
(trees, hand-written recurrences)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx

from training.data.files import write_atomic
from training.errors import ExportError
from training.export.files import writer_errors
from training.export.onnx import finish, read_model
from training.graphs import Graph

Named = dict[str, np.ndarray]


def is_ready(graph: Graph) -> bool:
    """Whether `graph` is ready-made, and not a torch module. Raises ExportError if it is both or neither, or if `write`
    or `reference` is missing."""
    parts = {"module": graph.module, "write": graph.write, "reference": graph.reference}
    given = [name for name, part in parts.items() if part is not None]
    if given not in (["module"], ["write", "reference"]):
        raise ExportError(
            f"{graph.name} has {' and '.join(given) or 'neither a module nor a writer'}: a graph has either a "
            "`module`, or a `write` with its `reference`."
        )
    if graph.module is None and set(graph.formats) != {"onnx"}:
        raise ExportError(f"{graph.name} is ready-made ONNX, so its format must be onnx alone; it is {graph.formats}.")
    return graph.module is None


def write_ready(graph: Graph, path: Path, metadata: Mapping[str, str]) -> None:
    """Let the recipe write its model, add the metadata, and check it like any exported graph.

    Raises ExportError if the writer fails, or its file is not valid ONNX with the declared inputs and outputs.
    """
    assert graph.write is not None

    def write(partial: Path) -> None:
        with writer_errors(graph.name):
            graph.write(partial)
        if not partial.is_file():
            raise ExportError(f"{graph.name} was not written: `write` created nothing at the path that it was given.")
        model = read_model(partial, path.name)
        own = {prop.key: prop.value for prop in model.metadata_props}
        partial.write_bytes(finish(model, graph, path, own | dict(metadata)))

    write_atomic(path, write)


def opset(path: Path) -> int | None:
    """The opset of the standard operators in a file; None if it has none of them (only trees)."""
    model = onnx.load_model(path, load_external_data=False)
    return next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), None)


def reference_run(graph: Graph) -> Callable[[Mapping[str, np.ndarray]], Named]:
    """The numpy reference of a graph as a function of named arrays. Its outputs are checked against the graph's."""

    def run(inputs: Mapping[str, np.ndarray]) -> Named:
        assert graph.reference is not None
        try:
            given = dict(graph.reference(dict(inputs)))
        except Exception as error:
            raise ExportError(f"The reference of {graph.name} fails: {type(error).__name__}: {error}") from error
        wanted = [spec.name for spec in graph.outputs]
        if set(given) != set(wanted):
            raise ExportError(
                f"The reference of {graph.name} returns {sorted(given)}; the outputs of the graph are {sorted(wanted)}."
            )
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
                    f"The reference of {graph.name} returns {spec.name} as {array.dtype} {list(array.shape)}; it is "
                    f"declared as {spec.dtype} {shape}."
                )
        return {name: given[name] for name in wanted}

    return run
