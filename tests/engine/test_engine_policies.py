"""What a recipe declares on precision, memory and disk space takes effect."""

from __future__ import annotations

import pytest
import torch

from tests.engine import toy
from training.engine.checkpoints.checkpoint_file import read
from training.engine.checkpoints.resume import Decision
from training.engine.loop.session import open_session
from training.engine.process.distributed import Ranks
from training.errors import HostError, Interrupted, UsageError
from training.recipe import Room


class Exact(toy.ToyRecipe):
    dtype_policy = "float32"
    dtype_reason = "its recurrence loses the tone in half precision."


def test_a_float32_family_refuses_mixed_precision_with_its_reason(tmp_path):
    with pytest.raises(UsageError, match=r"training\.amp is true.*its recurrence loses the tone.*training\.amp: false"):
        toy.run(tmp_path, Exact, training={"amp": True})
    assert toy.run(tmp_path, Exact).step == 18


class Frozen(toy.ToyRecipe):
    """The first layer is a base that is not trained."""

    dtype_policy = "bfloat16_base"
    used: list = []  # noqa: RUF012

    def build(self, constants):
        model = super().build(constants)
        model.layers[0].requires_grad_(False)
        return model

    def losses(self, model, batch, progress):
        losses = super().losses(model, batch, progress)
        self.used.append((model.layers[0].weight.dtype, model.layers[3].weight.dtype, model.layers[3].weight.grad_fn))
        return losses


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_frozen_base_is_held_in_half_precision_and_the_rest_in_float32(tmp_path, dtype):
    Frozen.used.clear()
    policy = {"dtype_policy": str(dtype).removeprefix("torch.") + "_base"}
    trained = toy.run(tmp_path, type("Half", (Frozen,), policy), training={"ema_decay": 0.9})
    assert {used[:2] for used in Frozen.used} == {(dtype, torch.float32)}
    assert toy.ToyRecipe.models[-1].seen == {dtype}  # the model computes in it also without training.amp
    content = read(trained.last)
    assert content["model"]["layers.0.weight"].dtype == dtype
    assert content["model"]["layers.3.weight"].dtype == torch.float32
    assert content["ema"]["layers.3.weight"].dtype == torch.float32


def test_a_run_with_a_bfloat16_base_resumes_to_the_same_bits(tmp_path):
    straight = toy.run(tmp_path / "straight", Frozen, model={"dropout": 0.2})
    stopped = type("Stopped", (Frozen,), {"signal_at": 7})
    with pytest.raises(Interrupted):
        toy.run(tmp_path / "stopped", stopped, model={"dropout": 0.2})
    again = toy.run(tmp_path / "stopped", Frozen, model={"dropout": 0.2})
    mine, theirs = (read(trained.last) for trained in (straight, again))
    assert all(torch.equal(mine["model"][name], theirs["model"][name]) for name in mine["model"])


def sized(**room):
    return type("Sized", (toy.ToyRecipe,), {"room": lambda self, model: Room(**room)})


def test_disk_space_for_exports_is_checked_before_training(tmp_path):
    with pytest.raises(HostError, match=r"not enough room.*of exports"):
        toy.run(tmp_path / "large", sized(exports=1 << 60))
    assert toy.run(tmp_path / "unknown", sized()).step == 18


def test_the_memory_estimate_of_a_family_is_logged(tmp_path):
    trained = toy.run(tmp_path, sized(memory=12_300_000_000))
    assert "about 12.3 GB of memory" in (trained.run / "log.txt").read_text().splitlines()[0]
    assert "of memory" not in (toy.run(tmp_path / "other").run / "log.txt").read_text().splitlines()[0]


@pytest.mark.parametrize(
    ("free", "text"), [(20_000_000_000, "about 12.3 GB of memory of 20 GB free"), (10**9, "too little")]
)
def test_on_a_gpu_the_memory_estimate_is_compared_with_free_memory(monkeypatch, free, text):
    rows = {"train": toy.rows(22), "val": toy.rows(9, 1000)}
    recipe = toy.recipe(sized(memory=12_300_000_000))
    session = open_session(recipe, Ranks(0, 1, torch.device("cpu")), rows, lambda _: Decision(None, ""))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, free))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H100")
    session.state.ranks.device = torch.device("cuda", 0)
    assert text in session.headline()
