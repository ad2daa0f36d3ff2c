"""One run measures every subject even if one fails, and the page shows all results."""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from benchmarks import __main__ as bench
from benchmarks import harness, table
from benchmarks.harness import Row, not_measured, place

BEGIN, END = "<!-- measured -->", "<!-- /measured -->"
GOOD = Row("3a", "Chamfer", 10.0, 1281.3, "ms", 128.13, ">= 10x", True, "B 32")
BAD = Row("10a", "tokens", 0.25, None, "s", 0.25, "<= 0.1 s", False)


def broken():
    raise RuntimeError("no such\nthing")


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def subjects(monkeypatch):
    """Three subjects; the second calls `fault`."""

    def make(fault):
        for name, work in (("one", lambda: [GOOD]), ("two", fault), ("three", lambda: [BAD])):
            module = ModuleType(name)
            module.measure = lambda small, work=work: work()
            monkeypatch.setitem(sys.modules, f"benchmarks.{name}", module)
        monkeypatch.setattr(bench, "SUBJECTS", {name: f"benchmarks.{name}" for name in ("one", "two", "three")})

    return make


@pytest.mark.parametrize(("fault", "note"), [(broken, "RuntimeError: no such thing"), (killed, "BrokenProcessPool")])
def test_a_subject_that_fails_or_is_killed_does_not_affect_the_others(subjects, fault, note, tmp_path, capfd):
    subjects(fault)
    assert bench.main(["--output", str(tmp_path / "out.json")]) == 1
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["subject"] for row in rows] == ["one", "two", "three"]
    assert table.verdict(rows[1]) == "failed" and rows[1]["note"].startswith(f"failed: {note}")
    assert "FAILED" in capfd.readouterr().out


def test_missed_and_unmeasured_bars_are_not_failures(subjects, tmp_path):
    subjects(lambda: [not_measured("4b", "HF Trainer", ">= 1x", "transformers not installed")])
    assert bench.main(["--output", str(tmp_path / "out.json")]) == 0


def test_a_busy_machine_is_reported(subjects, monkeypatch, capsys):
    subjects(lambda: [])
    for load, warned in ((0.3, False), (0.7, True)):
        monkeypatch.setattr(harness.os, "getloadavg", lambda load=load: (load, 0, 0))
        bench.main([])
        assert ("WARNING" in capsys.readouterr().out) == warned


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "HERE", tmp_path)


def test_selected_or_small_subjects_do_not_replace_the_complete_result(subjects, tmp_path):
    subjects(lambda: [])
    bench.main(["one"])
    bench.main(["--small"])
    assert not (tmp_path / "results.json").exists()
    bench.main([])
    assert len(json.loads((tmp_path / "results.json").read_text())["rows"]) == 2


def test_numpys_numbers_are_written_as_numbers(subjects, tmp_path):
    """json cannot serialise them, which would end a run after twenty minutes."""
    subjects(lambda: [Row("3a", "Chamfer", np.float64(1.5), None, "s", np.float32(2), "<= 3 s", np.bool_(True))])
    bench.main([])
    row = json.loads((tmp_path / "results.json").read_text())["rows"][1]
    assert (row["ours"], row["ratio"], row["met"]) == (1.5, 2.0, True)


def result(*rows, **head):
    return {**place(), "small": False, "rows": [row.plain() for row in rows], **head}


def test_the_page_shows_every_bar_met_missed_or_not_measured(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    failed = Row("", "the subject two", None, None, "", None, "", None, "failed: OSError: full")
    missing = not_measured("4b", "against HF Trainer", ">= 1x", "transformers not installed")
    table.refresh(page, [result(GOOD, missing, failed), result(BAD, device="NVIDIA X")])
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    for bar, title in table.BARS.items():
        measured = "" if bar in ("3", "4", "10") else "not measured"
        assert f"| **{bar}** | **{title}** | | | | | {measured} | |" in text
    assert "| 3a | Chamfer | 10 ms | 1,281 ms | 128x | >= 10x | met | B 32 |" in text
    assert "| 10a | tokens | 0.25 s |  | 0.25 s | <= 0.1 s | **missed** |  |" in text
    assert "| 4b | against HF Trainer |  |  |  | >= 1x | not measured | transformers not installed |" in text
    assert "| the subject two |" in text and "OSError: full" in text
    assert "1 met, 1 missed, 0 stated, 1 not measured, 1 failed" in text and "NVIDIA X" in text
    assert f"torch {place()['libraries']['torch']}" in text


def test_of_a_row_in_two_files_the_later_measurement_is_shown_whatever_the_files_names():
    later, earlier = (
        result(replace(GOOD, ours=value), at=at) for value, at in ((30.0, "2026-12-01"), (20.0, "2026-11-28"))
    )
    for results in ([later, earlier], [earlier, later]):
        text = table.render(results)
        assert "| 3a | Chamfer | 30 ms |" in text and "20 ms" not in text


@pytest.mark.parametrize(("wanted", "met", "expected"), [("stated", True, "stated"), ("stated", False, "missed")])
def test_a_figure_without_a_bar_is_stated_instead_of_met(wanted, met, expected):
    assert table.verdict(Row("6d", "first token", 2.0, None, "ms", 2.0, wanted, met).plain()) == expected


def test_results_of_small_sizes_are_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(BEGIN + END)
    with pytest.raises(ValueError, match="--small"):
        table.refresh(page, [result(GOOD, small=True)])
    page.write_text("no markers")
    with pytest.raises(ValueError, match="measured"):
        table.refresh(page, [result(GOOD)])


def test_docs_performance_has_the_markers_of_the_table():
    text = (Path(bench.__file__).parents[1] / "docs" / "performance.md").read_text()
    assert text.count(BEGIN) == text.count(END) == 1
