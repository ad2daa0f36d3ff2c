"""The real wandb package in offline mode: a run that is continued stays one run, and its records are on this disk."""

from __future__ import annotations

import pytest

from tests.engine import toy
from training.engine.tracking import tracker, wandb_process

pytest.importorskip("wandb")


def test_a_run_that_is_continued_keeps_its_id_and_its_records(tmp_path, monkeypatch):
    for module in (tracker, wandb_process):
        monkeypatch.setattr(module, "LAST_SECONDS", 120.0)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    logging = {"wandb": "offline", "wandb_project": "athanor-test", "tensorboard": False}
    first = toy.run(tmp_path, logging=logging, training={"epochs": 1})
    second = toy.run(tmp_path, logging=logging, training={"epochs": 2})
    assert first.run == second.run and second.step > first.step
    kept = sorted((first.run / "wandb").glob("offline-run-*"))
    assert len(kept) == 2 and all(folder.name.endswith(f"-{first.run.name}") for folder in kept)
    for folder in kept:
        (records,) = folder.glob("*.wandb")
        content = records.read_bytes()
        assert b"athanor-test" in content and b"train/loss" in content and b"validation/val_loss" in content
    assert "failed" not in (first.run / "log.txt").read_text()
