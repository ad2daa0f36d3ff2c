"""A forward pass computes in the requested dtype if the processor has instructions for it."""

import json

import pytest
import torch

from tests.engine import toy
from training.engine.checkpoints import checkpoint_file
from training.engine.step.precision import Precision
from training.settings import Training


@pytest.mark.parametrize(
    ("training", "dtype"),
    [
        ({"amp": True}, torch.bfloat16),
        ({"amp": True, "amp_dtype": "float16"}, torch.float16),
        ({"amp": False}, torch.float32),
    ],
)
def test_the_model_computes_in_the_requested_dtype(tmp_path, training, dtype):
    """In training and in validation. bfloat16 has no gradient scaler, and weights stay float32."""
    toy.run(tmp_path, training={**training, "epochs": 1})
    assert toy.ToyRecipe.models[0].seen == {dtype}
    saved = checkpoint_file.read(tmp_path / "checkpoints/toy/last.pt")
    assert (saved["scaler"] is not None) == (dtype is torch.float16)
    assert {value.dtype for value in saved["model"].values()} == {torch.float32}


def test_float16_training_proceeds_while_the_loss_scale_is_lowered(tmp_path):
    """Gradients that overflow float16 lower the loss scale, and do not count as divergence."""
    trained = toy.run(tmp_path, training={"amp": True, "amp_dtype": "float16", "epochs": 8}, optim={"lr": 0.02})
    records = map(json.loads, (trained.run / "metrics.jsonl").read_text().splitlines())
    losses = [record["val_loss"] for record in records if record["kind"] == "validation"]
    assert losses[-1] < losses[0]


def test_autocast_does_not_depend_on_the_scaler():
    precision = Precision(Training(amp=True), torch.device("cpu"))
    assert precision.scaler is None
    with precision.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.bfloat16


@pytest.mark.parametrize(
    ("able", "dtype"),
    [
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"bf16": True}, torch.bfloat16),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, torch.float32),
    ],
)
def test_a_processor_that_would_emulate_bfloat16_computes_in_float32_and_reports_it(monkeypatch, able, dtype):
    """There float32 is four times faster. float16, which must be chosen explicitly, is not replaced."""
    monkeypatch.undo()  # the fixture of conftest.py
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda _: None)
    precision = Precision(Training(amp=True), torch.device("cpu"))
    with precision.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is dtype
    assert ("no instructions" in str(precision)) == (dtype is torch.float32)
    assert Precision(Training(amp=True, amp_dtype="float16"), torch.device("cpu")).dtype is torch.float16
    assert Precision(Training(amp=True), torch.device("cuda", 0)).dtype is torch.bfloat16
