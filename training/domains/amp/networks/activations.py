"""Activation functions of captures, under the names of neural-amp-modeler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

#: Name -> its parameters with their defaults.
PARAMETERS: dict[str, dict[str, float]] = {
    "Tanh": {},
    "Sigmoid": {},
    "ReLU": {},
    "SiLU": {},
    "Hardswish": {},
    "Softsign": {},
    "LeakyReLU": {"negative_slope": 0.01},
    "Hardtanh": {"min_val": -1.0, "max_val": 1.0},
    "LeakyHardtanh": {"min_val": -1.0, "max_val": 1.0, "min_slope": 0.01, "max_slope": 0.01},
}


@dataclass(frozen=True)
class Activation:
    """An activation function and its parameters. Raises ValueError, naming it, for an unknown one."""

    name: str
    parameters: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in PARAMETERS:
            raise ValueError(f"activation `{self.name}` is not supported; known are {', '.join(PARAMETERS)}")
        unknown = set(self.parameters) - set(PARAMETERS[self.name])
        if unknown:
            raise ValueError(f"`{min(unknown)}` of activation {self.name} is not supported")

    def function(self) -> Callable[[Tensor], Tensor]:
        values = PARAMETERS[self.name] | dict(self.parameters)
        match self.name:
            case "Tanh":
                return torch.tanh
            case "Sigmoid":
                return torch.sigmoid
            case "ReLU":
                return torch.relu
            case "SiLU":
                return functional.silu
            case "Hardswish":
                return functional.hardswish
            case "Softsign":
                return _softsign
            case "LeakyReLU":
                return partial(functional.leaky_relu, **values)
            case "Hardtanh":
                return partial(functional.hardtanh, **values)
            case _:
                return partial(_leaky_hardtanh, **values)


def _softsign(x: Tensor) -> Tensor:
    return x / (1.0 + torch.abs(x))


def _leaky_hardtanh(x: Tensor, min_val: float, max_val: float, min_slope: float, max_slope: float) -> Tensor:
    """The identity between min_val and max_val, and lines with the given slopes beyond them."""
    below = torch.where(x < min_val, (x - min_val) * min_slope + min_val, x)
    return torch.where(x > max_val, (x - max_val) * max_slope + max_val, below)
