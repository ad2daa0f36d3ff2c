"""Makes a folder of twelve captures, of which three are broken, for a job under a budget:

    python -m soak.amp.folder DIR
    ./train_cuda.sh amp --native --captures DIR --preset small --max-hours 1

Their weights are those with which torch begins, with a raised input gain, so that they alias; one was fitted to a
circuit. neural-amp-modeler writes the .nam files (0.12.2: version 0.5 and LSTM; 0.13.0: version 0.7), except for the
container, which it cannot. That one and GuitarML's files are written as in the tests.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.domains.amp import making, small
from tests.domains.amp.players import nam_models
from training.domains.amp.captures import parse_capture, weights_of
from training.domains.amp.networks.network import Network
from training.domains.amp.networks.wavenet import WaveNet
from training.domains.amp.student.groups import input_weights

GAIN, PEAK = 30.0, 0.7  # of the input, and of the output for a loud tone
DILATIONS = [2**power for power in range(7)]  # of ten: a third of the time
#: Channels of both layer arrays of three sizes that neural-amp-modeler has settings for.
SIZES = {"A1 lite": (12, 6), "A1 feather": (8, 4), "A1 nano": (4, 2)}


def make(folder: Path) -> dict[str, str]:
    """Write the files; name -> what is wrong with it, or an empty text."""
    folder.mkdir(parents=True, exist_ok=True)
    old = {name: making.a1(arrays=_arrays(*size)) for name, size in SIZES.items()}
    old |= {"LSTM 1 x 8": making.lstm(hidden=8, layers=1), "LSTM 2 x 12": making.lstm(hidden=12)}
    for version, documents in (("0.12.2", old), ("0.13.0", {"A2": making.a2(channels=8)})):
        with pytest.MonkeyPatch.context() as patch:
            models = nam_models(version, patch)
            for seed, (name, document) in enumerate(documents.items()):
                models.init_from_nam(_begun(document, seed)).export(folder, basename=name)
    container = making.container()
    for seed, entry in enumerate(container["config"]["submodels"]):
        entry["model"] = _begun(entry["model"], seed)
    making.save(folder, "A2 container", container)
    making.save(folder, "GuitarML with skip", _begun(making.proteus(hidden=12), 9))
    making.save(folder, "fitted", small.fitted())
    good = {path.name: "" for path in sorted(folder.iterdir())}
    return good | _broken(folder)


def _broken(folder: Path) -> dict[str, str]:
    short, wild = making.a1(seed=1), making.a1(seed=2)
    short["weights"] = short["weights"][:-7]
    wild["weights"][5] = float("nan")
    made = {
        making.save(folder, "short", short): "seven weights are missing",
        making.save(folder, "wild", wild): "a weight is not a number",
        making.save(folder, "songs.json", b'{"songs": [], "mood": "calm"}'): "another program's file",
    }
    return {path.name: what for path, what in made.items()}


def _arrays(first: int, second: int) -> list[dict[str, Any]]:
    return [
        making.a1_array(1, first, second, DILATIONS),
        making.a1_array(first, second, 1, DILATIONS, head_bias=True),
    ]


def _begun(document: dict[str, Any], seed: int) -> dict[str, Any]:
    """The document with the weights of a new network of torch, louder at its input."""
    capture = parse_capture(making.content(document))
    network = capture.network
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for module in network.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        for weight in input_weights(network):
            weight.mul_(GAIN)
    _level(network)
    if capture.format == "nam":
        document["weights"] = weights_of(network, "nam").tolist()
        if isinstance(network, WaveNet):
            document["config"]["head_scale"] = network.head_scale
        return document
    state = dict(zip(document["state_dict"], network.parameters(), strict=True))
    document["state_dict"] = {name: value.tolist() for name, value in state.items()}
    return document


@torch.no_grad()
def _level(network: Network) -> None:
    """Scale the output to PEAK."""
    tone = torch.sin(2 * torch.pi * 220 / network.sample_rate * torch.arange(9_600))[None]
    factor = PEAK / float(network.play(tone)[0, 4_800:].abs().max())
    if isinstance(network, WaveNet):
        network.head_scale *= factor
    else:
        network.head.weight.mul_(factor)
        network.head.bias.mul_(factor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    for name, what in make(parser.parse_args().folder).items():
        print(name + (f": broken, {what}" if what else ""))


if __name__ == "__main__":
    main()
