"""The contract between a model family and everything else: what a family supplies to be prepared, trained, judged and
exported. Stages hand a recipe to the engine and to export; neither knows what is learnt.

There are two kinds of family. `Stepped` families are trained by gradient descent, an optimizer step at a time.
`Fitted` families (boosted trees, ridge regression) grow a state by rounds; the engine checkpoints, stops, resumes,
budgets and logs them in the same way. docs/adding-a-model.md walks through both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

from training.judgement import Judgement, Verdict
from training.settings import RunSettings

if TYPE_CHECKING:
    import numpy as np
    import torch

    from training.data.encode import Encoder
    from training.data.rows import Row

Arrays = Mapping[str, "np.ndarray"]
Batch = dict[str, "torch.Tensor"]
#: Metric name -> (sum over elements, number of elements), so that averages over batches and ranks are exact.
Sums = Mapping[str, tuple[Any, float]]


class Dataset(Protocol):
    """A split, as training sees it. `item` is a pure function of (epoch, index) and of what was given at construction
    (rows, stores, seed), never of history: any worker, in any order, returns the same bytes. Picklable."""

    def __len__(self) -> int:
        """Items in one epoch."""

    def item(self, epoch: int, index: int) -> dict[str, np.ndarray]:
        """One sample. Training draws another window or augmentation for every epoch; validation ignores `epoch`."""

    def collate(self, items: Sequence[dict[str, np.ndarray]]) -> Batch:
        """Items -> one batch of CPU tensors. Must work for any number of items from 1 up."""


@dataclass(frozen=True)
class TrainingProgress:
    """Where training stands; given to the loss so that schedules (of losses, of augmentation) can depend on it."""

    step: int  # optimizer steps done
    total_steps: int  # planned for the whole run, >= 1

    @property
    def fraction(self) -> float:
        """0 at the start, 1 at the end."""
        return min(1.0, self.step / max(1, self.total_steps))


@dataclass(frozen=True)
class Loss:
    """One named term: the sum over its elements (never the mean), so that averages over micro-batches and ranks are
    exact. The engine minimises sum over terms of `coefficient * total / count`, with `count` summed over the whole
    global batch (see Stepped.counts)."""

    total: torch.Tensor  # scalar, fp32, with gradient
    coefficient: float = 1.0  # 0: reported only


@dataclass(frozen=True)
class Room:
    """What a run needs beside its checkpoints, in bytes. None: not known beforehand."""

    exports: int | None = None  # all exported files together
    memory: int | None = None  # of the device, at the largest micro-batch


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
    """How a one-step graph is run along a sequence: feed `stream` inputs block by block along axis 1, carry `state`.

    Feeding it a whole sequence must give what the graph named `full` gives in one call (same non-state inputs).
    """

    full: str  # the Graph that it must agree with
    stream: tuple[str, ...]  # inputs sliced along axis 1, `block` elements a step
    state: tuple[tuple[str, str], ...]  # (input, output) pairs: an output becomes the input of the next step
    compare: str  # the output compared, concatenated along axis 1
    steps: int = 200
    block: int = 1  # elements of the stream a step
    #: State input -> its value before the first step, without the batch axis. Not named: zeros, or an empty cache
    #: where the input has a dynamic axis that may be 0.
    start: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """One computation to export, and what it takes to prove the exported file right.

    It comes either as a torch `module`, which is traced, or as ready-made ONNX (`write`, with a `reference` in numpy):
    trees, or a recurrence written by hand, that no tracer gives. Exactly one of the two is set.
    """

    name: str  # file stem: <name>.onnx, <name>.mlpackage
    module: torch.nn.Module | None  # eval mode, CPU, float32; forward(*inputs in order) -> tensor or tuple of tensors
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    axes: Mapping[str, tuple[int, int]]  # dynamic axis -> (smallest, largest) size a host may use
    example: Callable[[Mapping[str, int], int], tuple[np.ndarray, ...]]  # (size of each axis, seed) -> inputs
    trials: tuple[Mapping[str, int], ...]  # axis sizes at which every exported file is compared with the truth
    tolerance: float = 1e-4  # of the fp32 file: max |file - truth| / max |truth|, per output
    formats: tuple[str, ...] = ("onnx",)  # any of onnx, int8, coreml; a ready-made graph has onnx alone
    recurrence: Recurrence | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)  # written into the files: units, constants, vocabulary
    #: Ready-made ONNX: writes the model to a path.
    write: Callable[[Path], None] | None = None
    #: The truth of a ready-made graph: inputs by name -> outputs by name, in numpy.
    reference: Callable[[Arrays], Arrays] | None = None


@dataclass(frozen=True)
class Artefact:
    """A file or folder in a format of the field (.nam, a PEFT adapter, GGUF, a NIfTI map), with its own writer.

    `prover` names an entry of Recipe.provers. It is run on the written files before they get their names, and again by
    `verify`, from the files alone.
    """

    name: str  # path under exports/, a file or a folder
    write: Callable[[Path], None]  # to this path; it already holds what it needs of the model
    prover: str
    about: Mapping[str, Any] = field(default_factory=dict)  # plain values for the receipt; `prover` gets them back


#: (path of the artefact, its `about`) -> what was measured, as plain values. Raises ExportError for a file that is not
#: what it should be.
Prover = Callable[[Path, Mapping[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True)
class EvaluationContext:
    """What a finished model is judged with."""

    model: Any  # stepped: a module in eval mode, float32, on the device that judges; fitted: its state
    train: Sequence[Row]
    held_out: Sequence[Row]
    steps: int  # optimizer steps (or rounds) that it was trained for
    #: (recipe, name, begin, steps) -> its model, trained as this one was (data, schedule, precision, averaged weights)
    #: for so many steps, from the weights `begin` or, without, from the start. It is kept: a second call reads it back.
    train_baseline: Callable[[Recipe, str, Mapping[str, torch.Tensor] | None, int], Any]
    baseline_share: float  # of `steps`, that trained baselines may take; 1: they are trained from the start
    #: Family that this one `needs` -> its trained model, as `model` above.
    needed: Mapping[str, Any] = field(default_factory=dict)
    split: Literal["val", "test"] = "val"  # which split `held_out` is; "test" is the sealed one


@dataclass(frozen=True)
class Int8Check:
    """Held-out examples in the form in which an exported graph takes them, to measure what int8 costs the task."""

    graph: str  # the Graph (name) that is checked
    inputs: Arrays  # the graph's inputs, one batch
    references: Arrays  # what `Recipe.grade` compares the outputs with


# -- the contract --------------------------------------------------------------------------------------------------


class Recipe(ABC):
    """What every family supplies. Constructed from its typed settings alone; cheap, no file is touched.

    Name, title, manifest and the families that it needs are facts that the registry knows without importing torch
    (domain.FamilyFacts); they are repeated here for code that holds a recipe.
    """

    family: ClassVar[str]  # folder name under checkpoints/ and runs/
    title: ClassVar[str]  # for people
    manifest: ClassVar[str]  # manifests are <manifest>_train.jsonl, <manifest>_val.jsonl and <manifest>_test.jsonl
    settings_type: ClassVar[type[RunSettings]]
    item: str = ""  # of a family that fans out: which item's model this is
    #: Family that this one `needs` (domain.FamilyFacts) -> what was trained of it: `model` (as in EvaluationContext),
    #: `recipe`, `sha256`. Set before a dataset is made, or `begin` is called.
    needed: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, settings: RunSettings):
        self.settings = settings

    def with_settings(self, settings: RunSettings) -> Self:
        """The recipe of the same run with other settings."""
        other = type(self)(settings)
        other.item, other.needed = self.item, self.needed
        return other

    @property
    def run(self) -> str:
        """The name of its checkpoints, runs, exports and metrics: "family", or "family/item"."""
        return f"{self.family}/{self.item}" if self.item else self.family

    @property
    def data(self) -> str:
        """The name of its manifests: "manifest", or "manifest/item"."""
        return f"{self.manifest}/{self.item}" if self.item else self.manifest

    # prepare

    @abstractmethod
    def encoders(self) -> Mapping[str, Encoder]:
        """Manifest key that holds a path -> the encoder of that file into its store."""

    row_checks: ClassVar[int] = 1  # raised when a row that passed `check_row` may no longer pass

    def check_row(self, row: Mapping[str, Any]) -> None:
        """Raise ValueError (reported with the line number) for what is wrong with a row beyond the domain's schema."""

    def fit_constants(self, rows: Sequence[Row]) -> dict[str, np.ndarray]:
        """Constants fitted on the training split (a normaliser's mean, say), deterministic, float32.

        Kept with every checkpoint (large ones once, under their hash) and handed to `build` or `begin`; computed once,
        before training.
        """
        return {}

    # judge

    def evaluate(self, context: EvaluationContext) -> Judgement:
        """Judge the finished model on the held-out rows: figures with intervals, each beside its baselines, and a
        verdict (training/judgement.py has the tools). Default: nothing is measured, and nothing is claimed."""
        why = f"{self.title} names no figures and no baselines, so nothing shows what it has learnt."
        return Judgement({}, Verdict("weak", [why]))

    def samples(self, model: Any, held_out: Sequence[Row], folder: Path, seed: int) -> list[Path]:
        """Write a few samples for people into `folder`; return what was written."""
        return []

    def preview(self, path: Path, seconds: float) -> bytes | None:
        """The first `seconds` of a sample's sound as a 16-bit WAV, for those who play nothing else; None: it cannot be
        read. Called for samples that are no such WAV already (.mp3)."""
        return None

    # export

    def graphs(self, model: Any) -> list[Graph]:
        """What leaves as ONNX (and CoreML). `model`: as in EvaluationContext, on the CPU."""
        return []

    def artefacts(self, model: Any) -> list[Artefact]:
        """What leaves in formats of the field."""
        return []

    #: Name -> what proves an artefact from its files alone. Top-level functions: `verify` calls them without a model.
    provers: ClassVar[Mapping[str, Prover]] = {}

    def weights(self, model: Any) -> Mapping[str, Any] | None:
        """The tensors of <family>.safetensors; None: no such file is written. Default: the state_dict of a module."""
        state = getattr(model, "state_dict", None)
        return state() if callable(state) else None

    def int8_check(self, held_out: Sequence[Row]) -> Int8Check | None:
        """Held-out material on which fp32 and int8 files are graded; None: int8 is not offered."""
        return None

    @staticmethod
    def grade(outputs: Arrays, references: Arrays) -> dict[str, float]:
        """Graph outputs and the check's references -> the task's own metrics (numpy; lower is better)."""
        return {}


class Stepped(Recipe):
    """A family that is trained by gradient descent."""

    @abstractmethod
    def dataset(self, rows: Sequence[Row], training: bool) -> Dataset:
        """A split. `row.values` is the manifest row, `row.records[key]` the stored arrays of the file under `key`.

        Raises DataError if nothing in `rows` can be trained on.
        """

    @abstractmethod
    def build(self, constants: Arrays) -> torch.nn.Module:
        """A freshly initialised model; the caller has seeded torch. `constants` are registered as buffers."""

    @abstractmethod
    def counts(self, batch: Batch) -> dict[str, float]:
        """How many elements each loss term of this batch sums over; from the batch alone (no model)."""

    @abstractmethod
    def losses(self, model: torch.nn.Module, batch: Batch, progress: TrainingProgress) -> dict[str, Loss]:
        """The training terms, under the names of `counts`. `model` may be wrapped (DDP, compile): call it, no more."""

    @abstractmethod
    def validate(self, model: torch.nn.Module, batch: Batch) -> Sums:
        """Metric name -> (sum over elements, number of elements), for one held-out batch; eval mode, no grad.

        A sum may be a vector (float [n]: one value a class, say); `summarise` then gets the vector of means.
        """

    def summarise(self, means: Mapping[str, Any]) -> dict[str, float]:
        """The averaged validation metrics -> those to report. Must hold `val_loss`; may derive more (perplexity)."""
        return dict(means)

    def appraise(self, model: torch.nn.Module, rows: Sequence[Row], seconds: float) -> Sums | None:
        """Metrics that need more than a pass over the split, such as generating an answer a row; called after each
        validation with this rank's part of the first `training.appraise_rows` held-out rows. Metric -> (sum, number);
        a metric's mean joins the validation metrics and may be monitored. `seconds`: what it may take; a recipe that
        stops early counts what it did. None: the family has none."""
        return None

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
    #: truncated back-propagation) sets a callable (see engine/step/step_context.py, OwnStep).
    own_step: ClassVar[Callable[..., Any] | None] = None

    #: "autocast": as set by training.amp. "float32": amp is refused with `dtype_reason`. "bfloat16_base": parameters
    #: that are not trained are held in bfloat16, the trained ones in float32, computation is autocast to bfloat16.
    dtype_policy: ClassVar[Literal["autocast", "float32", "bfloat16_base"]] = "autocast"
    dtype_reason: ClassVar[str] = ""

    #: How several GPUs share the work: "ddp" keeps a copy a rank; "fsdp" shards parameters and optimizer state.
    parallel: ClassVar[Literal["ddp", "fsdp"]] = "ddp"

    def saved(self, model: torch.nn.Module) -> Collection[str] | None:
        """The names of the state_dict that a checkpoint holds; None: all. The others are frozen: a checkpoint holds
        their hash, and a resume whose frozen tensors have another one is refused."""
        return None

    def room(self, model: torch.nn.Module) -> Room:
        """What the run needs beside its checkpoints. Default: exports of eight times the float32 weights (full and
        step graphs, int8, CoreML, weights); memory unknown."""
        return Room(exports=8 * sum(parameter.numel() * 4 for parameter in model.parameters()))


class Fitted(Recipe):
    """A family whose state grows by rounds: boosted trees by trees, an iterative solver by sweeps.

    A state is any object, as long as `dump` and `load` carry it exactly: a run that is killed and
    continued must end in the same bytes on a CPU as one that is not.
    """

    @abstractmethod
    def begin(self, rows: Mapping[str, Sequence[Row]], constants: Arrays, seed: int) -> Any:
        """The state before the first round. `rows`: the splits train and val, for families that need their matrices;
        they are part of the state in memory, and not of `dump`. `constants`: of `fit_constants`."""

    @abstractmethod
    def advance(self, state: Any, rounds: int) -> Any:
        """So many rounds further: the same result however they are divided among calls."""

    @abstractmethod
    def score(self, state: Any, split: Literal["train", "val"]) -> dict[str, float]:
        """Metrics on a split of `begin`'s rows. Of `val` it must hold `val_loss`."""

    @abstractmethod
    def dump(self, state: Any) -> bytes:
        """What `load` needs to go on and to predict, deterministic: equal states give equal bytes."""

    @abstractmethod
    def load(self, content: bytes, rows: Mapping[str, Sequence[Row]] | None, constants: Arrays) -> Any:
        """The state that was dumped; without rows it can predict and be exported, but not advance."""

    def rounds(self) -> int:
        """Rounds of the complete run. Default: `training.max_steps`, or `training.epochs` where it is not set."""
        return self.settings.training.max_steps or self.settings.training.epochs

    chunk: ClassVar[int] = 10  # rounds between two looks at the clock, at signals and at what is due
