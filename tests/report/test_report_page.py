"""The page as a file: complete, self-contained, escaped, and available at every stage of a job."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import time

import numpy as np
import pytest

from tests.engine import toy
from tests.report import job
from tests.report.reading import assert_markup_is_text, read
from training.budget import book as books
from training.budget.account import ledger_path
from training.cli import main
from training.errors import HostError
from training.report import plots, runs
from training.report.facts import gather
from training.report.measures import metrics
from training.report.page import refresh, render, write_report
from training.report.refresher import Refresher
from training.workspace import Workspace


def test_the_page_shows_verdict_cost_metrics_sections_parity_and_receipt(tmp_path):
    text = read(job.make(tmp_path)).text
    for expected in (
        "learnt It beats the plain mean.", "cost of the job 0.05 USD", "1:01:40", "NVIDIA H200 x 8",
        "samples a second 50", "error windows lower is better",
        "0.04 to 0.06", "plain mean model is better", "Letters: 2", "required: 0.08",
        "12 held-out letters; 1,044 were trained on. The difference to a baseline is taken letter by letter.",
        "the best on held-out letters", "Kinds a kind",
        "agrees with the model at batch 2: 1.5e-07", "d" * 64, "trained: step 60 of 60",
    ):  # fmt: skip
        assert expected in text, expected


def test_the_base_model_and_its_licence_are_shown(tmp_path):
    base = {"name": "org/small", "licence": "mit", "stated_in": "README.md", "revision": "b" * 40}
    page = write_report(job.make(tmp_path, base=base)).read_text(encoding="utf-8")
    assert "<dt>base model</dt><dd>org/small, commit bbbbbbbbbbbb; licence: mit (README.md)</dd>" in page


def test_overfitting_is_reported_with_the_curves(tmp_path):
    workspace = job.make(tmp_path)
    assert "overfitting" not in read(workspace).text
    (path,) = workspace.runs("alpha").glob("*/metrics.jsonl")
    lines = path.read_text().splitlines()[:-1]  # without the incomplete one
    for step, held_out in ((80, 0.5), (100, 0.6)):
        lines.append(json.dumps({"kind": "train", "step": step, "loss": 0.01}))
        lines.append(json.dumps({"kind": "validation", "step": step, "epoch": 4, "val_loss": held_out}))
    path.write_text("".join(f"{line}\n" for line in lines))
    assert "0.6 at step 100. It is probably overfitting" in read(workspace).text


def test_the_page_refers_to_no_other_file(tmp_path):
    reader = read(job.make(tmp_path))
    for tag, attributes in reader.elements:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            value = attributes.get(name, "#")
            assert value.startswith(("#", "data:")), (tag, name, value[:60])


def test_the_content_security_policy_allows_only_the_scripts_and_styles_of_the_page_and_the_domains(tmp_path):
    workspace = job.make(tmp_path)
    reader = read(workspace)
    policy = next(a["content"] for t, a in reader.elements if a.get("http-equiv") == "Content-Security-Policy")
    allowed = dict(rule.split(" ", 1) for rule in policy.split("; "))
    source = (workspace.exports / "report.html").read_text()
    for tag, rule, count in (("script", "script-src", 1), ("style", "style-src-elem", 2)):
        texts = re.findall(rf"<{tag}>(.*?)</{tag}>", source, re.S)
        digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
        assert len(texts) == count and allowed[rule] == " ".join(f"'sha256-{digest}'" for digest in digests)
    assert "dataset.ran" in source and "letter-spacing: 3px" in source
    assert allowed["default-src"] == "'none'" and "unsafe" not in allowed["script-src"]
    (empty,) = (a["content"] for t, a in read(Workspace(tmp_path / "empty")).elements if "http-equiv" in a)
    assert "script-src 'none'" in empty


def test_markup_in_names_from_files_is_escaped(tmp_path):
    # the domain's script; quarantined file, two in the domain's section, baseline, meaning, why, note, metric
    assert_markup_is_text(job.make(tmp_path), scripts=1, least=8)


@pytest.mark.parametrize("synthetic", [True, False])
def test_synthetic_data_is_marked_and_nothing_else_is(tmp_path, synthetic):
    reader = read(job.make(tmp_path, synthetic=synthetic))
    marked = any(a.get("class") == "watermark" for _, a in reader.elements)
    assert marked == synthetic == reader.text.startswith("Synthetic: ") == ("Synthetic data." in reader.text)


def test_a_demo_is_explained_before_the_verdict_in_the_domains_words(tmp_path):
    text = read(job.make(tmp_path / "demo")).text
    words = [
        "Results of the demo", "This is a demo", "A program made its letters by rules", "held-out letters can measure",
        "A number for each letter.", "./train_cuda.sh toy_report", "learnt : certainly better", "learnt It beats",
    ]  # fmt: skip
    places = [text.find(word) for word in words]
    assert -1 not in places and places == sorted(places), dict(zip(words, places, strict=True))
    real = read(job.make(tmp_path / "real", synthetic=False)).text
    assert "Was it worth the money?" in real and "This is a demo" not in real and "made by rules" not in real


def test_sections_are_where_their_domain_places_them(tmp_path):
    ids = [a["id"] for t, a in read(job.make(tmp_path)).elements if t == "section"]
    assert ids == ["verdict", "letters", "cost", "curves", "metrics", "kinds", "data", "exports", "receipt"]


def test_a_job_that_has_only_begun_has_a_page(tmp_path):
    assert "Nothing has been trained here yet." in read(Workspace(tmp_path / "nothing")).text
    workspace = job.make(tmp_path / "job")
    for name in ("receipt.json", "metrics.json"):
        (workspace.exports / name).unlink()
    text = read(workspace).text
    assert "not judged yet" in text and "Nothing has been exported yet." in text and "trained: step 60" in text


def test_a_training_that_runs_shows_how_far_it_is(tmp_path):
    workspace = job.make(tmp_path)
    session = books.Session(id="b", stage="train", families=("alpha",), began=books.now(), seconds=5)
    books.store(ledger_path(workspace), books.Book(job=books.Job(began=books.now(), sessions=(session,))))
    path = next(workspace.runs("alpha").glob("*/metrics.jsonl"))
    path.write_text("".join(line + "\n" for line in path.read_text().splitlines()[:15]))
    reader = read(workspace)
    assert "the weights of an earlier training; a new one is running" in reader.text
    assert "Training in progress" in reader.text and "training: step 28 of 60, 0:00:32 left" in reader.text
    assert float(next(a["value"] for t, a in reader.elements if t == "progress")) == pytest.approx(28 / 60)
    os.utime(ledger_path(workspace), (time.time() - 300, time.time() - 300))  # its process is long gone
    assert "cut off at step 28 of 60" in read(workspace).text


def test_a_verdict_on_weights_other_than_the_exported_ones_is_marked(tmp_path):
    workspace = job.make(tmp_path)
    assert "other weights" not in read(workspace).text
    path = workspace.exports / "metrics.json"
    path.write_text(path.read_text().replace("c" * 64, "f" * 64))
    assert "verdict on other weights than those that are exported" in read(workspace).text


def test_a_damaged_file_is_reported_and_the_rest_is_shown(tmp_path):
    workspace = job.make(tmp_path)
    (workspace.exports / "metrics.json").write_text("{")
    (workspace.exports / "letters.json").write_text("{")
    (workspace.root / "runs" / "quarantined.json").write_text("[]")
    text = read(workspace).text
    for expected in ("metrics.json cannot be read", "letters.json cannot be read", "quarantined.json cannot be read",
                 "agrees with the model"):  # fmt: skip
        assert expected in text, expected


def test_a_page_that_cannot_be_written_fails_the_verb_but_no_stage(tmp_path, capsys):
    workspace = job.make(tmp_path)
    workspace.exports.joinpath("report.html").mkdir()
    with pytest.raises(HostError, match=r"report\.html"):
        write_report(workspace)
    assert main(["report", "--out", str(tmp_path)]) == 6
    assert main(["budget", "--done", "--out", str(tmp_path)]) == 0
    assert "The report could not be written" in capsys.readouterr().out
    assert refresh(workspace, lambda _: None) is None


def test_a_job_that_had_nothing_to_do_keeps_the_page_of_the_job_before(tmp_path):
    workspace = job.make(tmp_path)
    page, card = workspace.exports / "report.html", workspace.exports / "README.md"
    refresh(workspace)
    assert "under way" in page.read_text() and main(["budget", "--done", "--out", str(tmp_path)]) == 0
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (page, card)}
    assert b"0.05 USD" in before[page][0] and b"finished, and its exports verified" in before[page][0]
    idle = books.Session(id="z", stage="evaluate", began=books.now(), seconds=1, exit=0, price=2.0)
    books.store(ledger_path(workspace), books.Book(job=books.Job(began=books.now(), sessions=(idle,))))
    refresh(workspace)
    assert main(["budget", "--done", "--out", str(tmp_path)]) == 0
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (page, card)}
    metrics = workspace.exports / "metrics.json"
    metrics.write_text(metrics.read_text().replace("It beats the plain mean.", "It is new."))
    refresh(workspace)
    assert "It is new." in page.read_text()


def wait_until_written(page):
    until = time.monotonic() + 60
    while page.writing:
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_training_refreshes_its_page_in_a_separate_process(tmp_path, monkeypatch):
    workspace, expected = job.make(tmp_path), []
    page = Refresher(workspace, expected.append)
    page.refresh()
    assert not page.writing  # the training has only just begun
    monkeypatch.setattr("training.report.refresher.PAUSE", 0.0)
    page.refresh()
    assert page.writing
    wait_until_written(page)
    monkeypatch.setattr("training.report.refresher.PAUSE", 20.0)
    page.refresh()  # the page was written less than PAUSE seconds ago
    assert not page.writing
    page.close()
    assert (workspace.exports / "report.html").exists() and expected == []
    monkeypatch.setattr("training.report.refresher.PAUSE", 0.0)
    (workspace.exports / "report.html").unlink()
    (workspace.exports / "report.html").mkdir()
    for _ in range(2):
        page.refresh()
        wait_until_written(page)
    page.close()
    assert len(expected) == 1 and "The report is not up to date" in expected[0] and "report.html" in expected[0]


# -- data and geometry of the charts ---------------------------------------------------------------------------------


def test_a_line_that_is_being_written_is_left_out(tmp_path):
    run = runs.newest(job.make(tmp_path), "alpha")
    assert (run.step, run.total, len(run.train), len(run.validation)) == (60, 60, 30, 3)
    assert run.best["step"] == 60 and run.typical("samples_per_second") == 50


def test_long_curves_are_thinned_to_means_and_keep_their_end():
    x, y = plots.thinned(np.arange(10_001.0), np.arange(10_001.0) * 2)
    assert len(x) == plots.MOST_POINTS and x[-1] == 10_000 and y[-1] == 20_000
    assert np.allclose(y, 2 * x)


def test_values_that_are_not_finite_are_left_out_of_a_curve():
    chart = plots.chart("loss", [("a", [1, 2, 3], [1.0, float("nan"), 2.0]), ("b", [1], [float("inf")])])
    assert [line.name for line in chart.lines] == ["a"] and chart.lines[0].path.count(",") == 2
    assert plots.chart("loss", [("b", [1], [float("inf")])]) is None


def test_wide_ranges_have_a_logarithmic_axis_and_ticks_are_inside_the_frame():
    chart = plots.chart("loss", [("a", list(range(5)), [1000.0, 100.0, 10.0, 2.0, 1.0])], mark=4)
    assert chart.logarithmic and [t.label for t in chart.up] == ["1", "10", "100", "1,000"] and chart.mark == 100
    for values in ([3.0, 3.0], [0.0, 0.0], [-1.0, 1.0], [1e-9, 2e-9]):
        chart = plots.chart("x", [("a", [0, 1], values)])
        assert chart.up and all(0 <= t.at <= 100 for t in (*chart.up, *chart.across))


def test_values_and_bounds_are_in_order_on_their_axis():
    (metric,) = gather_metrics(
        {
            "model": {"value": 0.5, "low": 0.4, "high": 0.6},
            "baselines": {"a": {"value": 1.0, "low": 0.9, "high": 1.1}, "gone": {"value": None}},
        }
    )
    rows = {row.name: row for row in metric.rows}
    assert set(rows) == {"this model", "a"} and rows["this model"].is_model
    assert 0 <= rows["this model"].bar.low < rows["this model"].bar.at < rows["this model"].bar.high < rows["a"].bar.low
    assert rows["a"].bar.high <= 100


def gather_metrics(about):
    return metrics({"metrics": {"m": about}})


@pytest.mark.parametrize(
    ("better", "low", "high", "expected"),
    [("lower", -2, -1, "model is better"), ("lower", 1, 2, "model is worse"), ("lower", -1, 1, "no certain difference"),
     ("higher", 1, 2, "model is better"), ("higher", -2, -1, "model is worse"), ("", 1, 2, ""), ("lower", -1, -1, "")],
)  # fmt: skip
def test_a_model_is_better_or_worse_where_the_paired_difference_says_so(better, low, high, expected):
    against = {"a": {"value": 1.0, "gap": {"value": 0, "low": low, "high": high}}}
    (metric,) = gather_metrics({"model": {"value": 1.0}, "better": better, "baselines": against})
    assert [row.against for row in metric.rows] == ["", expected]


def test_of_too_few_units_no_interval_is_shown_and_no_model_called_better():
    against = {"a": {"value": 1.0, "gap": {"value": -1, "low": -2, "high": -1}}}
    own = {"value": 0.0, "low": -0.1, "high": 0.1}
    (metric,) = gather_metrics({"model": own, "better": "lower", "baselines": against, "estimated": False})
    assert [(row.bounds, row.against) for row in metric.rows] == [("", ""), ("", "")]
    assert metric.rows[0].bar.low == metric.rows[0].bar.high


def test_rendering_is_a_function_of_the_facts(tmp_path):
    facts = gather(job.make(tmp_path))
    assert render(facts) == render(facts)


def test_numbers_are_rounded_to_four_significant_digits():
    expected = [plots.number(v) for v in (0.0, 12345.678, 1.23456, 0.0123456, 1.2e-7, 10.0, float("nan"))]
    assert expected == ["0", "12,346", "1.235", "0.01235", "1.2e-07", "10", "not finite"]


def test_a_real_training_writes_the_page_with_its_current_step(tmp_path, monkeypatch):
    monkeypatch.setattr("training.report.refresher.PAUSE", 0.0)
    monkeypatch.setattr("training.report.refresher.LAST", 60.0)
    trained = toy.run(tmp_path, training={"epochs": 1, "log_every": 1})
    (page,) = tmp_path.rglob("report.html")
    assert page.parent.name == "exports" and f"step {trained.step}" in page.read_text()
