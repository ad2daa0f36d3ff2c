"""What a recipe exports: graphs with their inputs, outputs and trials, files in formats of their own, and the data with
which int8 files are judged. training/recipe.py has the recipe itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

Arrays = Mapping[str, "np.ndarray"]


@dataclass(frozen=True)
class TensorSpec:
    """A named input or output of an exported graph. A string in `shape` names a dynamic axis of Graph.axes."""

    name: str
    dtype: str  # "float32" or "int64"
    shape: tuple[int | str, ...]
    meaning: str = ""  # units and range, for the receipt and for users of the file


@dataclass(frozen=True)
class Recurrence:
    """How a one-step graph is run along a sequence: feed `stream` inputs block by block along axis 1, carry `state`.

    Stepping through a complete sequence must give the output of one call of the graph named `full` (same other inputs).
    """

    full: str  # name of the Graph with which the outputs are compared
    stream: tuple[str, ...]  # inputs sliced along axis 1, `block` elements per step
    state: tuple[tuple[str, str], ...]  # (input, output) pairs: an output becomes the input of the next step
    compare: str  # the output that is compared, concatenated along axis 1
    steps: int = 200  # length of the comparison
    block: int = 1  # elements of the stream per step
    #: State input -> its value before the first step, without the batch axis. Others start as zeros, or as an empty
    #: cache if the input has a dynamic axis that may be 0.
    start: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """One computation to export, and the information needed to verify the exported file.

    It is either a torch `module`, which is traced, or ready-made ONNX (`write`, with a `reference` in numpy) for what
    no tracer can produce: trees, or a hand-written recurrence. Exactly one of the two is set.
    """

    name: str  # file stem: <name>.onnx, <name>.mlpackage
    module: torch.nn.Module | None  # eval mode, CPU, float32; forward(*inputs in order) -> tensor or tuple of tensors
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    axes: Mapping[str, tuple[int, int]]  # dynamic axis -> (smallest, largest) size
    example: Callable[[Mapping[str, int], int], tuple[np.ndarray, ...]]  # (size of each axis, seed) -> inputs
    trials: tuple[Mapping[str, int], ...]  # axis sizes at which every exported file is compared with the module
    tolerance: float = 1e-4  # of the fp32 file: max |file - module| / max |module|, per output
    formats: tuple[str, ...] = ("onnx",)  # any of onnx, int8, coreml; a ready-made graph has onnx alone
    recurrence: Recurrence | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)  # written into the files: units, constants, vocabulary
    #: Ready-made ONNX: writes the model to a path.
    write: Callable[[Path], None] | None = None
    #: The reference of a ready-made graph: inputs by name -> expected outputs by name, in numpy.
    reference: Callable[[Arrays], Arrays] | None = None


@dataclass(frozen=True)
class Artefact:
    """A file or folder in another format than ONNX (.nam, a PEFT adapter, GGUF, a NIfTI map), with its own writer.

    `prover` names an entry of Recipe.provers. It is run on the written files before they get their final names, and
    again by `verify`, which has only the files.
    """

    name: str  # path under exports/, a file or a folder
    write: Callable[[Path], None]  # writes to this path; it already has what it needs of the model
    prover: str
    about: Mapping[str, Any] = field(default_factory=dict)  # plain values that the receipt stores for `prover`


#: (path of the artefact, its `about`) -> measurements, as plain values. Raises ExportError if the file is wrong.
Prover = Callable[[Path, Mapping[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True)
class Int8Check:
    """Held-out inputs for an exported graph, and references, to measure how int8 changes the task's metrics."""

    graph: str  # the Graph (name) that is checked
    inputs: Arrays  # the graph's inputs, one batch
    references: Arrays  # what `Recipe.grade` compares the outputs with
