"""The LSTM of neural-amp-modeler, and that of GuitarML's Automated-GuitarAmpModelling (Proteus)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from training.domains.amp.networks.network import Network, State

_SETTLE = 48_000  # samples of silence before the state at rest, from zeros: as in neural-amp-modeler


class LSTM(Network):
    """Layers of LSTM cells and a linear head; with `skip`, the input is added to the output (GuitarML).

    Its state: hidden and cell values, each [batch, layers, hidden].
    """

    receptive_field = 0

    def __init__(self, layers: int, hidden: int, sample_rate: int, *, skip: bool = False, settles: bool = False):
        """`settles`: its players start from the state after silence, which the file holds; else from zeros."""
        super().__init__()
        self.sample_rate, self.skip, self.settles = sample_rate, skip, settles
        self.core = nn.LSTM(1, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, 1)
        self.register_buffer("hidden", torch.zeros(layers, hidden))  # the state at rest
        self.register_buffer("cell", torch.zeros(layers, hidden))

    def start(self, batch: int) -> State:
        return tuple(value[None].repeat(batch, 1, 1) for value in (self.hidden, self.cell))

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        before = tuple(value.transpose(0, 1).contiguous() for value in state)
        features, after = self.core(x[:, :, None], before)
        y = self.head(features)[:, :, 0]
        return y + x if self.skip else y, tuple(value.transpose(0, 1) for value in after)

    def valid(self, x: Tensor) -> Tensor:
        return self(x, self.start(len(x)))[0]

    @torch.no_grad()
    def rest(self) -> None:
        if not self.settles:
            return
        zero = torch.zeros_like(self.hidden)[None]
        _, (hidden, cell) = self(zero.new_zeros(1, _SETTLE), (zero, zero))
        self.hidden.copy_(hidden[0])
        self.cell.copy_(cell[0])

    def layers(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """For each layer: the weights of its input, of its hidden state, and both biases."""
        for number in range(self.core.num_layers):
            yield tuple(
                getattr(self.core, f"{name}_l{number}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )

    def filed(self) -> Iterator[Tensor]:
        """For each layer: rows of [input, hidden] weights, the sum of both biases, and the state at rest; then the
        head."""
        for number, (of_input, of_hidden, bias, second_bias) in enumerate(self.layers()):
            yield torch.cat([of_input, of_hidden], dim=1)
            yield bias + second_bias
            yield self.hidden[number]
            yield self.cell[number]
        yield self.head.weight
        yield self.head.bias
