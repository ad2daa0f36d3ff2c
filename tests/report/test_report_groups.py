"""Families with one model per item, several domains in one job, and the sealed test split."""

from __future__ import annotations

import json
from dataclasses import asdict

from tests.report import job
from tests.report.reading import read
from training.data.sealed import Opening
from training.registry import domain
from training.report.card import write_card
from training.report.facts import gather
from training.report.groups import LISTED, WORST
from training.workspace import Workspace

#: Item -> verdict and value of the key metric (lower is better).
ITEMS = {
    "good": ("learnt", 0.02), "fair": ("weak", 0.05), "bad": ("not learnt", 0.09), "worse": ("not learnt", 0.3),
    "sound": ("learnt", 0.01),
}  # fmt: skip


def fan_out(workspace: Workspace) -> None:
    """Five items of Beta, one that was not judged, and two that are quarantined."""
    metrics = json.loads((workspace.exports / "metrics.json").read_text())["families"]
    for item, (word, value) in ITEMS.items():
        run = job.write_run(workspace, f"beta/{item}")
        job.export(workspace, f"beta/{item}", "Beta", run.name, True)
        metrics[f"beta/{item}"] = job.judged("Beta", word=word, value=value)
    job.write_run(workspace, "beta/unjudged")
    job.write_run(workspace, "beta/broken")
    job.write_metrics(workspace, metrics)
    (workspace.root / "runs" / "quarantined.json").write_text(json.dumps({
        "beta/broken": {"reason": f"The loss diverged in {job.EVIL}.", "stage": "train", "exit": 5},
        "beta/never": {"reason": "It holds no letter.", "stage": "prepare", "exit": 3},
    }))  # fmt: skip


def test_items_are_in_one_table_with_the_worst_first_and_the_worst_three_in_detail(tmp_path):
    workspace = job.make(tmp_path)
    fan_out(workspace)
    facts = gather(workspace)
    assert [one.name for one in facts.families] == ["alpha"]
    (group,) = facts.groups
    assert (group.name, group.title, group.figure) == ("beta", "Beta", "error")
    names = [item.name for item in group.items]
    assert names == ["broken", "never", "worse", "bad", "fair", "unjudged", "good", "sound"]
    assert [one.name for one in group.worst] == ["beta/worse", "beta/bad", "beta/fair"] and WORST == 3
    assert dict(group.counts) == {"quarantined": 2, "not learnt": 2, "weak": 1, "not judged": 1, "learnt": 2}
    text = read(workspace).text
    for expected in (
        "8 models, one per item: 2 quarantined, 2 not learnt",
        "never quarantined in prepare (exit 3) It holds no letter.",
        "worse trained: step 60 of 60 not learnt 0.3 (0.29 to 0.31)", "unjudged trained: step 60 of 60 – –",
        "Beta: worse: not learnt It beats", "beta/worse.onnx", "5 files", "broken quarantined in train (exit 5)",
    ):  # fmt: skip
        assert expected in text, expected
    assert "Beta: good: learnt" not in text and "Beta: bad: not learnt" in text
    assert "<script>alert" not in (workspace.exports / "report.html").read_text()


def test_items_are_sorted_by_ascending_value_where_a_higher_metric_is_better(tmp_path):
    workspace = job.make(tmp_path)
    fan_out(workspace)
    path = workspace.exports / "metrics.json"
    path.write_text(path.read_text().replace('"better": "lower"', '"better": "higher"'))
    (group,) = gather(workspace).groups
    assert [item.name for item in group.items][2:5] == ["bad", "worse", "fair"]


def test_items_beyond_the_first_thirty_are_collapsed(tmp_path):
    workspace = job.make(tmp_path)
    metrics = {f"beta/{n:03d}": job.judged("Beta", value=n / 100 + 0.02) for n in range(LISTED + 12)}
    job.write_metrics(workspace, metrics)
    (group,) = gather(workspace).groups
    assert [len(group.listed), len(group.rest)] == [LISTED, 12] and group.listed[0].name == f"{LISTED + 11:03d}"
    assert "12 more items" in read(workspace).text


def test_the_reason_for_quarantine_of_a_family_with_one_model_is_shown(tmp_path):
    workspace = job.make(tmp_path)
    (workspace.root / "runs" / "quarantined.json").write_text(
        json.dumps({"alpha": {"reason": "It diverged.", "stage": "train", "exit": 5}, "gamma": {"reason": "No digit."}})
    )
    text = read(workspace).text
    assert "It diverged. quarantined in train (exit 5)" in text and "No digit. quarantined" in text


def test_the_card_describes_a_family_once_for_all_its_items(tmp_path):
    workspace = job.make(tmp_path)
    fan_out(workspace)
    text = write_card(workspace).read_text()
    assert text.count("Reads beta.") == 1 and "## Beta: good" in text and "## Beta: worse" in text
    assert "# Alpha and Beta\n" in text


def test_a_job_with_only_items_is_not_shown_as_empty(tmp_path):
    workspace = Workspace(tmp_path)
    job.write_run(workspace, "beta/one")
    text = read(workspace).text
    assert "Nothing has been trained here yet." not in text and "1 model, one per item: 1 not judged" in text


# -- domains ---------------------------------------------------------------------------------------------------------


def test_the_sections_of_several_domains_follow_one_another_with_unique_anchors(tmp_path):
    workspace = job.make(tmp_path)
    assert "Digits" not in read(workspace).text and "seven" not in read(workspace).text
    job.write_run(workspace, "gamma")
    reader = read(workspace)
    ids = [a["id"] for t, a in reader.elements if t == "section"]
    assert [name for name in ids if "letters" in name] == ["toy_report-letters", "other_report-letters"]
    assert "Toys: Letters" in reader.text and "Others: Letters seven" in reader.text
    links = {a["href"][1:] for t, a in reader.elements if t == "a" and a.get("href", "").startswith("#")}
    assert set(ids) - {"data"} <= links


def test_before_a_training_the_prepared_data_determine_the_domain(tmp_path):
    workspace = Workspace(tmp_path)
    assert gather(workspace).parts == []
    workspace.manifests.mkdir(parents=True)
    (workspace.manifests / "summary.json").write_text(json.dumps({"domain": "other_report"}))
    assert [part.section.facts["letters"] for part in gather(workspace).parts] == [["seven"]]
    (workspace.manifests / "summary.json").write_text("{}")
    assert gather(workspace).parts == []
    workspace.manifest("gamma", "train").touch()
    assert [part.title for part in gather(workspace).parts] == ["Letters"]


def test_an_error_in_one_domains_sections_is_reported_and_the_rest_is_shown(tmp_path, monkeypatch):
    workspace = job.make(tmp_path)
    job.write_run(workspace, "gamma")

    def fail(self, workspace):
        raise RuntimeError("no letters today")

    monkeypatch.setattr(type(domain("toy_report")), "sections", fail)
    text = read(workspace).text
    assert "The sections of Toys cannot be shown: RuntimeError: no letters today" in text and "seven" in text


def test_the_page_has_a_data_section_if_no_domain_adds_one(tmp_path):
    assert "No data was prepared here." in read(Workspace(tmp_path / "empty")).text
    assert "Quarantined files: 1" in read(job.make(tmp_path / "job")).text


# -- the sealed test split -------------------------------------------------------------------------------------------


def test_openings_of_the_test_split_are_shown(tmp_path):
    workspace = job.make(tmp_path)
    assert "Sealed test split" not in read(workspace).text
    path = workspace.root / "runs" / "test_openings.jsonl"
    opening = asdict(Opening("2026-01-02 03:04:05", "beta/one", "1234567890abcdef" * 4, "f" * 64, job.EVIL))
    path.write_text(json.dumps(opening) + "\n" + json.dumps(opening | {"run": "alpha"}) + '\n{"time": "20')
    text = read(workspace).text
    assert f"2026-01-02 03:04:05 beta/one {job.EVIL} 1234567890ab ffffffffffff" in text and "3 alpha" not in text
    assert f"2026-01-02 03:04:05 alpha {job.EVIL}" in text
    path.write_text("{\n" + json.dumps(opening) + "\n")
    assert "test_openings.jsonl line 1 cannot be read" in read(workspace).text


def test_a_floor_of_zero_is_not_shown_as_a_requirement(tmp_path):
    workspace = job.make(tmp_path)
    assert "required: 0.08" in read(workspace).text
    path = workspace.exports / "metrics.json"
    path.write_text(path.read_text().replace('"floor": 0.08', '"floor": 0.0'))
    assert "required" not in read(workspace).text.replace("The dotted line is what is required", "")
