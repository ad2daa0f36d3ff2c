"""training/colab/compare.py: what differs between a job's folder and its copy is found, and nothing else."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest

from training.colab.compare import differing_checkpoints, differing_files


@pytest.fixture
def both(tmp_path):
    """A job's folder, and a copy of it."""
    out = tmp_path / "out"
    for name in ("exports/a.onnx", "exports/golden/a.npz", "runs/r/metrics.jsonl", "data/manifests/a.jsonl", "cache/x"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(name)
    for run in ("a", "b/item"):
        folder = out / "checkpoints" / run
        folder.mkdir(parents=True)
        files = {}
        for name in ("last.pt", "best.pt"):
            (folder / name).write_text(f"{run} {name}")
            files[name] = {"sha256": hashlib.sha256(f"{run} {name}".encode()).hexdigest()}
        (folder / "index.json").write_text(json.dumps({"files": files}))
    shutil.copytree(out, tmp_path / "copy", ignore=shutil.ignore_patterns("cache"))
    return out, tmp_path / "copy"


def test_a_copy_is_no_difference_and_the_cache_is_not_part_of_it(both):
    assert differing_files(*both) == [] and differing_checkpoints(*both) == []
    (both[1] / "exports/more").touch()
    (both[0] / "exports/.hidden").touch()
    assert differing_files(*both) == []


def test_a_file_that_is_missing_or_changed_is_named(both):
    (both[1] / "exports/golden/a.npz").unlink()
    (both[1] / "exports/a.onnx").write_text("exports/b.onnx")
    assert differing_files(*both) == ["exports/a.onnx: another content", "exports/golden/a.npz: missing"]


def test_a_checkpoint_that_is_damaged_missing_or_older_is_named(both):
    there = both[1] / "checkpoints"
    (there / "a/last.pt").write_text("cut")
    (there / "b/item/best.pt").unlink()
    assert differing_checkpoints(*both) == [
        "checkpoints/a/last.pt: missing or another content", "checkpoints/b/item/best.pt: missing or another content",
    ]  # fmt: skip
    listed = json.loads((there / "a/index.json").read_text())
    listed["files"]["last.pt"]["sha256"] = hashlib.sha256(b"cut").hexdigest()
    (there / "a/index.json").write_text(json.dumps(listed))
    assert "checkpoints/a/last.pt: the copy's index lists another one" in differing_checkpoints(*both)
    (there / "a/index.json").unlink()
    assert any(problem.startswith("checkpoints/a/index.json") for problem in differing_checkpoints(*both))
