"""Mixed precision: which dtype a forward pass computes in, and, for float16 alone, the scaler that its
gradients need."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from training.settings import Training

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Precision:
    """`dtype` is what autocast computes in (None: the weights' own). Autocast hangs on nothing but the settings;
    `scaler` is there only for float16, whose range is too narrow for gradients."""

    def __init__(self, settings: Training, device: torch.device):
        self.device = device
        self.dtype = DTYPES[settings.amp_dtype] if settings.amp else None
        self.scaler = torch.amp.GradScaler(device.type) if self.dtype is torch.float16 else None
        if device.type == "cuda" and settings.amp:
            torch.set_float32_matmul_precision("high")  # TF32 for what autocast leaves in float32

    def autocast(self) -> AbstractContextManager[None]:
        """Around every forward pass, in training and in validation."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of `loss` (times the scaler's factor) to those there."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def __str__(self) -> str:
        return "float32" if self.dtype is None else f"{str(self.dtype).removeprefix('torch.')} autocast"
