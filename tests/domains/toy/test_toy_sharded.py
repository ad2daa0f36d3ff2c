"""A family whose settings choose sharded training is trained so on two ranks, to the same numbers."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.ranks import two_ranks

from .conftest import Toy

SETTINGS = ("training.max_steps=8", "training.log_every=1")


def log_of(out) -> tuple[str, list[dict]]:
    """The first line of the log of a run, and its records."""
    (folder,) = (out / "runs" / "curve" / "ampere").iterdir()
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return (folder / "log.txt").read_text(encoding="utf-8").splitlines()[0], [json.loads(line) for line in lines]


@pytest.mark.slow
def test_the_settings_choose_sharded_training(fresh, warm_python, tmp_path):
    assert fresh.run("prepare") == 0
    other = Toy(fresh.out.with_name("sharded"))
    shutil.copytree(fresh.out, other.out)
    commands = [
        ["train", "curve/ampere", "--preset", "debug", "--device", "cpu", "--out", str(toy.out)]
        + [word for setting in (*SETTINGS, f"model.parallel={parallel}") for word in ("--set", setting)]
        for toy, parallel in ((fresh, "ddp"), (other, "fsdp"))
    ]
    two_ranks(warm_python, tmp_path, "tests.on_ranks", json.dumps(commands))
    (plain, replicated), (first, sharded) = (log_of(toy.out) for toy in (fresh, other))
    assert "2 blocks sharded over 2 processes" in first and "shard" not in plain
    assert len(replicated) == len(sharded) and any("peak" in record for record in sharded)
    for one, two in zip(replicated, sharded, strict=True):
        for key in {"loss", "grad_norm", "val_loss", "worst", "peak"} & one.keys():
            assert two[key] == pytest.approx(one[key], rel=1e-4), (key, one["step"])
