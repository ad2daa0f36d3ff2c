"""The recipe: the interface that a model family implements to be prepared, trained, evaluated and exported. The engine
and the export use a family only through it, and have no code for particular families.

There are two kinds of family. `Stepped` families are trained by gradient descent, one optimizer step at a time.
`Fitted` families (boosted trees, ridge regression) build up a state in rounds; the engine checkpoints, stops, resumes,
budgets and logs them in the same way. docs/adding-a-model.md describes both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

from training.graphs import Arrays, Artefact, Graph, Int8Check, Prover
from training.judgement import Judgement, Verdict
from training.pretrained import Base
from training.settings import RunSettings

if TYPE_CHECKING:
    import numpy as np
    import torch

    from training.data.encode import Encoder
    from training.data.rows import Row

Batch = dict[str, "torch.Tensor"]
#: Metric name -> (sum over elements, number of elements), so that averages over batches and ranks are exact.
Sums = Mapping[str, tuple[Any, float]]
DtypePolicy = Literal["autocast", "float32", "bfloat16_base", "float16_base"]
#: Policy -> torch's name of the dtype of frozen parameters.
BASE_DTYPES: dict[str, str] = {"bfloat16_base": "bfloat16", "float16_base": "float16"}


class Dataset(Protocol):
    """The samples of a split. `item` is a pure function of (epoch, index) and of the constructor's arguments (rows,
    stores, seed), so any worker, in any order, returns the same bytes. Picklable."""

    def __len__(self) -> int:
        """Items in one epoch."""

    def item(self, epoch: int, index: int) -> dict[str, np.ndarray]:
        """One sample. Training uses another window or augmentation in every epoch; validation ignores `epoch`."""

    def collate(self, items: Sequence[dict[str, np.ndarray]]) -> Batch:
        """Combine items into one batch of CPU tensors. Must work for any number of items from 1 up."""


@dataclass(frozen=True)
class TrainingProgress:
    """The progress of a training. The loss gets it, so that schedules (of losses, of augmentation) can depend on it."""

    step: int  # optimizer steps done
    total_steps: int  # planned for the complete run, >= 1

    @property
    def fraction(self) -> float:
        """0 at the start, 1 at the end."""
        return min(1.0, self.step / max(1, self.total_steps))


@dataclass(frozen=True)
class Loss:
    """One named term: the sum over its elements (never the mean), so that averages over micro-batches and ranks are
    exact. The engine minimises sum over terms of `coefficient * total / count`, with `count` summed over the complete
    global batch (see Stepped.counts)."""

    total: torch.Tensor  # scalar, fp32, with gradient
    coefficient: float = 1.0  # 0: reported only


@dataclass(frozen=True)
class Room:
    """The space that a run needs in addition to its checkpoints, in bytes. None: not known before step 1."""

    exports: int | None = None  # all exported files together
    memory: int | None = None  # of the device, at the largest micro-batch


@dataclass(frozen=True)
class EvaluationContext:
    """The inputs of an evaluation: a trained model, the data, and a function that trains baselines."""

    model: Any  # stepped: a module in eval mode, float32, on the device of the evaluation; fitted: its state
    train: Sequence[Row]
    held_out: Sequence[Row]
    steps: int  # optimizer steps (or rounds) that the model was trained for
    #: (recipe, name, begin, steps) -> a model of `recipe`, trained in the same way as this one (data, schedule,
    #: precision, averaged weights) for `steps` steps, from the weights `begin` or, if None, from the start. It is saved
    #: under `name`: a second call reads it back.
    train_baseline: Callable[[Recipe, str, Mapping[str, torch.Tensor] | None, int], Any]
    baseline_share: float  # share of `steps` that trained baselines may take; 1: they are trained from the start
    #: Family that this one `needs` or `uses` -> its trained model, as `model` above.
    needed: Mapping[str, Any] = field(default_factory=dict)
    split: Literal["val", "test"] = "val"  # which split `held_out` is; "test" is the sealed one


# -- the recipe ----------------------------------------------------------------------------------------------------


class Recipe(ABC):
    """What every family implements. A recipe is constructed from its typed settings alone, without file access.

    Name, title, manifest and needed families are also in domain.FamilyFacts, so that the registry has them without
    importing torch.
    """

    family: ClassVar[str]  # folder name under checkpoints/ and runs/
    title: ClassVar[str]  # for people
    manifest: ClassVar[str]  # manifests are <manifest>_train.jsonl, <manifest>_val.jsonl and <manifest>_test.jsonl
    settings_type: ClassVar[type[RunSettings]]
    item: str = ""  # the item that this model is for, if the family fans out
    #: Family that this one `needs` or `uses` (domain.FamilyFacts) -> its trained model, with the attributes `model` (as
    #: in EvaluationContext), `recipe` and `sha256`. Set before a dataset is made, or `begin` is called.
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

    row_checks: ClassVar[int] = 1  # increment it when a row that passed `check_row` may no longer pass

    def check_row(self, row: Mapping[str, Any]) -> None:
        """Check what the domain's schema does not. Raise ValueError, which is reported with the line number."""

    def fit_constants(self, rows: Sequence[Row]) -> dict[str, np.ndarray]:
        """Constants fitted on the training split (a normaliser's mean, say), deterministic, float32.

        They are computed once, before training, and passed to `build` or `begin`. Every checkpoint has them (large ones
        are stored once, under their hash).
        """
        return {}

    # evaluate

    def evaluate(self, context: EvaluationContext) -> Judgement:
        """Judge the finished model on the held-out rows: metrics with intervals, compared with baselines, and a verdict
        (by the functions of training/judgement.py). Default: no metric, and the verdict "weak"."""
        why = f"{self.title} has no metrics and no baselines, so nothing shows what it has learnt."
        return Judgement({}, Verdict("weak", [why]))

    def samples(self, model: Any, held_out: Sequence[Row], folder: Path, seed: int) -> list[Path]:
        """Write a few samples for people into `folder`; return their paths."""
        return []

    def preview(self, path: Path, seconds: float) -> bytes | None:
        """The first `seconds` of a sample's sound as a 16-bit WAV, for players without other formats; None if it cannot
        be read. Called for samples in other formats (.mp3)."""
        return None

    # export

    def base(self) -> Base | None:
        """The pre-trained model on whose weights it builds; None: it is trained from the start."""
        return None

    def graphs(self, model: Any) -> list[Graph]:
        """The graphs that are exported as ONNX (and CoreML). `model`: as in EvaluationContext, on the CPU."""
        return []

    def artefacts(self, model: Any) -> list[Artefact]:
        """The files and folders that are exported in other formats."""
        return []

    #: Name -> a function that proves an artefact from its files. It must be a top-level function, since `verify` calls
    #: it without a model.
    provers: ClassVar[Mapping[str, Prover]] = {}

    def weights(self, model: Any) -> Mapping[str, Any] | None:
        """The tensors of <family>.safetensors; None: no such file is written. Default: the state_dict of a module."""
        state = getattr(model, "state_dict", None)
        return state() if callable(state) else None

    def int8_check(self, held_out: Sequence[Row]) -> Int8Check | None:
        """Held-out inputs on which fp32 and int8 files are compared; None: no int8 files are exported."""
        return None

    @staticmethod
    def grade(outputs: Arrays, references: Arrays) -> dict[str, float]:
        """The task's metrics of a graph's outputs for the inputs of `int8_check` (in numpy; lower is better)."""
        return {}


class Stepped(Recipe):
    """A family that is trained by gradient descent."""

    @abstractmethod
    def dataset(self, rows: Sequence[Row], training: bool) -> Dataset:
        """The dataset of a split. `row.values` is the manifest row, `row.records[key]` the stored arrays of the file
        under `key`.

        Raises DataError if no row can be used.
        """

    def rows_of_samples(self, dataset: Dataset) -> np.ndarray | None:
        """The row that each sample of a `dataset` of this family reads, int [len(dataset)]: an index into its rows. A
        training on shards in an object store needs it, to read one shard after the other. None: it is not known, and
        such a training is refused."""
        return None

    @abstractmethod
    def build(self, constants: Arrays) -> torch.nn.Module:
        """A newly initialised model; the caller has seeded torch. `constants` should be registered as buffers."""

    @abstractmethod
    def counts(self, batch: Batch) -> dict[str, float]:
        """The number of elements that each loss term sums over, computed from the batch alone (without the model)."""

    @abstractmethod
    def losses(self, model: torch.nn.Module, batch: Batch, progress: TrainingProgress) -> dict[str, Loss]:
        """The loss terms, with the names of `counts`. `model` may be wrapped (DDP, compile): do not use attributes."""

    @abstractmethod
    def validate(self, model: torch.nn.Module, batch: Batch) -> Sums:
        """Metric name -> (sum over elements, number of elements), for one held-out batch; eval mode, no grad.

        A sum may be a vector (float [n]: one value per class, say); `summarise` then gets the vector of means.
        """

    def summarise(self, means: Mapping[str, Any]) -> dict[str, float]:
        """The metrics to report, from the averaged validation metrics. Must include `val_loss`; may derive others."""
        return dict(means)

    def appraise(self, model: torch.nn.Module, rows: Sequence[Row], seconds: float) -> Sums | None:
        """Metrics that need more than a forward pass, such as generating an answer per row. Called after each
        validation with this rank's part of the first `training.appraise_rows` held-out rows. Returns metric -> (sum,
        number); the means are added to the validation metrics and may be monitored. `seconds`: the time limit; a recipe
        that reaches it returns the sums of the rows done so far. None: the family has no such metrics."""
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
        """Called once before training if the model is compiled (training.compile). The family may replace a function
        that it calls outside of the model (a loss) by `compiled(function)`. Such a function takes and returns tensors,
        the first of which has one row per sample. Default: only the model is compiled."""

    #: None: the engine does the optimizer step (counts, losses, AdamW). A family with another kind of step (several
    #: optimizer steps in one, truncated back-propagation) sets a callable (see OwnStep in engine/step/step_context.py).
    own_step: ClassVar[Callable[..., Any] | None] = None

    #: "autocast": as set by training.amp. "float32": amp is refused with `dtype_reason`. "bfloat16_base": frozen
    #: parameters are kept in bfloat16, trained ones in float32, and computation is autocast to bfloat16;
    #: "float16_base": the same with float16, for GPUs without bfloat16.
    dtype_policy: ClassVar[DtypePolicy] = "autocast"
    dtype_reason: ClassVar[str] = ""

    #: Parallelism on several GPUs; may be a property that depends on the settings. "ddp": a replica on each rank.
    #: "fsdp": the parameters of `blocks`, their gradients and their optimizer state are divided among the ranks, for a
    #: model that one GPU does not hold.
    parallel: ClassVar[Literal["ddp", "fsdp"]] = "ddp"

    #: Whether the initial weights are a result already, such as those of a regression that the network begins with; may
    #: be a property that depends on the settings. They are then evaluated before step 1, and are best.pt until an
    #: evaluation is better: a training never ends with a worse model than it began with.
    starts_trained: ClassVar[bool] = False

    def blocks(self, model: torch.nn.Module) -> Sequence[torch.nn.Module]:
        """Under "fsdp": the modules that are sharded, such as the layers of a transformer. A rank holds its share of
        all of them, and one complete block at a time.

        Every forward pass must call each once, in this order, and `losses` must run as many passes for every batch, and
        no backward pass, whose order could differ between ranks. A parameter must be in one block or in none; those in
        none are replicated."""
        return ()

    def saved(self, model: torch.nn.Module) -> Collection[str] | None:
        """The names in the state_dict that a checkpoint contains; None: all. The others are frozen: a checkpoint
        contains their hash, and a resume with other frozen tensors is refused."""
        return None

    def room(self, model: torch.nn.Module) -> Room:
        """The space that the run needs in addition to its checkpoints. Default: exports of eight times the float32
        weights (full and step graphs, int8, CoreML, weights); memory unknown."""
        return Room(exports=8 * sum(parameter.numel() * 4 for parameter in model.parameters()))


class Fitted(Recipe):
    """A family that is fitted in rounds, for example a boosted tree or one sweep of an iterative solver per round.

    A state is any object that `dump` and `load` reproduce exactly: on a CPU, a run that is killed and resumed must end
    in the same bytes as one that is not.
    """

    @abstractmethod
    def begin(self, rows: Mapping[str, Sequence[Row]], constants: Arrays, seed: int) -> Any:
        """The state before the first round. `rows`: the splits train and val; a state may refer to their data in
        memory, but `dump` leaves it out. `constants`: of `fit_constants`."""

    @abstractmethod
    def advance(self, state: Any, rounds: int) -> Any:
        """The state after so many more rounds. The result must not depend on how the rounds are divided into calls."""

    @abstractmethod
    def score(self, state: Any, split: Literal["train", "val"]) -> dict[str, float]:
        """Metrics on a split of `begin`'s rows. For `val`, they must include `val_loss`."""

    @abstractmethod
    def dump(self, state: Any) -> bytes:
        """What `load` needs to continue and to predict. Deterministic: equal states give equal bytes."""

    @abstractmethod
    def load(self, content: bytes, rows: Mapping[str, Sequence[Row]] | None, constants: Arrays) -> Any:
        """The state that was dumped. Without `rows`, it can predict and be exported, but not advance."""

    def rounds(self) -> int:
        """Rounds of the complete run. Default: `training.max_steps`, or `training.epochs` if it is not set."""
        return self.settings.training.max_steps or self.settings.training.epochs

    #: Rounds per call of `advance`. Between two calls the engine checks the time, signals, and whether to save or log.
    chunk: ClassVar[int] = 10
