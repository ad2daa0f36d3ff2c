"""The base of a language model, with its adapters, is sharded layer by layer."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from tests.ranks import two_ranks
from training import cli
from training.domains.sql.text_to_sql.config import TextToSqlConfig
from training.engine.checkpoints.checkpoint_file import read
from training.stages.trained import load_trained
from training.workspace import Workspace

#: A frozen bfloat16 base with float32 adapters, and layers that are computed again in the backward pass. With AdamW's
#: usual eps the sign of a gradient decides a step, also where it is nothing but what bfloat16 rounds differently.
SETTINGS = (
    "model.dtype=bfloat16", "model.gradient_checkpointing=true", "training.max_steps=2", "training.appraise_rows=3",
    "generation.batch_size=1", "optim.eps=0.01",
)  # fmt: skip


@pytest.mark.slow
def test_sharded_ranks_train_and_appraise_as_replicated_ones(tmp_path, warm_python):
    """Rank 0 generates answers to two questions, and rank 1 to one."""
    prepared = tmp_path / "ddp"
    assert cli.main(["prepare", "--domain", "sql", "--questions", "60", "--out", str(prepared)]) == 0
    shutil.copytree(prepared, tmp_path / "fsdp")
    words = ["train", "text_to_sql", "--preset", "debug", "--device", "cpu"]
    words += [word for setting in SETTINGS for word in ("--set", setting)]
    commands = [[*words, "--set", f"model.parallel={name}", "--out", str(tmp_path / name)] for name in ("ddp", "fsdp")]
    printed = two_ranks(warm_python, tmp_path, "tests.on_ranks", json.dumps(commands))
    assert "blocks sharded over 2 processes" in printed
    replicated, sharded = (read(tmp_path / name / "checkpoints/text_to_sql/last.pt") for name in ("ddp", "fsdp"))
    assert replicated["frozen"] == sharded["frozen"] and replicated["metrics"].keys() == sharded["metrics"].keys()
    for name, value in replicated["metrics"].items():
        assert sharded["metrics"][name] == pytest.approx(value, rel=1e-3), name
    assert replicated["model"].keys() == sharded["model"].keys()
    for name, value in replicated["model"].items():
        torch.testing.assert_close(sharded["model"][name], value, rtol=1e-3, atol=1e-7)
    assert load_trained("text_to_sql", Workspace(tmp_path / "fsdp")).model is not None


@pytest.mark.parametrize("other", [{"quantization": "nf4"}, {"attention": "flex"}])
def test_what_cannot_be_sharded_is_refused(other):
    with pytest.raises(ValueError, match="quantization none and attention split or dense"):
        TextToSqlConfig(model={"parallel": "fsdp", **other})
    assert TextToSqlConfig(model={"parallel": "ddp", **other})
