"""amp_stream.onnx: a capture's network for blocks of any length, with its state as inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from training.domains.amp.exports.lstm_onnx import reference_lstm, write_lstm
from training.domains.amp.networks.lstm import LSTM
from training.domains.amp.networks.network import Network
from training.graphs import Graph, Recurrence, TensorSpec

NAME = "amp_stream"
LONGEST = 65_536  # samples of a block
#: Of the comparison along a sequence: an odd block, which no power of two hides.
BLOCK, STEPS = 113, 20
TOLERANCE = 1e-4


class _Stream(nn.Module):
    """audio [1, block], state -> sound [1, block], state."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network

    def forward(self, audio: torch.Tensor, *state: torch.Tensor) -> tuple[torch.Tensor, ...]:
        sound, after = self.network(audio, state)
        return sound, *after


def graphs(networks: Sequence[Network]) -> list[Graph]:
    """One graph per network: amp_stream for the largest, amp_stream_1 and so on for the smaller ones of a container."""
    for network in networks:
        network.rest()
    names = [f"{NAME}_{number}" for number in range(1, len(networks))] + [NAME]
    return [_graph(name, network) for name, network in zip(names, networks, strict=True)]


def _graph(name: str, network: Network) -> Graph:
    start = [value.detach().cpu().numpy() for value in network.start(1)]
    inputs = [f"state_{number}" for number in range(len(start))]
    outputs = [f"next_{number}" for number in range(len(start))]
    audio = TensorSpec("audio", "float32", (1, "block"), f"the guitar at {network.sample_rate} Hz, full scale 1")
    sound = TensorSpec("sound", "float32", (1, "block"), "the amplifier, the same length; no latency")

    def specs(names: Sequence[str], meaning: str) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(one, "float32", value.shape, meaning) for one, value in zip(names, start, strict=True))

    def example(sizes: Mapping[str, int], seed: int) -> tuple[np.ndarray, ...]:
        random = np.random.default_rng(seed)
        return (0.3 * random.standard_normal((1, sizes["block"]))).astype(np.float32), *start

    common = {
        "inputs": (audio, *specs(inputs, f"{inputs[0]}.. of the first block: in this file's golden file")),
        "outputs": (sound, *specs(outputs, "of the next block")),
        "axes": {"block": (1, LONGEST)},
        "example": example,
        "trials": ({"block": 1}, {"block": 64}, {"block": 333}),
        "tolerance": TOLERANCE,
        "metadata": {"sample_rate": str(network.sample_rate)},
        # its own sequence in one block is what blocks of BLOCK samples are compared with
        "recurrence": Recurrence(
            name, ("audio",), tuple(zip(inputs, outputs, strict=True)), "sound", STEPS, BLOCK,
            {one: value[0] for one, value in zip(inputs, start, strict=True)},
        ),
    }  # fmt: skip
    if isinstance(network, LSTM):
        # torch's exporter fixes the length of an LSTM's sequence
        def write(path: Path) -> None:
            write_lstm(network, path)

        return Graph(name, None, write=write, reference=lambda given: reference_lstm(network, given), **common)
    return Graph(name, _Stream(network).eval(), formats=("onnx", "coreml"), **common)
