"""CheckpointManager: states are complete or not there, the newest intact one is found, and old ones go."""

from __future__ import annotations

import json

import pytest
import torch

from training.colab.checkpoints import CheckpointManager
from training.colab.surroundings import ColabError


@pytest.fixture
def manager(tmp_path):
    return CheckpointManager(tmp_path)


def test_a_state_comes_back_as_it_was_saved(manager):
    assert manager.load_latest_checkpoint("train_xgboost") is None
    state = {"epoch": 3, "model_state": {"w": torch.arange(4.0)}, "best": [0.5, "a", None]}
    manager.save_checkpoint("train_xgboost", state)
    found = manager.load_latest_checkpoint("train_xgboost")["state"]
    assert torch.equal(found["model_state"]["w"], torch.arange(4.0)) and found["best"] == [0.5, "a", None]
    assert manager.load_latest_checkpoint("train_lstm") is None


def test_within_the_interval_only_a_forced_state_is_saved_and_three_are_kept(manager, tmp_path):
    assert manager.save_checkpoint("a", {"n": 0}) is not None
    assert manager.save_checkpoint("a", {"n": 1}) is None
    for number in range(2, 6):
        manager.save_checkpoint("a", {"n": number}, force=True)
    assert manager.load_latest_checkpoint("a")["state"] == {"n": 5}
    assert sorted(path.name for path in (tmp_path / "a").glob("*.pt")) == ["000003.pt", "000004.pt", "000005.pt"]


def test_a_damaged_or_missing_state_is_reported_and_the_one_before_is_used(manager, tmp_path, capsys):
    for number in range(3):
        manager.save_checkpoint("a", {"n": number}, force=True)
    (tmp_path / "a/000003.pt").write_bytes(b"cut")
    assert manager.load_latest_checkpoint("a")["state"] == {"n": 1}
    assert "000003.pt: missing, or its SHA-256 does not match" in capsys.readouterr().out


def test_a_save_that_was_killed_before_the_index_changes_nothing(manager, tmp_path):
    manager.save_checkpoint("a", {"n": 0})
    torch.save({"state": {"n": 9}}, tmp_path / "a/000002.pt")
    assert manager.load_latest_checkpoint("a")["state"] == {"n": 0}
    manager.save_checkpoint("a", {"n": 1}, force=True)
    assert manager.load_latest_checkpoint("a")["state"] == {"n": 1}


def test_what_could_not_be_loaded_safely_is_refused_and_leaves_nothing(manager, tmp_path):
    with pytest.raises(ColabError, match=r"phase a: .*model\.state_dict\(\)"):
        manager.save_checkpoint("a", {"model": torch.nn.Linear(1, 1)})
    assert list((tmp_path / "a").iterdir()) == []


def test_wrong_names_and_a_damaged_index_are_refused(manager, tmp_path):
    with pytest.raises(ColabError, match="no name of a phase"):
        manager.save_checkpoint("../a", {})
    manager.save_checkpoint("a", {"n": 0})
    (tmp_path / "a/index.json").write_text(json.dumps([])[:1])
    with pytest.raises(ColabError, match=r"index\.json cannot be read"):
        manager.load_latest_checkpoint("a")
    with pytest.raises(ColabError, match="keep must be"):
        CheckpointManager(tmp_path, keep=0)
