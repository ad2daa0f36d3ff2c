"""The settings that all families share; those of a family (`model`, `loss`, `augment` ...) are next to its code.

The YAML files (training/cuda_session/*.yaml) have the meaning of each key in a comment above it.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from training.config import Section

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]


class Constraint(Section):
    """A bound on another metric, which an evaluation must satisfy to be the best one."""

    metric: str | None = None  # a validation metric; None: no constraint
    at_most: float | None = None
    at_least: float | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> Constraint:
        bounds = sum(bound is not None for bound in (self.at_most, self.at_least))
        if bounds != (self.metric is not None):
            raise ValueError("consistent: a metric with exactly one of at_most and at_least, or none of the three")
        return self


class EarlyStopping(Section):
    """Stop when the monitored value has not improved by `min_delta` in `patience` evaluations."""

    enabled: bool = True
    patience: AtLeastOne = 10
    min_delta: Annotated[float, Field(ge=0)] = 0.001
    monitor: str = "val_loss"  # a validation metric
    direction: Literal["lower", "higher"] = "lower"  # which of its values are better
    # Only evaluations that satisfy it are candidates for best.pt; as long as none does, the smallest violation is best.
    constraint: Constraint = Constraint()


class Training(Section):
    epochs: AtLeastOne = 20
    min_epochs: Count = 0  # early stopping never stops before this epoch
    max_steps: AtLeastOne | None = None  # optimizer steps; ends the run before `epochs` do
    # of training, evaluations included: the run and its learning rate end within this time, however fast the host is
    max_minutes: Positive | None = None
    early_stopping: EarlyStopping = EarlyStopping()
    amp: bool = False  # mixed precision
    amp_dtype: Literal["bfloat16", "float16"] = "bfloat16"
    grad_accum_steps: AtLeastOne = 1
    resume_from: str | None = None  # a checkpoint to continue from
    log_every: AtLeastOne = 10  # optimizer steps
    eval_every: AtLeastOne = 1  # epochs
    eval_steps: AtLeastOne | None = None  # optimizer steps: an evaluation in the middle of an epoch too; None: no
    save_every: AtLeastOne = 5  # epochs: a checkpoint_epoch_N.pt
    save_steps: AtLeastOne | None = None  # optimizer steps: a checkpoint_step_N.pt; None: no
    keep: AtLeastOne = (
        3  # how many checkpoint_epoch_N.pt and checkpoint_step_N.pt are kept, besides best.pt and last.pt
    )
    save_minutes: Positive = 10.0  # longest interval between two saves of last.pt, in the middle of an epoch too
    # after this time without a step or a held-out batch, a process prints its stacks and ends; 0: never
    hang_minutes: Annotated[float, Field(ge=0)] = 15.0
    appraise_rows: Count = 0  # held-out rows that Stepped.appraise gets after each evaluation; 0: it is not called
    appraise_seconds: Positive = 60.0  # its time limit on each process
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0  # 0: no averaged weights
    compile: bool = False  # torch.compile, where a C compiler exists


class Data(Section):
    train_manifest: str | None = None  # default: the workspace's own
    val_manifest: str | None = None
    batch_size: AtLeastOne = 32  # samples in a micro-batch of each process (GPU)
    num_workers: Count = 2  # data loader workers of each process (GPU)
    prefetch_factor: AtLeastOne = 2  # batches that each data loader worker prepares ahead
    cache_dir: str | None = None  # default: the workspace's cache/


class Optim(Section):
    lr: Positive = 3e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    eps: Positive = 1e-8
    grad_clip: Annotated[float, Field(ge=0)] = 1.0  # largest gradient norm; 0: no clipping


class Scheduler(Section):
    name: Literal["cosine", "linear", "constant", "wsd"] = "cosine"  # wsd: warmup-stable-decay
    warmup_steps: Count = 100
    warmup_ratio: Fraction | None = None  # of the steps of the run; replaces warmup_steps. None: warmup_steps
    min_lr_ratio: Fraction = 0.1  # the rate's floor, as a share of optim.lr
    decay_fraction: Fraction = 0.2  # wsd only: the share of all steps in which the rate decays


class Logging(Section):
    tensorboard: bool = True
    wandb: Literal["off", "online", "offline"] = "off"
    wandb_project: str = "athanor"


class RunSettings(Section):
    """The sections that every config has; a family adds its own."""

    #: Keys of a family's own sections ("model.base"; or a complete section) in which a checkpoint and the run that
    #: continues it may differ: where something is, how results are measured. All others decide about the weights.
    resumable: ClassVar[tuple[str, ...]] = ()

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 42
    training: Training = Training()
    data: Data = Data()
    optim: Optim = Optim()
    scheduler: Scheduler = Scheduler()
    logging: Logging = Logging()

    @model_validator(mode="after")
    def _fits_together(self) -> RunSettings:
        if self.training.min_epochs > self.training.epochs:
            raise ValueError("consistent: training.min_epochs is larger than training.epochs")
        return self
