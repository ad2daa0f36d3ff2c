"""The engine's AdamW computes what torch's AdamW does, without importing the compiler."""

import subprocess
import sys

import pytest
import torch

from training.engine.step.optimizer import AdamW


def trained(kind: type[torch.optim.Optimizer], **options):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 2))
    groups = [{"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1},
              {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0}]  # fmt: skip
    optimizer = kind(groups, lr=0.01, betas=(0.9, 0.95), **options)
    for step in range(6):
        if step == 3:  # as after a resume
            saved, optimizer = optimizer.state_dict(), kind(groups, lr=0.5, **options)
            optimizer.load_state_dict(saved)
        optimizer.zero_grad()
        (model(torch.randn(4, 5)) ** 2).sum().backward()
        optimizer.step()
    return optimizer.state_dict(), [p.detach() for p in model.parameters()]


@pytest.mark.parametrize("options", [{"fused": True}, {"fused": False}], ids=["fused", "plain"])
def test_weights_and_state_are_bit_identical_to_torchs_adamw(options):
    (state, weights), (expected_state, expected) = trained(AdamW, **options), trained(torch.optim.AdamW, **options)
    assert all(torch.equal(a, b) for a, b in zip(weights, expected, strict=True))
    assert state["param_groups"] == expected_state["param_groups"]
    for number, expected in expected_state["state"].items():
        assert expected.keys() == state["state"][number].keys()
        assert all(torch.equal(state["state"][number][name], value) for name, value in expected.items())


def test_training_without_compile_does_not_import_the_compiler():
    """Importing it would take a second at every start."""
    code = (
        "import sys, torch\n"
        "import training.engine.loop.run, training.domains.music.midi_generator.recipe\n"
        "import training.domains.music.spectocloud.recipe\n"
        "from training.engine.step.optimizer import AdamW\n"
        "weight = torch.nn.Parameter(torch.ones(3))\n"
        "optimizer = AdamW([weight], fused=True)\n"
        "weight.sum().backward(); optimizer.step(); optimizer.load_state_dict(optimizer.state_dict())\n"
        "sys.exit(int('torch._dynamo' in sys.modules))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
