"""The model card follows the Hub's specification and states only what is true of the exported weights."""

from __future__ import annotations

import yaml

from tests.report import job
from training.cli import main
from training.report.card import write_card
from training.workspace import Workspace

#: The Hub's specification of a card's metadata (its modelcard.md): keys; (required, optional) keys of a result's parts.
KEYS = {
    "language", "license", "license_name", "license_link", "library_name", "tags", "datasets", "metrics", "base_model",
    "pipeline_tag", "model_name", "thumbnail", "inference", "widget", "co2_eq_emissions", "model-index", "new_version",
}  # fmt: skip
RESULT = {
    "task": ({"type"}, {"name"}),
    "dataset": ({"type", "name"}, {"config", "split", "revision", "args"}),
}
METRIC = ({"type", "value"}, {"name", "config", "args", "verified", "verifyToken"})


def read(workspace: Workspace) -> tuple[dict, str]:
    path = write_card(workspace)
    assert path == workspace.exports / "README.md"
    empty, front, text = path.read_text(encoding="utf-8").split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(front), text


def check(about: dict, required: set, optional: set) -> None:
    assert required <= set(about) <= required | optional, about


def test_the_front_matter_is_what_the_hub_specifies(tmp_path):
    front, _ = read(job.make(tmp_path))
    assert set(front) <= KEYS and "license" not in front
    assert front["library_name"] == "onnx" and all(isinstance(tag, str) for tag in front["tags"])
    for model in front["model-index"]:
        check(model, {"name", "results"}, set())
        for result in model["results"]:
            check(result, {"task", "dataset", "metrics"}, {"source"})
            for part, (required, optional) in RESULT.items():
                check(result[part], required, optional)
                assert all(isinstance(result[part][key], str) for key in required)
            for metric in result["metrics"]:
                check(metric, *METRIC)
                assert isinstance(metric["type"], str) and isinstance(metric["value"], float)
    assert front["model-index"][0]["results"][0]["metrics"][0] == {
        "type": "error", "name": "held-out error", "value": 0.05,
    }  # fmt: skip


def test_the_card_states_synthetic_data_limits_and_the_missing_licence(tmp_path):
    front, text = read(job.make(tmp_path / "demo"))
    assert "synthetic-data" in front["tags"] and "Trained on synthetic data" in text
    assert "synthetic" in front["model-index"][0]["results"][0]["dataset"]["name"]
    front, text = read(job.make(tmp_path / "real", synthetic=False))
    assert "synthetic" not in str(front) and "synthetic" not in text
    assert "### Limits" in text and "## Licence" in text and "owner's letters; not published" in text
    assert "the rights in the letters that" in text and "- It knows 26 letters." in text and "Reads alpha." in text
    assert front["tags"] == ["letters", "onnx", "athanor"]
    (model,) = front["model-index"]
    assert model["results"][0]["task"]["name"] == "letters to numbers"
    assert model["results"][0]["dataset"]["name"] == "Held-out letters"


def test_a_base_model_and_its_licence_are_stated(tmp_path):
    workspace = job.make(tmp_path, base={"name": f"org/{job.EVIL}", "licence": "apache-2.0", "stated_in": "README.md",
                                         "revision": "a" * 40})  # fmt: skip
    front, text = read(workspace)
    assert front["base_model"] == [f"org/{job.EVIL}"] and set(front) <= KEYS
    assert "- base model: org/" in text and "commit aaaaaaaaaaaa; licence: apache-2.0 (README.md)" in text
    assert "and with the licence of the base model:" in text and "<script>" not in text.split("---\n")[0]
    front, text = read(job.make(tmp_path / "own", base={"name": "my-base"}))
    assert "base_model" not in front and "- base model: my-base; licence: not stated" in text
    front, text = read(job.make(tmp_path / "none"))
    assert "base_model" not in front and "base model" not in text


def test_verdict_metrics_and_files_are_those_of_the_job(tmp_path):
    workspace = job.make(tmp_path)
    _, text = read(workspace)
    assert "**Verdict: learnt.**" in text and "- It beats the plain mean." in text
    assert "| error (windows) | lower | 0.05 (0.04 to 0.06) | 0.1 (0.09 to 0.11) | 0.2 |" in text
    assert "| `alpha.onnx` | 123 kB |" in text
    (workspace.exports / "metrics.json").unlink()
    front, text = read(workspace)
    assert "model-index" not in front and "**Not judged**" in text


def test_metrics_of_weights_other_than_the_exported_ones_are_left_out(tmp_path):
    workspace = job.make(tmp_path)
    path = workspace.exports / "metrics.json"
    path.write_text(path.read_text().replace("c" * 64, "f" * 64))
    front, text = read(workspace)
    assert "model-index" not in front and "**Not judged**" in text and "Verdict" not in text


def test_markup_in_names_from_files_is_escaped(tmp_path):
    _, text = read(job.make(tmp_path))
    assert "<script>" not in text and "<img" not in text and "&lt;script&gt;alert(1)" in text


def test_there_is_no_card_before_an_export(tmp_path):
    assert write_card(Workspace(tmp_path)) is None
    workspace = job.make(tmp_path / "job")
    assert main(["report", "--out", str(workspace.root)]) == 0
    assert (workspace.exports / "README.md").exists()
