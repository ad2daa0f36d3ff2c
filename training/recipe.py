"""The contract between a model family and everything else: what a family supplies to be prepared, trained, judged
and exported. Stages hand a recipe to the engine and to export; neither knows what music is.

Adding a family: subclass Recipe in `models/<family>/recipe.py`, name it in `models/registry.py`
(docs/adding-a-model.md).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from training.judgement import Judgement, Verdict
from training.settings import RunSettings

if TYPE_CHECKING:
    import numpy as np
    import torch

    from training.data.encode import Encoder
    from training.data.manifest import Row

Arrays = Mapping[str, "np.ndarray"]
Batch = dict[str, "torch.Tensor"]


class Examples(Protocol):
    """A split, as training sees it. `item` is a pure function of (epoch, index) and of what was given at construction
    (rows, stores, seed), never of history: any worker, in any order, returns the same bytes. Picklable."""

    def __len__(self) -> int:
        """Items in one epoch."""

    def item(self, epoch: int, index: int) -> dict[str, np.ndarray]:
        """One sample. Training draws another window or augmentation for every epoch; validation ignores `epoch`."""

    def collate(self, items: Sequence[dict[str, np.ndarray]]) -> Batch:
        """Items -> one batch of CPU tensors. Must work for any number of items from 1 up."""


@dataclass(frozen=True)
class Moment:
    """Where training stands; given to the loss so that schedules (of losses, of augmentation) can depend on it."""

    step: int  # optimizer steps done
    total_steps: int  # planned for the whole run, >= 1

    @property
    def progress(self) -> float:
        """0 at the start, 1 at the end."""
        return min(1.0, self.step / max(1, self.total_steps))


@dataclass(frozen=True)
class Loss:
    """One named term: the sum over its elements (never the mean), so that averages over micro-batches and ranks are
    exact. The engine minimises sum over terms of `coefficient * total / count`, with `count` summed over the whole
    global batch (see Recipe.counts)."""

    total: torch.Tensor  # scalar, fp32, with gradient
    coefficient: float = 1.0  # 0: reported only


# -- what leaves ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TensorSpec:
    """A named input or output of an exported graph. A string in `shape` names a dynamic axis of Graph.axes."""

    name: str
    dtype: str  # "float32" or "int64"
    shape: tuple[int | str, ...]
    meaning: str = ""  # units and range, for the receipt and for whoever loads the file


@dataclass(frozen=True)
class Recurrence:
    """How a one-step graph is run along a sequence: feed `stream` inputs slice by slice along axis 1, carry `state`.

    Feeding it a whole sequence must give what the graph named `full` gives in one call (same non-state inputs).
    """

    full: str  # the Graph that it must agree with
    stream: tuple[str, ...]  # inputs sliced along axis 1, one element a step
    state: tuple[tuple[str, str], ...]  # (input, output) pairs: an output becomes the input of the next step
    compare: str  # the output compared, concatenated along axis 1
    steps: int = 200


@dataclass(frozen=True)
class Graph:
    """One computation to export, and what it takes to prove the exported file right."""

    name: str  # file stem: <name>.onnx, <name>.mlpackage
    module: torch.nn.Module  # eval mode, CPU, float32; forward(*inputs in order) -> tensor or tuple of tensors
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    axes: Mapping[str, tuple[int, int]]  # dynamic axis -> (smallest, largest) size a host may use
    example: Callable[[Mapping[str, int], int], tuple[np.ndarray, ...]]  # (size of each axis, seed) -> inputs
    trials: tuple[Mapping[str, int], ...]  # axis sizes at which every exported file is compared with `module`
    tolerance: float = 1e-4  # of the fp32 file: max |file - module| / max |module|, per output
    formats: tuple[str, ...] = ("onnx",)  # any of onnx, int8, coreml
    recurrence: Recurrence | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)  # written into the files: units, constants, vocabulary


@dataclass(frozen=True)
class Bench:
    """What a finished model is judged with."""

    model: torch.nn.Module  # eval mode, float32, on the device that judges
    train: Sequence[Row]
    held_out: Sequence[Row]
    steps: int  # optimizer steps that it was trained for
    #: (recipe, name, begin, steps) -> its model, trained as this one was (data, schedule, precision, averaged weights)
    #: for so many steps, from the weights `begin` or, without, from the start. Kept: asked again, it is read back.
    rival: Callable[[Recipe, str, Mapping[str, torch.Tensor] | None, int], torch.nn.Module]
    share: float  # of `steps`, that rivals may take; 1: they are trained from the start


@dataclass(frozen=True)
class Exam:
    """Held-out examples in the form in which an exported graph takes them, to measure what int8 costs the task."""

    graph: str  # the Graph (name) that is examined
    inputs: Arrays  # the graph's inputs, one batch
    references: Arrays  # what `Recipe.grade` compares the outputs with


# -- the contract --------------------------------------------------------------------------------------------------


class Recipe(ABC):
    """What a model family supplies. Constructed from its typed settings alone; cheap, no file is touched."""

    family: ClassVar[str]  # folder name under checkpoints/ and runs/: "spectocloud"
    title: ClassVar[str]  # for people: "Spectocloud"
    manifest: ClassVar[str]  # manifests are <manifest>_train.jsonl and <manifest>_val.jsonl
    settings_type: ClassVar[type[RunSettings]]

    def __init__(self, settings: RunSettings):
        self.settings = settings

    # prepare

    @abstractmethod
    def encoders(self) -> Mapping[str, Encoder]:
        """Manifest key that holds a path (`audio_path`) -> the encoder of that file into its store."""

    row_checks: ClassVar[int] = 1  # raised when a row that passed `check_row` may no longer pass

    def check_row(self, row: Mapping[str, Any]) -> None:
        """Raise ValueError (told with the line number) for what is wrong with a row beyond missing or empty paths."""

    @abstractmethod
    def examples(self, rows: Sequence[Row], training: bool) -> Examples:
        """A split. `row.values` is the manifest row, `row.records[key]` the stored arrays of the file under `key`.

        Raises DataError if nothing in `rows` can be trained on.
        """

    def fit_constants(self, rows: Sequence[Row]) -> dict[str, np.ndarray]:
        """Constants fitted on the training split (a normaliser's mean, say), deterministic, float32.

        Kept in every checkpoint and handed to `build`; computed once, before training.
        """
        return {}

    # train

    @abstractmethod
    def build(self, constants: Arrays) -> torch.nn.Module:
        """A freshly initialised model; the caller has seeded torch. `constants` are registered as buffers."""

    @abstractmethod
    def counts(self, batch: Batch) -> dict[str, float]:
        """How many elements each loss term of this batch sums over; from the batch alone (no model)."""

    @abstractmethod
    def losses(self, model: torch.nn.Module, batch: Batch, moment: Moment) -> dict[str, Loss]:
        """The training terms, under the names of `counts`. `model` may be wrapped (DDP, compile): call it, no more."""

    @abstractmethod
    def validate(self, model: torch.nn.Module, batch: Batch) -> dict[str, tuple[torch.Tensor, float]]:
        """Metric name -> (sum over elements, number of elements), for one held-out batch; eval mode, no grad."""

    def summarise(self, means: Mapping[str, float]) -> dict[str, float]:
        """The averaged validation metrics -> those to report. Must hold `val_loss`; may derive more (perplexity)."""
        return dict(means)

    def parameter_groups(self, model: torch.nn.Module) -> list[dict[str, Any]]:
        """AdamW groups. Default: weight decay on matrices, none on vectors (norms, biases)."""
        trained = [p for p in model.parameters() if p.requires_grad]
        decay = self.settings.optim.weight_decay
        return [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": decay},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]

    def flops(self, model: torch.nn.Module, batch: Batch) -> float | None:
        """Floating-point operations of one forward and backward pass over `batch`, for utilisation; None: unknown."""
        return None

    def accelerate(self, compiled: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Called once before training where the model is compiled (training.compile): what this family computes around
        the model (a loss) may be replaced by `compiled(function)`. The function takes and returns tensors, the first of
        them with a sample a row. Default: it runs as it is written."""

    #: None: the engine steps (counts, losses, AdamW). A family whose step is its own (several optimizer steps in one,
    #: truncated back-propagation) sets a callable (see engine/step.py, OwnStep).
    own_step: ClassVar[Callable[..., Any] | None] = None

    # judge

    def evaluate(self, bench: Bench) -> Judgement:
        """Judge the finished model on the held-out songs: figures with intervals, each beside its baselines, and a
        verdict (training/judgement.py has the tools). Default: nothing is measured, and nothing is claimed."""
        why = f"{self.title} names no figures and no baselines, so nothing tells what it has learnt."
        return Judgement({}, Verdict("weak", [why]))

    def samples(self, model: torch.nn.Module, held_out: Sequence[Row], folder: Path, seed: int) -> list[Path]:
        """Write a few samples for people (a .mid per emotion, a cloud as .npy and .png); return what was written."""
        return []

    # export

    @abstractmethod
    def graphs(self, model: torch.nn.Module) -> list[Graph]:
        """What leaves. `model` is the trained one in eval mode on the CPU in float32."""

    def exam(self, held_out: Sequence[Row]) -> Exam | None:
        """Held-out material on which fp32 and int8 files are graded; None: int8 is not offered."""
        return None

    @staticmethod
    def grade(outputs: Arrays, references: Arrays) -> dict[str, float]:
        """Graph outputs and the exam's references -> the task's own metrics (numpy; lower is better)."""
        return {}
