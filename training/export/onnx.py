"""Writes a torch program as one self-contained .onnx file with named inputs, outputs and axes."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch

from training.data.files import write_atomic
from training.errors import ExportError
from training.export.plain import written_out
from training.export.signature import Signature, shape_text
from training.graphs import Graph, TensorSpec

#: The exporter's native opset, so no operator is converted. With IR version 8, ONNX Runtime 1.14 (2023) or newer loads
#: it.
OPSET = 18
IR_VERSION = 8
LARGEST = 2**31 - 2**20  # bytes of one protobuf message

_DTYPES = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.INT64: "int64"}


def write_onnx(graph: Graph, program: torch.export.ExportedProgram, path: Path, metadata: Mapping[str, str]) -> None:
    """Write `graph` to `path`. The same module and metadata give the same bytes.

    Raises ExportError if torch cannot translate it, or the file's inputs and outputs are not those of `graph`.
    """
    with _quiet():
        try:
            exported = torch.onnx.export(
                written_out(program),
                dynamo=True,
                input_names=[spec.name for spec in graph.inputs],
                output_names=[spec.name for spec in graph.outputs],
                opset_version=OPSET,
                verbose=False,
            )
            model = exported.model_proto
        except Exception as error:
            reason = "\n".join(str(error).splitlines()[:12])
            raise ExportError(f"{graph.name} cannot be exported to ONNX: {type(error).__name__}: {reason}") from error
    _tidy(model, graph)
    write_atomic(path, finish(model, graph, path, metadata))


def finish(model: onnx.ModelProto, graph: Graph, path: Path, metadata: Mapping[str, str]) -> bytes:
    """The content of `path`: `model` with its metadata, checked. The same model and metadata give the same bytes.

    Raises ExportError for a model that is too large or invalid, or whose inputs and outputs are not those of `graph`.
    """
    onnx.helper.set_model_props(model, {**metadata, **units(graph)})
    if model.ByteSize() > LARGEST:
        raise ExportError(f"{graph.name} would have {model.ByteSize():,} bytes; the limit of an ONNX file is 2 GB.")
    problems = interface_problems(model, Signature.of(graph))
    if problems:
        raise ExportError(f"{path.name} is not the requested graph:\n  " + "\n  ".join(problems))
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the checker's and shape inference's errors share no base
        raise ExportError(f"{path.name} is not valid ONNX: {' '.join(str(error).split())[:300]}") from error
    return model.SerializeToString(deterministic=True)


def units(graph: Graph) -> dict[str, str]:
    """Metadata entries that describe each input and output: `input.mood` -> `f32 [batch, 3]: in [-1, 1]`."""
    return {
        f"{kind}.{spec.name}": shape_text(spec) + (f": {spec.meaning}" if spec.meaning else "")
        for kind, specs in (("input", graph.inputs), ("output", graph.outputs))
        for spec in specs
    } | dict(graph.metadata)


def read_model(path: Path, called: str = "") -> onnx.ModelProto:
    """The model in a file, which must be self-contained: external data is never opened.

    Raises ExportError if the file refers to external data or is not an ONNX file. `called` is the name of the file in
    these messages (default: that of `path`).
    """
    called = called or path.name
    try:
        model = onnx.load_model(path, load_external_data=False)
    except Exception as error:  # noqa: BLE001  (protobuf's errors share no base; each means: not a readable model)
        raise ExportError(f"{called} is not a readable ONNX file: {error}") from None
    outside = sorted({tensor.name for tensor in tensors(model) if is_external(tensor)})
    if outside:
        raise ExportError(f"{called} refers to data outside itself ({', '.join(outside[:3])}); it was not opened.")
    return model


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether the data of a tensor is in another file."""
    return tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data) > 0


def tensors(message: object) -> Iterator[onnx.TensorProto]:
    """Every tensor in a model: weights, constants, and those of sub-graphs, functions and training info."""
    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for item in [value] if hasattr(value, "ListFields") else value:
            yield from tensors(item)


def interface_problems(model: onnx.ModelProto, signature: Signature) -> list[str]:
    """Where a model's inputs and outputs differ from the signature: names, order, types, and dynamic axes with a fixed
    size."""
    weights = {tensor.name for tensor in model.graph.initializer}
    found = {
        "input": [value for value in model.graph.input if value.name not in weights],
        "output": list(model.graph.output),
    }
    problems = []
    for kind, specs in (("input", signature.inputs), ("output", signature.outputs)):
        names, wanted = [value.name for value in found[kind]], [spec.name for spec in specs]
        if names != wanted:
            problems.append(f"{kind}s are {names}, not {wanted}")
            continue
        for value, spec in zip(found[kind], specs, strict=True):
            problems += _value_problems(kind, value, spec)
    return problems


def _value_problems(kind: str, value: onnx.ValueInfoProto, spec: TensorSpec) -> list[str]:
    tensor = value.type.tensor_type
    dtype = _DTYPES.get(tensor.elem_type, onnx.TensorProto.DataType.Name(tensor.elem_type))
    problems = [] if dtype == spec.dtype else [f"{kind} {spec.name} is {dtype}, not {spec.dtype}"]
    dims = [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim]
    if len(dims) != len(spec.shape):
        return [*problems, f"{kind} {spec.name} has shape {dims}, not {list(spec.shape)}"]
    for at, (dim, wanted) in enumerate(zip(dims, spec.shape, strict=True)):
        if isinstance(wanted, str) and isinstance(dim, int):
            problems.append(f"{kind} {spec.name}: axis {at} (`{wanted}`) is fixed at {dim}")
        if isinstance(wanted, int) and isinstance(dim, int) and dim != wanted:
            problems.append(f"{kind} {spec.name}: axis {at} is {dim}, not {wanted}")
    return problems


def _tidy(model: onnx.ModelProto, graph: Graph) -> None:
    """Delete what the exporter recorded about this host (paths, source lines), and rename dynamic axes."""
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version, model.doc_string = "athanor", "", ""
    names: dict[str, str] = {}
    for value, spec in zip(model.graph.input, graph.inputs, strict=False):
        for dim, axis in zip(value.type.tensor_type.shape.dim, spec.shape, strict=False):
            if dim.dim_param and isinstance(axis, str):
                names[dim.dim_param] = axis
    symbol = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in names) or r"(?!)")
    _clean(model, symbol, names)
    del model.metadata_props[:]


def _clean(message: object, symbol: re.Pattern[str], names: Mapping[str, str]) -> None:
    if isinstance(message, onnx.TensorProto):
        return
    if isinstance(message, onnx.TensorShapeProto.Dimension):
        if message.HasField("dim_param"):
            message.dim_param = symbol.sub(lambda match: names[match[0]], message.dim_param)
        return
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for item in [value] if hasattr(value, "ListFields") else value:
                _clean(item, symbol, names)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's messages about torchvision and about deprecated functions that it calls itself."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(before)
