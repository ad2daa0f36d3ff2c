"""An exponential moving average of the weights: what is evaluated, called best, and exported when it is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch


class EMA:
    """`decay` of the average is kept at every step; at first less (Polyak & Juditsky 1992, with the warm-up of
    TensorFlow's ExponentialMovingAverage), so that the random start is soon forgotten."""

    def __init__(self, model: torch.nn.Module, decay: float):
        self.model = model
        self.decay = decay
        self.live = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.shadow = {name: p.detach().clone() for name, p in self.live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimizer step `step` (0 is the first)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.shadow.values()), list(self.live.values()), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the averaged weights inside, and its own again, bit for bit, after."""
        own = {name: p.detach().clone() for name, p in self.live.items()}
        self._put(self.shadow)
        try:
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, values: dict[str, torch.Tensor]) -> None:
        for name, parameter in self.live.items():
            parameter.copy_(values[name])

    def state(self, saved: Mapping[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
        """The model's state dict with averaged weights in place of the current ones: all, or those of `saved`."""
        state = self.model.state_dict() if saved is None else saved
        return {name: self.shadow.get(name, value).detach() for name, value in state.items()}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Continue from a checkpoint's `ema`."""
        for name, value in self.shadow.items():
            value.copy_(state[name])
