"""A domain whose only family fans out: its plan, and the files that prepare, train, export and verify write."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from training import cli
from training.registry import domains
from training.runner.options import parse
from training.runner.plan import plan_of

PLACE = "tests.gauges_domain.domain:GAUGES"
ROOT = Path(__file__).resolve().parents[3]
GAUGES = ("harbour", "lock", "weir")


@pytest.fixture
def steps(tmp_path, monkeypatch, warm_python):
    """The commands of the plan by name, including options of the runner."""
    monkeypatch.setattr(sys, "executable", str(warm_python))
    monkeypatch.setenv("ATHANOR_DOMAINS", PLACE)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def of(*words: object) -> dict[str, list[str]]:
        line = ["gauges", "--cpu", "--preset", "debug", "--out", str(tmp_path / "out"), *map(str, words)]
        return {step.name: list(step.command[2:]) for step in plan_of(parse(line, domains())).steps}

    return of


def test_the_plan_fans_out_and_has_neither_nodes_nor_a_sealed_test(steps):
    plan = steps()
    assert list(plan) == ["doctor", "prepare", "train level", "evaluate level", "export", "verify", "budget"]
    assert plan["train level"][:3] == ["each", "train", "level"]
    assert plan["evaluate level"][:3] == ["each", "evaluate", "level"]
    assert "--series" not in plan["prepare"]


def test_a_model_per_gauge_is_trained_once_exported_and_verified(steps, tmp_path, capsys):
    for name in ("prepare", "train level", "export", "verify"):
        assert cli.main(steps()[name]) == 0, name
    receipt = json.loads((tmp_path / "out" / "exports" / "receipt.json").read_text(encoding="utf-8"))
    assert set(receipt["families"]) == {f"level/{gauge}" for gauge in GAUGES} and receipt["synthetic"] is True
    for gauge in GAUGES:
        kinds = {file["kind"] for file in receipt["families"][f"level/{gauge}"]["files"].values()}
        assert "onnx" in kinds and "artefact" not in kinds
    best = {gauge: tmp_path / "out" / "checkpoints" / "level" / gauge / "best.pt" for gauge in GAUGES}
    before = {gauge: path.stat().st_mtime_ns for gauge, path in best.items()}
    capsys.readouterr()
    for name in ("prepare", "train level"):
        words = steps()[name]
        at = words.index("--out")
        assert cli.main([*words[:at], "=".join(words[at : at + 2]), *words[at + 2 :]]) == 0, name
    assert capsys.readouterr().out.count("was trained before") == len(GAUGES)
    assert {gauge: path.stat().st_mtime_ns for gauge, path in best.items()} == before


def test_a_broken_file_is_quarantined_with_its_reason(steps, tmp_path):
    folder = tmp_path / "series"
    folder.mkdir()
    for name in ("good", "fine"):
        (folder / f"{name}.txt").write_text("".join(f"{n % 7}\n" for n in range(240)), encoding="utf-8")
    (folder / "bad.txt").write_text("1.0\nn.a.\n", encoding="utf-8")
    assert cli.main(steps("--series", folder)["prepare"]) == 0
    manifests = tmp_path / "out" / "data" / "manifests"
    (line,) = (manifests / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    assert "bad.txt" in line and "line 2 is not a number" in line
    assert json.loads((manifests / "summary.json").read_text(encoding="utf-8"))["items"] == ["fine", "good"]


def test_an_estimate_is_that_of_each_gauge_and_their_sum(steps, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("training.stages.timing.SECONDS", 0.1)
    plan = steps("--estimate", "--price-per-hour", "2")
    assert list(plan) == ["doctor", "prepare", "estimate level"]
    for name in ("prepare", "estimate level"):
        assert cli.main(plan[name]) == 0, name
    text = capsys.readouterr().out
    assert [f"level/{gauge}, {number} of 3:" in text for number, gauge in enumerate(GAUGES, 1)] == [True] * 3
    assert text.count("nothing was kept") == 3
    last = text.strip().splitlines()[-1]
    assert last.startswith("level, 3 of 3 items to train, one after the other:") and last.endswith("USD at 2 USD/h")
    assert not list((tmp_path / "out").glob("checkpoints/level/*"))
