"""Converts a torch program to an .mlpackage. Linux can convert, save and reload the description; only macOS can run
it."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from training.data.files import disk_errors
from training.errors import ExportError
from training.export.onnx import units
from training.export.proof import Trial
from training.export.signature import Signature
from training.export.trace import plain_attention
from training.graphs import Graph, TensorSpec
from training.workspace import PROJECT

#: macOS 13 and iOS 16 are the first versions in which float masks and flexible shapes work.
TARGET = "macOS13"
#: Of arithmetic and weights. The proof compares float32; an application that needs the Neural Engine can convert the
#: same program to float16 and compare it with the golden files.
PRECISION = "float32"
#: For a run on macOS against the golden outputs: the precision is the same, but the kernels are not torch's.
TOLERANCE = 1e-3
NOT_EXECUTED = "converted, not executed"
EXECUTED = "converted, executed"


def installed() -> bool:
    """Whether coremltools is installed. It is optional, since it has no wheels for some systems."""
    return importlib.util.find_spec("coremltools") is not None


def write_coreml(graph: Graph, program: torch.export.ExportedProgram, path: Path, metadata: Mapping[str, str]) -> None:
    """Convert and save; `path` must not exist. Dynamic axes become ranges; integers become int32 (CoreML has no int64);
    the range of an axis that may be empty starts at 1 (CoreML has no empty arrays).

    Raises ExportError if the conversion fails.
    """
    with quiet_coremltools() as ct, plain_attention():
        ranges = {
            axis: ct.RangeDim(*ends, default=min(ends[1], max(ends[0], 2)), symbol=axis)
            for axis, ends in coreml_axes(graph.axes).items()
        }
        types = {"float32": np.float32, "int64": np.int32}
        try:
            model = ct.convert(
                program.run_decompositions({}),
                convert_to="mlprogram",
                minimum_deployment_target=getattr(ct.target, TARGET),
                compute_precision=ct.precision.FLOAT32,
                inputs=[
                    ct.TensorType(
                        name=spec.name,
                        shape=tuple(ranges[d] if isinstance(d, str) else d for d in spec.shape),
                        dtype=types[spec.dtype],
                    )
                    for spec in graph.inputs
                ],
                outputs=[ct.TensorType(name=spec.name) for spec in graph.outputs],
                skip_model_load=True,
            )
        except Exception as error:
            raise ExportError(f"{graph.name} cannot be converted to CoreML: {type(error).__name__}: {error}") from error
        for specs, given in ((graph.inputs, model.input_description), (graph.outputs, model.output_description)):
            for spec in specs:
                if spec.meaning:
                    given[spec.name] = spec.meaning
        model.user_defined_metadata.update({**metadata, **units(graph), "precision": PRECISION})
        model.short_description = f"{graph.name}, exported by Athanor"
        partial = path.with_name(f".{path.stem}.partial.mlpackage")
        try:
            with disk_errors(path):
                model.save(str(partial))
                for unused in partial.glob("executorch_*.json"):  # for ExecuTorch's profiler, not part of the model
                    unused.unlink()
                partial.rename(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def coreml_axes(axes: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """The ranges that the converted model has: the requested ones, but never empty."""
    return {axis: (max(1, low), high) for axis, (low, high) in axes.items()}


def description_problems(path: Path, signature: Signature) -> list[str]:
    """Reload a saved package's description and compare names, types, ranges and the shapes inside its program with the
    signature."""
    with quiet_coremltools() as ct:
        try:
            spec = ct.models.utils.load_spec(str(_model_file(path)))
        except Exception as error:  # noqa: BLE001  (any error means that the package is not readable)
            return [f"cannot be read back: {' '.join(str(error).split())[:300]}"]
        types = ct.proto.FeatureTypes_pb2.ArrayFeatureType
        names = {"float32": types.FLOAT32, "int64": types.INT32}
    axes = coreml_axes(signature.axes)
    problems = []
    for kind, specs, found in (
        ("input", signature.inputs, spec.description.input),
        ("output", signature.outputs, spec.description.output),
    ):
        given = {feature.name: feature.type.multiArrayType for feature in found}
        if set(given) != {s.name for s in specs}:
            problems.append(f"{kind}s are {sorted(given)}, not {sorted(s.name for s in specs)}")
            continue
        for wanted in specs:
            if given[wanted.name].dataType != names[wanted.dtype]:
                problems.append(f"{kind} {wanted.name} is {types.ArrayDataType.Name(given[wanted.name].dataType)}")
            if kind == "input":
                problems += _range_problems(wanted, given[wanted.name], axes)
    return problems + _program_problems(spec, signature)


def _model_file(package: Path) -> Path:
    """The file of the description inside a package. (coremltools rewrites the manifest of a package that it opens; a
    check must not change the files, and must work on a read-only disk.)"""
    manifest = json.loads((package / "Manifest.json").read_text(encoding="utf-8"))
    inside = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
    file = (package / "Data" / inside).resolve()
    if not file.is_relative_to(package.resolve()):
        raise ValueError(f"its manifest points outside of it: {inside}")
    return file


def _range_problems(wanted: TensorSpec, array: Any, axes: Mapping[str, tuple[int, int]]) -> list[str]:
    """Compare an input's allowed sizes with the signature's, axis by axis."""
    if array.shapeRange.sizeRanges:
        found = [(r.lowerBound, r.upperBound) for r in array.shapeRange.sizeRanges]
    else:
        found = [(n, n) for n in array.shape]
    required = [axes[d] if isinstance(d, str) else (d, d) for d in wanted.shape]
    return [] if found == required else [f"input {wanted.name} takes sizes {found}, not {required}"]


def _program_problems(spec: Any, signature: Signature) -> list[str]:
    """Compare the shapes inside the program with the signature: a dynamic axis of an output must not have a fixed size
    there, and a fixed axis must have the right one."""
    block = next(iter(spec.mlProgram.functions["main"].block_specializations.values()))
    made = {value.name: value.type.tensorType for op in block.operations for value in op.outputs}
    problems = []
    for wanted in signature.outputs:
        if wanted.name not in made:
            problems.append(f"output {wanted.name} is not computed by the program")
            continue
        dims = [d.constant.size if d.HasField("constant") else "?" for d in made[wanted.name].dimensions]
        for at, axis in enumerate(wanted.shape):
            if (
                len(dims) != len(wanted.shape)
                or (isinstance(axis, str) and dims[at] != "?")
                or (isinstance(axis, int) and dims[at] not in ("?", axis))
            ):
                problems.append(f"output {wanted.name} has shape {dims} in the program, not {list(wanted.shape)}")
                break
    return problems


def can_execute() -> bool:
    """Whether this host can run a CoreML model."""
    return sys.platform == "darwin"


def executed_trials(package: Path, golden: Path) -> list[Trial]:
    """On macOS: the package run on the CPU at every trial of a golden file."""
    return [Trial(sizes, errors) for sizes, errors in _mac_check().compare(package, golden)]


def _mac_check() -> ModuleType:
    """The module scripts/check_coreml_on_mac.py, which imports nothing from this project so that it can be copied to a
    Mac."""
    place = PROJECT / "scripts" / "check_coreml_on_mac.py"
    spec = importlib.util.spec_from_file_location("check_coreml_on_mac", place)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def quiet_coremltools() -> Iterator[ModuleType]:
    """coremltools, imported late because that takes seconds, and without its messages: that torch is newer than the
    tested 2.7 (the conversion is checked here), that Linux has no CoreML, and progress bars."""
    loggers = [logging.getLogger(name) for name in ("coremltools", "coremltools.libmilstoragepython")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import coremltools

            with _no_progress_bars():
                yield coremltools
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """The converter shows a progress bar for every pass and has no option against it."""
    from coremltools.converters.mil.frontend.torch import ops as torch_ops
    from coremltools.converters.mil.mil.passes import pass_pipeline

    class Silent:
        def __init__(self, iterable: Any = None, **_: Any):
            self.iterable = iterable

        def __iter__(self) -> Iterator[Any]:
            return iter(self.iterable)

        def __enter__(self) -> Silent:
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def update(self, _: int = 1) -> None:
            return None

    places = [(m, n) for m in (torch_ops, pass_pipeline) for n in ("_tqdm", "tqdm") if hasattr(m, n)]
    before = [getattr(module, name) for module, name in places]
    try:
        for module, name in places:
            setattr(module, name, Silent)
        yield
    finally:
        for (module, name), original in zip(places, before, strict=True):
            setattr(module, name, original)
