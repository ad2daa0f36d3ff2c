"""A WaveNet's pass as matrix products, for training.

Convolutions with few channels take most of a training step in torch on a CPU. Here the channels are the first axis, the
inputs of all taps are the rows of one matrix, batch and time are its columns, and a layer is two products. The sums are
those of `WaveNet.valid` in another order, so the answers differ by rounding. Measured on one core for 6 channels: a
third of the time of the forward pass, and 0.6 of that of both passes; for 8 and 4 channels 0.7 of both; for 16 and 8 it
is slower (docs/amp-training.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from training.domains.amp.networks.wavenet import WaveNet

MOST_CHANNELS = 8  # up to which it is the quicker way


def answer(network: WaveNet, x: Tensor) -> Tensor:
    """x [batch, receptive_field + time] -> [batch, time], without the head's scale."""
    sound = residual = x[None]
    head: Tensor | None = None
    last = network.arrays[-1].layers[-1]
    for array in network.arrays:
        residual, total = _convolved(array.rechannel, residual), head
        for layer in array.layers:
            z = _convolved(layer.conv, residual, layer.mixer, sound)
            time = z.shape[2]
            activated = layer.activation(z, 0)
            total = activated if total is None else total[:, :, -time:] + activated
            if layer is not last:  # nothing reads what it adds to the residual path
                out = activated if layer.layer1x1 is None else _convolved(layer.layer1x1, activated)
                residual = residual[:, :, -time:] + out
        head = _convolved(array.head, total)
        residual = residual[:, :, -head.shape[2] :]
    assert head is not None
    return head[0]


def _convolved(conv: nn.Conv1d, x: Tensor, mixer: nn.Conv1d | None = None, sound: Tensor | None = None) -> Tensor:
    """x [channels, batch, time] through a convolution, and the sound [1, batch, >= time] through `mixer`, summed:
    [channels, batch, time]."""
    taps, dilation = conv.kernel_size[0], conv.dilation[0]
    time = x.shape[2] - dilation * (taps - 1)
    columns = [x[:, :, tap * dilation : tap * dilation + time] for tap in range(taps)]
    weight = conv.weight.permute(0, 2, 1).flatten(1)
    if mixer is not None and sound is not None:
        columns.append(sound[:, :, -time:])
        weight = torch.cat([weight, mixer.weight[:, :, 0]], 1)
    flat = (torch.cat(columns) if len(columns) > 1 else columns[0]).flatten(1)
    z = weight @ flat if conv.bias is None else torch.addmm(conv.bias[:, None], weight, flat)
    return z.view(-1, x.shape[1], time)
