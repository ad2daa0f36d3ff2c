"""An exponential moving average of the weights. Where it is enabled, it is what is evaluated, selected and exported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from training.engine.process.sharding import local


class EMA:
    """average = d * average + (1 - d) * weights after every step (averaging: Polyak & Juditsky 1992), where
    d = min(decay, (1 + step) / (10 + step)), as in TensorFlow's ExponentialMovingAverage: a smaller d at first, so that
    the random initial weights lose their influence quickly."""

    def __init__(self, model: torch.nn.Module, decay: float):
        self.model = model
        self.decay = decay
        self.live = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.shadow = {name: p.detach().clone() for name, p in self.live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average with the weights after optimizer step `step` (0 is the first)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        shadow, live = ([local(value) for value in values.values()] for values in (self.shadow, self.live))
        torch._foreach_lerp_(shadow, live, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within this context the model has the averaged weights; afterwards its own again, bit for bit."""
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
        """The model's state dict (or `saved`, a part of it) with the averaged weights in place of the current ones."""
        state = self.model.state_dict() if saved is None else saved
        return {name: self.shadow.get(name, value).detach() for name, value in state.items()}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Load the `ema` of a checkpoint."""
        for name, value in self.shadow.items():
            value.copy_(state[name])
