"""Captures sound here as in the programs of the field: neural-amp-modeler bit for bit, the players' C++ core, and the
equations that GuitarML's players compute."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from training.domains.amp.captures import parse_capture, read_capture, write_capture

from . import making
from .players import nam_models, played_by_the_core

SOUND = 0.3 * torch.randn(4000, generator=torch.Generator().manual_seed(0))
A1 = making.a1(arrays=[making.a1_array(1, 16, 8, [1, 2, 4, 8]), making.a1_array(16, 8, 1, [1, 2, 4], head_bias=True)])
GATED = making.a1(arrays=[making.a1_array(1, 6, 1, [1, 2], gated=True, activation="ReLU", head_bias=True)])
A2 = making.a2(channels=8)
#: What players may differ by, of the largest value: they have a fast tanh.
FAST_TANH, EXACT = 3e-2, 1e-5


def sounds(models, document, network) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What neural-amp-modeler makes of SOUND, and what the network does, at once and in blocks: float32 [4000]."""
    reference = models.init_from_nam(json.loads(json.dumps(document))).eval()
    with torch.no_grad():
        expected = reference(SOUND)
        got = network.valid(torch.cat([torch.zeros(network.receptive_field), SOUND])[None])[0]
        return expected, got, network.play(SOUND[None], 331)[0]


def close(in_blocks: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.allclose(in_blocks, expected, rtol=0, atol=1e-5 * float(expected.abs().max()) + 1e-7)


@pytest.mark.parametrize(
    ("version", "document"),
    [("0.12.2", A1), ("0.12.2", GATED), ("0.12.2", making.lstm(hidden=12)), ("0.13.0", A2)],
    ids=["A1", "A1 gated", "LSTM", "A2"],
)
def test_a_capture_gives_the_bits_of_neural_amp_modeler(version, document, monkeypatch):
    network = parse_capture(making.content(document)).network
    expected, got, in_blocks = sounds(nam_models(version, monkeypatch), document, network)
    assert expected.std() > 1e-4 and torch.equal(got, expected) and close(in_blocks, expected)


def test_both_networks_of_a_container_give_its_bits(monkeypatch):
    models, document = nam_models("0.13.0", monkeypatch), making.container()
    networks = parse_capture(making.content(document)).networks
    for entry, network in zip(document["config"]["submodels"], networks, strict=True):
        expected, got, in_blocks = sounds(models, entry["model"], network)
        assert expected.std() > 1e-4 and torch.equal(got, expected) and close(in_blocks, expected)


def test_files_that_neural_amp_modeler_wrote_are_read_and_written_with_the_same_bytes(monkeypatch, tmp_path):
    models = nam_models("0.12.2", monkeypatch)
    torch.manual_seed(0)
    layers = {"condition_size": 1, "kernel_size": 2, "dilations": [1, 2], "activation": "Tanh", "gated": False}
    arrays = [{"input_size": 1, "channels": 3, "head_size": 1, "head_bias": True, **layers}]
    network = models.WaveNet(layers_configs=arrays, head_config=None, head_scale=0.5, sample_rate=48_000).eval()
    network.export(tmp_path, basename="made")
    capture = read_capture(tmp_path / "made.nam")
    assert capture.version.startswith("0.5") and set(capture.metadata) >= {"loudness", "gain", "date"}
    write_capture(capture, capture.networks, tmp_path / "again.nam")
    assert (tmp_path / "again.nam").read_bytes() == (tmp_path / "made.nam").read_bytes()
    with torch.no_grad():
        assert torch.equal(capture.network.valid(torch.cat([torch.zeros(3), SOUND])[None])[0], network(SOUND))


def test_a_trained_file_is_read_by_neural_amp_modeler_as_it_is_here(monkeypatch, tmp_path):
    for version, document in (("0.12.2", A1), ("0.12.2", making.lstm()), ("0.13.0", A2)):
        original, trained = (parse_capture(making.content(document)) for _ in range(2))
        with torch.no_grad():
            for parameter in trained.network.parameters():
                parameter.mul_(1.02)
        write_capture(original, trained.networks, tmp_path / "new.nam", {"figure": 1.0})
        written = json.loads((tmp_path / "new.nam").read_bytes())
        expected, got, in_blocks = sounds(nam_models(version, monkeypatch), written, trained.network)
        assert expected.std() > 1e-4 and torch.equal(got, expected) and close(in_blocks, expected)


@pytest.mark.parametrize(
    ("document", "differs"),
    [(A1, FAST_TANH), (A2, EXACT), (making.lstm(hidden=12), FAST_TANH), (making.container(), EXACT)],
    ids=["A1", "A2", "LSTM", "container"],
)
def test_the_core_of_the_players_plays_a_trained_file_as_it_sounds_here(document, differs, tmp_path):
    original, trained = (parse_capture(making.content(document)) for _ in range(2))
    with torch.no_grad():
        for network in trained.networks:
            for parameter in network.parameters():
                parameter.mul_(1.02)
    path = tmp_path / "new.nam"
    write_capture(original, trained.networks, path, {"figure": 1.0})
    got = played_by_the_core(path, SOUND.numpy(), 48_000, tmp_path)
    with torch.no_grad():
        expected = trained.network.play(SOUND[None])[0].numpy()
        before = original.network.play(SOUND[None])[0].numpy()
    scale = float(np.abs(expected).max())
    assert np.abs(got - expected).max() < differs * scale
    error, change = (float(np.square(one - expected).mean()) for one in (got, before))
    assert error < 0.3 * change, "the core plays the trained weights, not the original ones"


def played_by_proteus(content: bytes, sound: np.ndarray, skip: bool) -> np.ndarray:
    """float64 [n] through a GuitarML file: the equations of an LSTM, a sample at a time, with the six tensors that
    GuitarML's Proteus reads by their names (RT_LSTM::set_weights in src/RTNeuralLSTM.cpp); the gates are in the order
    of torch, and both biases are added. The state begins with zeros. Nothing of this project's reader is used."""
    state = {name: np.array(value, np.float64) for name, value in json.loads(content)["state_dict"].items()}
    of_input, of_hidden = state["rec.weight_ih_l0"][:, 0], state["rec.weight_hh_l0"]
    bias = state["rec.bias_ih_l0"] + state["rec.bias_hh_l0"]
    hidden = cell = np.zeros(of_hidden.shape[1])
    out = []
    for x in sound.astype(np.float64):
        enter, forget, new, leave = np.split(of_input * x + of_hidden @ hidden + bias, 4)
        cell = cell / (1 + np.exp(-forget)) + np.tanh(new) / (1 + np.exp(-enter))
        hidden = np.tanh(cell) / (1 + np.exp(-leave))
        out.append(state["lin.weight"][0] @ hidden + state["lin.bias"][0] + (x if skip else 0.0))
    return np.array(out)


@pytest.mark.parametrize("skip", [1, 0])
def test_a_trained_guitarml_file_sounds_by_the_equations_of_its_players_as_it_does_here(skip, tmp_path):
    original, trained = (parse_capture(making.content(making.proteus(hidden=40, skip=skip))) for _ in range(2))
    with torch.no_grad():
        for parameter in trained.network.parameters():
            parameter.mul_(1.02)
    write_capture(original, trained.networks, tmp_path / "new.json", {"figure": 1.0})
    got = played_by_proteus((tmp_path / "new.json").read_bytes(), SOUND.numpy(), bool(skip))
    with torch.no_grad():
        expected, before = (one.network.play(SOUND[None])[0].numpy() for one in (trained, original))
    scale = float(np.abs(expected).max())
    assert np.abs(got - expected).max() < EXACT * scale
    assert np.abs(got - before).max() > 100 * EXACT * scale, "the file has the trained weights, not the original ones"
