"""Captures: files of players as networks, and networks as files of the same format."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.data.files import write_atomic
from training.domains.amp.formats import checking, nam, proteus
from training.domains.amp.formats.document import parse, written
from training.domains.amp.loudness import remeasured
from training.domains.amp.networks.lstm import LSTM
from training.domains.amp.networks.network import Network
from training.domains.amp.networks.wavenet import WaveNet


@dataclass(frozen=True)
class Capture:
    """A capture file and its networks."""

    name: str  # the file's name without its ending
    format: str  # "nam" or "proteus"
    architecture: str  # WaveNet, LSTM or SlimmableContainer
    version: str  # of a .nam file; empty otherwise
    networks: tuple[Network, ...]  # the smallest first; several only in a container
    content: bytes  # the file
    digest: str  # SHA-256 of the file
    same: str  # SHA-256 of what decides the sound: equal for the same networks under other names
    notes: tuple[str, ...] = ()  # remarks for its owner
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def network(self) -> Network:
        """The network, or the largest of a container."""
        return self.networks[-1]

    @property
    def sample_rate(self) -> int:
        """In Hz."""
        return self.network.sample_rate

    @property
    def suffix(self) -> str:
        """The ending of its file."""
        return ".nam" if self.format == "nam" else ".json"


def read_capture(path: Path, sample_rate: int | None = None) -> Capture:
    """The capture in a file. `sample_rate`: in Hz, for files that hold none. Raises ValueError with the reason why it
    is none, or none that is supported; OSError."""
    return parse_capture(path.read_bytes(), path.stem, sample_rate)


def parse_capture(content: bytes, name: str = "", sample_rate: int | None = None) -> Capture:
    """The same for a file's content."""
    found = checking.read(content, sample_rate)
    networks = tuple(network_of(model) for model in found.models)
    same = hashlib.sha256()
    for model in found.models:
        same.update(repr((model.architecture, model.sample_rate, model.arrays, model.skip)).encode())
        same.update(model.weights.tobytes())
    return Capture(
        name, checking.format_of(content), found.architecture, found.version, networks, content,
        hashlib.sha256(content).hexdigest(), same.hexdigest(), found.notes, found.metadata,
    )  # fmt: skip


def network_of(model: nam.Model) -> Network:
    """The torch module of a network that was read, in eval mode."""
    if model.architecture == "WaveNet":
        network = WaveNet(model.arrays, model.head_scale, model.sample_rate)
        _fill(network.parameters(), model.weights[:-1])
        return network.eval()
    lstm = LSTM(model.layers, model.hidden, model.sample_rate, skip=model.skip, settles=not model.split_bias)
    if model.split_bias:
        _fill(lstm.parameters(), model.weights)
    else:
        _fill_summed(lstm, model.weights)
    return lstm.eval()


def write_capture(
    capture: Capture, networks: Sequence[Network], path: Path, athanor: Mapping[str, Any] | None = None
) -> None:
    """Write the capture's file with other weights: the same format, keys and version.

    `networks`: of the shapes of `capture.networks`. Where they differ from those, their states at rest, and `loudness`
    and `gain` in the metadata, are computed again. `athanor`: written into the metadata; None: nothing is.
    """
    document = parse(capture.content)
    formats = {"nam": nam, "proteus": proteus}
    new = [weights_of(network, capture.format) for network in networks]
    old = [weights_of(network, capture.format) for network in capture.networks]
    changed = any(not np.array_equal(one, other) for one, other in zip(new, old, strict=True))
    measured = None
    if changed:
        for network in networks:
            network.rest()
        new = [weights_of(network, capture.format) for network in networks]
        measured = remeasured(capture.metadata, capture.network, networks[-1])
    document = formats[capture.format].with_weights(document, new, measured, athanor)
    write_atomic(path, written(document, capture.content))


def weights_of(network: Network, format: str) -> np.ndarray:
    """The network's weights in the order of a file: float32 [n]."""
    tensors = network.parameters() if format == "proteus" else network.filed()
    parts = [tensor.detach().float().cpu().reshape(-1).numpy() for tensor in tensors]
    if isinstance(network, WaveNet):
        parts.append(np.array([network.head_scale], np.float32))
    return np.concatenate(parts)


@torch.no_grad()
def _fill(tensors, values: np.ndarray) -> None:
    """Copy float32 [n] into the tensors, one after the other."""
    at = 0
    for tensor in tensors:
        tensor.copy_(torch.from_numpy(values[at : at + tensor.numel()]).reshape(tensor.shape))
        at += tensor.numel()
    assert at == len(values)


@torch.no_grad()
def _fill_summed(lstm: LSTM, values: np.ndarray) -> None:
    """Weights of a .nam file: its one bias becomes the first, and the second is zero and stays so."""
    rest, at = torch.from_numpy(values), 0

    def take(*shape: int) -> torch.Tensor:
        nonlocal at
        size = int(np.prod(shape))
        at += size
        return rest[at - size : at].reshape(shape)

    for number, (of_input, of_hidden, bias, second_bias) in enumerate(lstm.layers()):
        rows = take(len(of_input), of_input.shape[1] + of_hidden.shape[1])
        of_input.copy_(rows[:, : of_input.shape[1]])
        of_hidden.copy_(rows[:, of_input.shape[1] :])
        bias.copy_(take(len(bias)))
        second_bias.zero_()
        second_bias.requires_grad_(False)
        lstm.hidden[number] = take(lstm.hidden.shape[1])
        lstm.cell[number] = take(lstm.cell.shape[1])
    lstm.head.weight.copy_(take(*lstm.head.weight.shape))
    lstm.head.bias.copy_(take(1))


def item_name(path: Path, root: Path) -> str:
    """A name for the runs of a capture: letters, digits, dots, dashes and underscores of its path under `root`."""
    text = path.relative_to(root).with_suffix("").as_posix()
    kept = "".join(char if char.isascii() and (char.isalnum() or char in "-_.") else "_" for char in text)
    return kept.strip("._-")[:80].rstrip("._-") or f"capture_{hashlib.sha256(os.fsencode(text)).hexdigest()[:8]}"
