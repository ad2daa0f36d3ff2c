"""The WaveNet of neural-amp-modeler, architectures A1 (files of version 0.5) and A2 (0.7).

A stack of layer arrays. Each has a 1x1 convolution of its input, layers of dilated causal convolutions with a residual
path, and a convolution (the head) of the sum of its layers' activations and of the previous array's head. Source of the
arithmetic and of its order: neural-amp-modeler 0.12 and 0.13, nam/models/wavenet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from training.domains.amp.networks import columns
from training.domains.amp.networks.activations import Activation
from training.domains.amp.networks.network import Network, State

Gating = Literal["none", "gated", "blended"]


@dataclass(frozen=True)
class LayerShape:
    """One layer: its dilated convolution, and what follows it."""

    kernel: int
    dilation: int
    activation: Activation
    gating: Gating = "none"
    secondary: Activation | None = None  # of the gate, if there is one

    @property
    def history(self) -> int:
        """Samples before the current one that its convolution reads."""
        return (self.kernel - 1) * self.dilation


@dataclass(frozen=True)
class ArrayShape:
    """One layer array."""

    inputs: int
    channels: int
    bottleneck: int  # channels after the activation
    layers: tuple[LayerShape, ...]
    head: int  # channels of its head's output
    head_kernel: int
    head_bias: bool
    mixing: bool = True  # whether a 1x1 convolution follows the activation

    @property
    def weights(self) -> int:
        """The number of its weights in a file."""
        count = self.inputs * self.channels + self.head * self.bottleneck * self.head_kernel
        count += self.head * self.head_bias
        for layer in self.layers:
            middle = self.bottleneck * (1 if layer.gating == "none" else 2)
            count += middle * (self.channels * layer.kernel + 1 + 1)  # convolution, its bias, input mixer
            count += self.channels * (self.bottleneck + 1) * self.mixing
        return count

    @property
    def receptive_field(self) -> int:
        return sum(layer.history for layer in self.layers) + self.head_kernel - 1


class Layer(nn.Module):
    """A dilated convolution with the input mixed in, an activation, and the residual path."""

    def __init__(self, shape: LayerShape, array: ArrayShape):
        super().__init__()
        self.shape = shape
        middle = array.bottleneck * (1 if shape.gating == "none" else 2)
        self.conv = nn.Conv1d(array.channels, middle, shape.kernel, dilation=shape.dilation)
        self.mixer = nn.Conv1d(1, middle, 1, bias=False)
        self.layer1x1 = nn.Conv1d(array.bottleneck, array.channels, 1) if array.mixing else None
        self._activate = shape.activation.function()
        self._gate = shape.secondary.function() if shape.secondary is not None else None

    def activation(self, z: Tensor, channels: int = 1) -> Tensor:
        """z [batch, bottleneck or twice that, time] -> [batch, bottleneck, time]. `channels`: the axis of channels."""
        if self._gate is None:
            return self._activate(z)
        first, second = z.chunk(2, dim=channels)
        gate = self._gate(second)
        if self.shape.gating == "gated":
            return self._activate(first) * gate
        return gate * self._activate(first) + (1 - gate) * first

    def forward(self, x: Tensor, sound: Tensor) -> tuple[Tensor, Tensor]:
        """x [batch, channels, history + time], sound [batch, 1, >= time] -> (the next layer's x [batch, channels,
        time], activations [batch, bottleneck, time])."""
        z = self.conv(x)
        time = z.shape[2]
        activated = self.activation(z + self.mixer(sound[:, :, -time:]))
        out = activated if self.layer1x1 is None else self.layer1x1(activated)
        return x[:, :, -time:] + out, activated


class LayerArray(nn.Module):
    """One array. The order of its modules is that of the weights in a file."""

    def __init__(self, shape: ArrayShape):
        super().__init__()
        self.shape = shape
        self.rechannel = nn.Conv1d(shape.inputs, shape.channels, 1, bias=False)
        self.layers = nn.ModuleList([Layer(layer, shape) for layer in shape.layers])
        self.head = nn.Conv1d(shape.bottleneck, shape.head, shape.head_kernel, bias=shape.head_bias)


class WaveNet(Network):
    """The complete network. Its state: the last inputs of every dilated convolution, and of every head with a kernel
    longer than 1."""

    def __init__(self, arrays: tuple[ArrayShape, ...], head_scale: float, sample_rate: int):
        super().__init__()
        self.arrays = nn.ModuleList([LayerArray(shape) for shape in arrays])
        self.shapes, self.head_scale, self.sample_rate = arrays, head_scale, sample_rate
        self.receptive_field = sum(shape.receptive_field for shape in arrays)

    def filed(self) -> Iterator[Tensor]:
        return self.parameters()

    def valid(self, x: Tensor) -> Tensor:
        sound = x[:, None]
        residual, head = sound, None
        for array in self.arrays:
            residual = array.rechannel(residual)
            total = head
            for layer in array.layers:
                residual, activated = layer(residual, sound)
                time = activated.shape[2]
                total = activated if total is None else total[:, :, -time:] + activated
            head = array.head(total)
            residual = residual[:, :, -head.shape[2] :]
        return (self.head_scale * head)[:, 0]

    def training_pass(self, x: Tensor) -> Tensor:
        wide = max(max(shape.channels, shape.bottleneck) for shape in self.shapes) > columns.MOST_CHANNELS
        if wide or x.device.type != "cpu":
            return self.valid(x)
        return self.head_scale * columns.answer(self, x)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        sound = x[:, None]
        before, after = iter(state), []

        def with_history(now: Tensor, length: int) -> Tensor:
            """`now` [batch, channels, time] behind the inputs before it, the last of which are kept for the next
            block."""
            if not length:
                return now
            joined = torch.cat([next(before), now], dim=2)
            after.append(joined[:, :, -length:])
            return joined

        residual, head = sound, None
        for array in self.arrays:
            residual, total = array.rechannel(residual), head
            for layer in array.layers:
                residual, activated = layer(with_history(residual, layer.shape.history), sound)
                total = activated if total is None else total + activated
            head = array.head(with_history(total, array.shape.head_kernel - 1))
        return (self.head_scale * head)[:, 0], tuple(after)

    def start(self, batch: int) -> State:
        """After silence, each convolution has read the same column of inputs for its complete history."""
        weight = next(self.parameters())
        silence = weight.new_zeros(1, 1, 1)
        state: list[Tensor] = []

        def constant(column: Tensor, length: int) -> Tensor:
            """The column [1, channels, 1] for its length in samples, and that history is kept."""
            if length:
                state.append(column.expand(batch, -1, length).contiguous())
            return column.expand(-1, -1, length + 1)

        residual, head = silence, None
        for array in self.arrays:
            residual, total = array.rechannel(residual), head
            for layer in array.layers:
                residual, activated = layer(constant(residual, layer.shape.history), silence)
                total = activated if total is None else total + activated
            head = array.head(constant(total, array.shape.head_kernel - 1))
        return tuple(state)
