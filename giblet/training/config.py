"""The configuration of a training, and the engine's settings that follow from it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from training.errors import UsageError

VOLUMES = 64  # of a window of the autoencoder: `batch_size` counts volumes
_LIMITS: dict[str, tuple[float, str]] = {
    "learning_rate": (1e-12, "a positive number"), "batch_size": (1, "at least 1"), "num_epochs": (1, "at least 1"),
    "save_every": (1, "at least 1"), "validate_every": (1, "at least 1"), "early_stopping_patience": (1, "at least 1"),
}  # fmt: skip
_CHOICES = {
    "fmri_loss_type": ("mse", "mae", "correlation"), "scheduler_type": ("cosine", "step", "none"),
}  # fmt: skip


@dataclass
class TrainingConfig:
    """Every key acts, or is refused with UsageError when the object is made.

    `batch_size` counts volumes of the film per process. `warmup_epochs` belongs to the cosine schedule. Mixed precision
    is used on a GPU: bfloat16 where it has it, else float16 with a scaled loss. An epoch checkpoint is
    checkpoint_epoch_N.pt; a run of the same settings and data that is in `checkpoint_dir` is continued.
    """

    learning_rate: float = 1e-4
    batch_size: int = 64
    num_epochs: int = 100
    weight_decay: float = 1e-5
    reconstruction_weight: float = 1.0
    fmri_weight: float = 1.0
    video_weight: float = 1.0
    audio_weight: float = 1.0
    text_weight: float = 1.0
    fmri_loss_type: str = "mse"
    scheduler_type: str = "cosine"
    warmup_epochs: int = 5
    min_lr: float = 1e-6
    gradient_clip_val: float = 1.0
    use_mixed_precision: bool = True
    num_workers: int = 4
    pin_memory: bool = True
    checkpoint_dir: str = "checkpoints"
    log_dir: str = "logs"
    save_every: int = 5
    validate_every: int = 1
    early_stopping_patience: int = 10
    early_stopping_delta: float = 1e-4
    resume_from: str | None = None

    def __post_init__(self) -> None:
        kinds = get_type_hints(type(self))
        for name, kind in kinds.items():
            value = getattr(self, name)
            if kind is float and isinstance(value, int) and not isinstance(value, bool):
                setattr(self, name, float(value))
            elif kind in (int, float, bool, str) and (not isinstance(value, kind) or (kind is int and value is True)):
                raise UsageError(f"{name} should be {kind.__name__}; it is {value!r}.")
            if kind in (int, float) and not value >= _LIMITS.get(name, (0, ""))[0]:
                raise UsageError(f"{name} should be {_LIMITS.get(name, (0, 'at least 0'))[1]}; it is {value!r}.")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise UsageError(f"{name} should be one of {', '.join(choices)}; it is {getattr(self, name)!r}.")
        if self.scheduler_type == "step":
            raise UsageError(
                "scheduler_type: step is not supported: a rate that falls tenfold every 30 epochs depends on how many "
                "epochs there are. Use cosine or none."
            )
        if self.min_lr > self.learning_rate:
            raise UsageError(f"min_lr ({self.min_lr:g}) is above learning_rate ({self.learning_rate:g}).")
        if not self.pin_memory:
            raise UsageError("pin_memory: false is not supported: the engine pins batches where there is a GPU.")

    @classmethod
    def of(cls, values: Mapping[str, Any], place: str = "the configuration") -> TrainingConfig:
        """From a mapping. Raises UsageError for an unknown key, with the nearest one."""
        known = [one.name for one in fields(cls)]
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                raise UsageError(
                    f"{place}: there is no key `{key}`" + (f"; did you mean `{near[0]}`?" if near else ".")
                )
        return cls(**values)

    def settings(self, device: str, windows: bool) -> dict[str, Any]:
        """The engine's settings (training/settings.py). `device`: cpu or cuda. `windows`: whether a sample is a window
        of VOLUMES volumes; else it is one volume."""
        cosine = self.scheduler_type == "cosine"
        size = max(1, round(self.batch_size / VOLUMES)) if windows else self.batch_size
        return {
            "training": {
                "epochs": self.num_epochs, "amp": self.use_mixed_precision and device == "cuda",
                "amp_dtype": "bfloat16" if _has_bfloat16(device) else "float16", "eval_every": self.validate_every,
                "save_every": self.save_every, "keep": self.num_epochs // self.save_every + 1,
                "log_every": 1, "resume_from": self.resume_from,
                "early_stopping": {"patience": self.early_stopping_patience, "min_delta": self.early_stopping_delta},
            },
            "data": {"batch_size": size, "num_workers": self.num_workers},
            "optim": {
                "lr": self.learning_rate, "weight_decay": self.weight_decay, "grad_clip": self.gradient_clip_val,
            },
            "scheduler": {
                "name": "cosine" if cosine else "constant", "warmup_steps": 0,
                "warmup_ratio": min(1.0, self.warmup_epochs / self.num_epochs) if cosine else None,
                "min_lr_ratio": self.min_lr / self.learning_rate if cosine else 0.0,
            },
            "logging": {"tensorboard": True},
        }  # fmt: skip

    def objective(self) -> dict[str, Any]:
        """The settings of the autoencoder's loss (training/domains/brain/autoencoder/settings.py)."""
        names = ("fmri_weight", "reconstruction_weight", "video_weight", "audio_weight", "text_weight")
        return {name: getattr(self, name) for name in names} | {"fmri": self.fmri_loss_type}


def _has_bfloat16(device: str) -> bool:
    if device != "cuda":
        return False
    import torch

    return torch.cuda.is_bf16_supported()
