"""Networks give the same sound in blocks of any length as at once, and start from silence."""

from __future__ import annotations

import pytest
import torch

from training.domains.amp.captures import parse_capture

from . import making

GATED = making.a1(arrays=[making.a1_array(1, 3, 1, [1, 4], gated=True, activation="ReLU")])
BLENDED = making.a2(
    gating_mode=["none", "gated", "blended"], secondary_activation=[None, {"type": "Sigmoid"}, {"type": "Sigmoid"}]
)
BLENDED["weights"] = making.numbers(len(BLENDED["weights"]) + 3 * 3 * (6 + 4) + 4 * 3, 1)
NETWORKS = {name: making.content(make()) for name, make in making.ALL.items()}
NETWORKS |= {"gated": making.content(GATED), "blended": making.content(BLENDED)}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("block", [1, 7, 64])
def test_blocks_of_any_length_give_the_sound_of_one_block(name, block):
    for network in parse_capture(NETWORKS[name]).networks:
        x = 0.5 * torch.randn(2, 150, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            at_once, last = network(x, network.start(2))
            state, parts = network.start(2), []
            for part in x.split(block, 1):
                y, state = network(part, state)
                parts.append(y)
        torch.testing.assert_close(torch.cat(parts, 1), at_once, rtol=0, atol=2e-6)
        for one, other in zip(state, last, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_context_in_front_replaces_the_state(name):
    for network in parse_capture(NETWORKS[name]).networks:
        x, field = 0.5 * torch.randn(2, 100), network.receptive_field
        with torch.no_grad():
            expected = network(x, network.start(2))[0]
            got = network.valid(torch.cat([torch.zeros(2, field), x], 1))
        torch.testing.assert_close(got, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_pass_of_training_gives_the_same_answers_and_gradients(name):
    for network in parse_capture(NETWORKS[name]).networks:
        x = 0.5 * torch.randn(3, network.receptive_field + 80, generator=torch.Generator().manual_seed(0))
        found = []
        for way in (network.valid, network.training_pass):
            network.zero_grad()
            y = way(x)
            y.square().sum().backward()
            found.append([y.detach(), *(value.grad for value in network.parameters() if value.grad is not None)])
        assert len(found[0]) == len(found[1])
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(one.abs().max()))


@pytest.mark.parametrize("name", ["a1", "a2", "gated", "blended"])
def test_no_sample_before_the_receptive_field_matters_and_its_first_does(name):
    network = parse_capture(NETWORKS[name]).network
    field = network.receptive_field
    x = torch.randn(1, field + 2)
    for place, matters in ((0, False), (1, True)):
        other = x.clone()
        other[0, place] += 1
        with torch.no_grad():
            last = [network.play(one)[0, -1] for one in (x, other)]
        assert bool(last[0] != last[1]) is matters


def test_every_parameter_of_a_capture_is_trained():
    """A gradient reaches each of them, except the second bias of a .nam LSTM, which its file does not have, and the
    residual path after a WaveNet's last layer, which leads nowhere."""
    for name, content in NETWORKS.items():
        for network in parse_capture(content).networks:
            network.valid(torch.randn(1, network.receptive_field + 50)).square().sum().backward()
            without = [key for key, value in network.named_parameters() if value.grad is None]
            last = [key for key, _ in network.named_parameters() if "layer1x1" in key][-2:]
            second = [key for key, _ in network.named_parameters() if key.startswith("core.bias_hh")]
            assert without == (last or (second if name == "lstm" else [])), name
