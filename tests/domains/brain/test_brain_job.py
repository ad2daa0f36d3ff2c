"""A complete job on a small demo, run once; each test looks at its result."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import pytest
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from training import cli
from training.domains.brain.report.sections import sections
from training.registry import domains
from training.runner.options import parse
from training.runner.plan import plan_of
from training.workspace import Workspace

VOLUMES = "300"


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("brain") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        assert cli.main(["prepare", "--domain", "brain", "--volumes", VOLUMES, "--out", str(place)]) == 0
        words = ["brain", "--cpu", "--preset", "debug", "--only", "encoding", "--out", str(place)]
        for step in plan_of(parse(words, domains())).steps:
            if step.name.startswith(("train", "evaluate", "export", "verify")):
                assert cli.main(list(step.command[2:])) == 0, step.name
    return place


def of(out: Path, name: str):
    return json.loads((out / name).read_text(encoding="utf-8"))


def test_a_job_ends_in_verified_exports_that_say_synthetic(out):
    entry = of(out, "exports/receipt.json")["families"]["encoding"]
    assert entry["synthetic"] is True
    assert {"encoder.onnx", "bold_01.onnx", "bold_04.onnx"} <= {Path(name).name for name in entry["files"]}


def test_the_evaluation_stands_beside_every_baseline_and_the_ceiling(out):
    judged = of(out, "exports/metrics.json")["families"]["encoding"]
    baselines = judged["metrics"]["voxel_r"]["baselines"]
    assert set(baselines) == {"mean", "rolled", "ridge", "banded_ridge", "reduced_rank", "oracle"}
    assert abs(judged["brain"]["truth"]["null_r"]) < 0.05
    assert judged["brain"]["gap"] >= 17 and len(judged["brain"]["r_by_subject"]) == 4


def test_maps_lie_on_the_grid_of_the_bold(out):
    (path, *_) = sorted((out / "exports").rglob("r_sub-01.nii.gz"))
    bold = nibabel.load(out / "data" / "demo_brain" / "bold" / "sub-01_bold.nii.gz")
    assert nibabel.load(path).shape == bold.shape[:3]


def test_the_report_shows_alignment_splits_and_the_ceiling(out):
    page = (out / "exports/report.html").read_text(encoding="utf-8")
    for text in ("Is the film where the BOLD says?", "sealed test", "Ceiling and segments", "lower bound"):
        assert text in page, text


def test_the_report_of_measured_bold_has_no_truth_and_lists_the_sealed_test_by_region(out, tmp_path):
    entry = of(out, "exports/metrics.json")["families"]["encoding"]
    region = {"name": "V1 <left>", "number": 1, "voxels": 1200, "r": 0.21, "low": 0.1, "high": 0.3,
              "banded_ridge": 0.2, "ceiling": None, "share": None, "q": 0.003}  # fmt: skip
    entry["brain"].pop("truth")
    entry["test"] = {**entry, "brain": {**entry["brain"], "regions": [region], "blocks": 9}}
    workspace = Workspace(tmp_path)
    workspace.exports.mkdir(parents=True)
    (workspace.exports / "metrics.json").write_text(json.dumps({"format": 1, "families": {"encoding": entry}}))
    (section,) = sections(workspace)
    page = Environment(loader=FileSystemLoader(section.template.parent), autoescape=True, undefined=StrictUndefined)
    text = page.get_template(section.template.name).render(facts=section.facts)
    assert "Of the sealed test, 9 time blocks." in text and "Simulated" not in text
    assert "V1 &lt;left&gt;" in text and "1,200" in text and "0.1 to 0.3" in text
