"""A base whose linear layers are held in four bits: NF4 (Dettmers et al. 2023, "QLoRA"), by the library bitsandbytes.

A base of 7 billion parameters takes 4.5 GB instead of 15. Its weights are quantised on the CPU when they are read,
whatever device trains, so that every device has the same ones.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from training.errors import UsageError

BLOCK = 64  # weights that share a scale
QUANTIZED = "Linear4bit"  # the name of bitsandbytes' layer: to ask for it must not need the library


def configuration(dtype: torch.dtype, double: bool) -> Any:
    """For transformers' `from_pretrained`. `dtype`: of the products. `double`: the scales are quantised, too. Raises
    UsageError where bitsandbytes is not installed."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UsageError(
            "model.quantization: nf4 needs the package bitsandbytes, which is not installed here. Install the "
            "environment again (scripts/setup_env.sh sql), or set model.quantization: none."
        )
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=double, bnb_4bit_compute_dtype=dtype
    )


def settle(model: torch.nn.Module) -> None:
    """Check the quantised layers of a model that was just read, and keep the order of their bytes: on some CPUs
    bitsandbytes changes it when it generates, and a checkpoint holds the hash of these bytes. Raises UsageError for a
    layer that bitsandbytes would compute wrongly."""
    for name, module in model.named_modules():
        if not is_quantized(module):
            continue
        if module.in_features % BLOCK:  # 0.50 takes the scale of another block then, on a CPU
            raise UsageError(
                f"--base: {name} has {module.in_features} inputs, which four-bit weights cannot have: they come in "
                f"blocks of {BLOCK}. Set model.quantization: none."
            )
        module.support_avx512bf16_for_cpu = False


def compute_in(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Have the products of the quantised layers of `model` computed in `dtype`."""
    for module in model.modules():
        if is_quantized(module):
            module.compute_dtype = dtype  # type: ignore[assignment]


def is_quantized(module: torch.nn.Module) -> bool:
    return type(module).__name__ == QUANTIZED


def dequantized(module: Any) -> torch.Tensor:
    """The weight of a quantised layer, float32 [out, in]."""
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(module.weight.data, module.weight.quant_state).float()


def parameter_count(model: torch.nn.Module) -> int:
    """The number of parameters. A quantised layer holds two in a byte."""
    layers: list[Any] = [module for module in model.modules() if is_quantized(module)]
    inside = {id(layer.weight): layer.in_features * layer.out_features for layer in layers}
    return sum(inside.get(id(parameter), parameter.numel()) for parameter in model.parameters())
