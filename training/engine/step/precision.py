"""Mixed precision: which dtype a forward pass computes in, and, for float16 alone, the scaler that its
gradients need. On a processor that would have to emulate bfloat16, that is float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from training.settings import Training

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def emulates_bfloat16() -> bool:
    """Whether this processor has no instructions for bfloat16 (x86: AVX512_BF16, AMX; Arm: BF16). A product of matrices
    then takes four times as long in it as in float32 (measured on a Xeon with AVX-512 alone)."""
    able = torch.cpu.get_capabilities()
    return not any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


class Precision:
    """`dtype` is what autocast computes in (None: the weights' own). Autocast hangs on nothing but the settings and the
    device's abilities; `scaler` is there only for float16, whose range is too narrow for gradients."""

    def __init__(self, settings: Training, device: torch.device):
        self.device = device
        self.dtype = DTYPES[settings.amp_dtype] if settings.amp else None
        self.emulated = self.dtype is torch.bfloat16 and device.type == "cpu" and emulates_bfloat16()
        if self.emulated:
            self.dtype = None
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
        if self.emulated:
            return "float32 (not bfloat16, for which this processor has no instructions)"
        return "float32" if self.dtype is None else f"{str(self.dtype).removeprefix('torch.')} autocast"
