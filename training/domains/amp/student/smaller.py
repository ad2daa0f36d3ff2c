"""A smaller architecture of the same format (`--student nano`), and the network of it that training begins with.

Half the channels (or LSTM units), and at most those of MOST. Nothing else changes: layers, kernels, dilations and
activations stay, so every player of the format loads the file. The network begins with those channels of the original
that weigh most in what follows them, and with the output layer that brings it closest to the original on guitar.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from training.domains.amp.captures import Capture, parse_capture, weights_of
from training.domains.amp.formats.document import parse, written
from training.domains.amp.formats.proteus import tensors
from training.domains.amp.networks.lstm import LSTM
from training.domains.amp.networks.network import Network
from training.domains.amp.networks.wavenet import LayerArray, WaveNet
from training.domains.amp.plucks import playing
from training.errors import DataError

#: The most channels of the layer arrays in files of version 0.5 (neural-amp-modeler's size "nano"; the last holds for
#: further arrays), the most in those of 0.7 (the smaller network of a usual container), and the most LSTM units.
MOST_A1, MOST_A2, MOST_UNITS = (4, 2), 3, 8
_SECONDS, _SEED, _RIDGE = 2.0, 3, 1e-6  # of the guitar for the output layer


def smaller(capture: Capture) -> tuple[Capture, tuple[Network, ...]]:
    """The capture with a smaller architecture in its file (`content`), NAME.nano, and the network of it to begin with.

    `networks`, digest and metadata of the capture stay those of the original: loudness and gain of what is written are
    measured against it. Raises DataError where there is no smaller network.
    """
    if len(capture.networks) > 1:
        raise DataError(
            f"{capture.name}: a container already holds smaller networks; --student nano takes captures of one network."
        )
    original = capture.network
    document = copy.deepcopy(parse(capture.content))
    made = _smaller_lstm(original, document) if isinstance(original, LSTM) else _smaller_wavenet(original, document)
    if made is None:
        raise DataError(f"{capture.name}: its network has one channel, and there is no smaller one (--student nano).")
    _fit_output(made, original)
    made.rest()
    content = written(_with_weights(document, made, capture.format), capture.content)
    read = parse_capture(content, capture.name, capture.sample_rate)
    return dataclasses.replace(capture, name=f"{capture.name}.nano", content=content), read.networks


def share(smaller: Network, original: Network) -> float:
    """The number of its parameters as a share of the original's."""
    count, of = (sum(one.numel() for one in network.parameters()) for network in (smaller, original))
    return count / of


def _fewer(count: int, most: int) -> int:
    return min(most, -(-count // 2))


def _largest(score: Tensor, count: int) -> Tensor:
    """The places of the `count` largest values, in ascending order."""
    return score.topk(count).indices.sort().values


# -- WaveNet -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Kept:
    """Which channels of a layer array stay: of its residual path, and of its activations."""

    residual: Tensor
    activations: Tensor

    @classmethod
    def of(cls, array: LayerArray, most: int) -> _Kept:
        read = torch.stack([layer.conv.weight.square().sum((0, 2)) for layer in array.layers]).sum(0)
        heard = array.head.weight.square().sum((0, 2))
        shape = array.shape
        if shape.channels == shape.bottleneck:
            both = _largest(read / read.sum() + heard / heard.sum(), _fewer(shape.channels, most))
            return cls(both, both)
        return cls(*(_largest(score, _fewer(len(score), most)) for score in (read, heard)))


@torch.no_grad()
def _smaller_wavenet(original: WaveNet, document: dict[str, Any]) -> WaveNet | None:
    configs = document["config"]["layers"]
    most = [MOST_A1[min(n, 1)] if "head_size" in of else MOST_A2 for n, of in enumerate(configs)]
    kept = [_Kept.of(array, limit) for array, limit in zip(original.arrays, most, strict=True)]
    if all(len(one.residual) == shape.channels for one, shape in zip(kept, original.shapes, strict=True)):
        return None
    shapes, inputs = [], torch.zeros(1, dtype=torch.long)
    for shape, one, config, after in zip(original.shapes, kept, configs, [*kept[1:], None], strict=True):
        head = len(after.activations) if after else shape.head
        shapes.append(
            dataclasses.replace(shape, inputs=len(inputs), channels=len(one.residual),
                                bottleneck=len(one.activations), head=head)
        )  # fmt: skip
        inputs = one.residual
        config |= {"input_size": shapes[-1].inputs, "channels": shapes[-1].channels}
        if "head_size" in config:
            config["head_size"] = head
        else:
            config["head"] = {**config["head"], "out_channels": head}
            config |= {"bottleneck": shapes[-1].bottleneck} if "bottleneck" in config else {}
    made = WaveNet(tuple(shapes), original.head_scale, original.sample_rate).eval()
    for place, (new, old) in enumerate(zip(made.arrays, original.arrays, strict=True)):
        before = kept[place - 1].residual if place else torch.zeros(1, dtype=torch.long)
        after = kept[place + 1].activations if place + 1 < len(kept) else torch.arange(old.shape.head)
        _copy_array(new, old, kept[place], before, after)
    return made


def _copy_array(new: LayerArray, old: LayerArray, kept: _Kept, before: Tensor, after: Tensor) -> None:
    """`before`: the kept channels of the array's input; `after`: those of its head's output."""
    _copy(new.rechannel, old.rechannel, kept.residual, before)
    for to, layer in zip(new.layers, old.layers, strict=True):
        gated = layer.shape.gating != "none"
        rows = torch.cat([kept.activations, kept.activations + old.shape.bottleneck]) if gated else kept.activations
        _copy(to.conv, layer.conv, rows, kept.residual)
        to.mixer.weight.copy_(layer.mixer.weight[rows])
        if layer.layer1x1 is not None:
            _copy(to.layer1x1, layer.layer1x1, kept.residual, kept.activations)
    _copy(new.head, old.head, after, kept.activations)


def _copy(new: nn.Conv1d, old: nn.Conv1d, rows: Tensor, columns: Tensor) -> None:
    new.weight.copy_(old.weight[rows][:, columns])
    if old.bias is not None:
        new.bias.copy_(old.bias[rows])


# -- LSTM --------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def _smaller_lstm(original: LSTM, document: dict[str, Any]) -> LSTM | None:
    units, count = original.core.hidden_size, original.core.num_layers
    fewer = _fewer(units, MOST_UNITS)
    if fewer == units:
        return None
    made = LSTM(count, fewer, original.sample_rate, skip=original.skip, settles=original.settles).eval()
    old = list(original.layers())
    readers = [layer[0] for layer in old[1:]] + [original.head.weight]
    kept = [_largest(reader.square().sum(0), fewer) for reader in readers]
    before = torch.zeros(1, dtype=torch.long)
    for to, layer, units_kept in zip(made.layers(), old, kept, strict=True):
        rows = torch.cat([gate * units + units_kept for gate in range(4)])
        of_input, of_hidden, *biases = layer
        to[0].copy_(of_input[rows][:, before])
        to[1].copy_(of_hidden[rows][:, units_kept])
        for new, bias in zip(to[2:], biases, strict=True):
            new.copy_(bias[rows])
        before = units_kept
    made.head.weight.copy_(original.head.weight[:, before])
    made.head.bias.copy_(original.head.bias)
    (document["config"] if "config" in document else document["model_data"])["hidden_size"] = fewer
    return made


# -- both --------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def _fit_output(made: Network, original: Network) -> None:
    """Set the weights of the output layer to those that are closest to the original's answer to guitar, in the mean
    square: the answer is linear in them, so that each one's part is the answer with that weight alone."""
    sound = torch.from_numpy(playing(_SECONDS, original.sample_rate, _SEED))[None]
    weight = made.head.weight if isinstance(made, LSTM) else made.arrays[-1].head.weight
    first, places = weight.clone(), range(weight.numel())

    def answer(values: Tensor) -> Tensor:
        weight.copy_(values.reshape(weight.shape))
        return made.play(sound)[0].double()

    rest = answer(torch.zeros_like(first))
    parts = torch.stack([answer(torch.eye(len(places))[place]) - rest for place in places], 1)
    target = original.play(sound)[0].double() - rest
    square = parts.T @ parts
    square += _RIDGE * square.diagonal().mean() * torch.eye(len(places), dtype=torch.float64)
    answer(torch.linalg.solve(square, parts.T @ target).float())


def _with_weights(document: dict[str, Any], made: Network, format: str) -> dict[str, Any]:
    if format == "nam":
        document["weights"] = weights_of(made, format).tolist()
        return document
    data = document["model_data"]
    names = tensors(int(data.get("num_layers", 1)), int(data["hidden_size"]))
    values: Sequence[Tensor] = list(made.parameters())
    document["state_dict"] = {name: value.tolist() for name, value in zip(names, values, strict=True)}
    return document
