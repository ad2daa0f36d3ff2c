"""Mixed precision: the dtype of a forward pass, and the gradient scaler, which only float16 needs. A processor that
would have to emulate bfloat16 computes in float32 instead."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from training.errors import UsageError
from training.recipe import BASE_DTYPES, DtypePolicy, Stepped
from training.settings import Training

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def emulates_bfloat16() -> bool:
    """Whether this processor has no instructions for bfloat16 (x86: AVX512_BF16, AMX; Arm: BF16). A matrix product then
    takes four times as long in bfloat16 as in float32 (measured on a Xeon with AVX-512 alone)."""
    able = torch.cpu.get_capabilities()
    return not any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def require_precision(recipe: Stepped) -> None:
    """Raise UsageError where the settings require a precision in which the family cannot be trained."""
    if recipe.dtype_policy == "float32" and recipe.settings.training.amp:
        why = recipe.dtype_reason or f"{recipe.title} is trained in float32 only."
        raise UsageError(f"training.amp is true, which this family does not allow: {why} Set training.amp: false.")


def apply_dtype_policy(model: torch.nn.Module, policy: DtypePolicy) -> torch.nn.Module:
    """`model`, its parameters cast to the dtypes of the policy: under "bfloat16_base" frozen ones to bfloat16, under
    "float16_base" to float16, in place."""
    if policy in BASE_DTYPES:
        base = DTYPES[BASE_DTYPES[policy]]
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(torch.float32 if parameter.requires_grad else base)
    return model


class Precision:
    """`dtype`: that of autocast (None: no autocast, the dtype of the weights). It depends on the settings, the family's
    policy and the device alone. `scaler`: only for float16, whose range is too narrow for gradients; else None."""

    def __init__(self, settings: Training, device: torch.device, policy: DtypePolicy = "autocast"):
        self.device = device
        if policy in BASE_DTYPES:  # every device computes in the dtype of the frozen parameters
            self.dtype, self.emulated = DTYPES[BASE_DTYPES[policy]], False
        else:
            self.dtype = DTYPES[settings.amp_dtype] if settings.amp else None
            self.emulated = self.dtype is torch.bfloat16 and device.type == "cpu" and emulates_bfloat16()
        if self.emulated:
            self.dtype = None
        self.scaler = torch.amp.GradScaler(device.type) if self.dtype is torch.float16 else None
        if device.type == "cuda" and (settings.amp or policy in BASE_DTYPES):
            torch.set_float32_matmul_precision("high")  # TF32 for what autocast leaves in float32

    def autocast(self) -> AbstractContextManager[None]:
        """The context of every forward pass, in training and in validation."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of `loss` (times the loss scale) to those that the parameters have."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def __str__(self) -> str:
        if self.emulated:
            return "float32 (not bfloat16, for which this processor has no instructions)"
        return "float32" if self.dtype is None else f"{str(self.dtype).removeprefix('torch.')} autocast"
