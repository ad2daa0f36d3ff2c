"""`inspect` shows what a domain reads from files, and which of them it refuses."""

from __future__ import annotations

import json

import pytest

from training import cli


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A good file of the toy domain, a bad one, and one that does not exist."""
    monkeypatch.setenv("ATHANOR_DOMAINS", "tests.toy_domain.domain:TOY")
    (tmp_path / "good.csv").write_text("".join(f"{n},{2 * n}\n" for n in range(35)))
    (tmp_path / "bad.csv").write_text("1,2,3\n")
    return [str(tmp_path / name) for name in ("good.csv", "bad.csv", "none.csv")]


def test_a_file_is_shown_with_its_facts_tables_and_remarks(files, capsys):
    assert cli.main(["inspect", "toy", files[0]]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{files[0]}: readings",
        "  readings        35",
        "  device          good",
        "  largest         34",
        "  first bad line  -",
        "  sessions",
        "    session  mean",
        "          0    15",
        "          1    47",
        "  remark: the last 3 readings are no complete session",
    ]


def test_refused_files_are_shown_with_their_reason_and_end_the_command_with_3(files, capsys):
    assert cli.main(["inspect", "toy", *reversed(files)]) == 3
    out, err = capsys.readouterr()
    assert "bad.csv: refused: line 1 has 3 columns" in out and "none.csv: refused: does not exist" in out
    assert "good.csv: readings" in out and "2 of 3 files cannot be used" in err


def test_a_reason_of_several_lines_is_shown_as_lines_without_control_characters(files, capsys, monkeypatch):
    def refuse(*_):
        raise ValueError("2 lines are at fault.\n  line 3: no number\n  line 7: \x1b[2J")

    monkeypatch.setattr("tests.toy_domain.readings.inspect", refuse)
    assert cli.main(["inspect", "toy", files[0]]) == 3
    assert capsys.readouterr().out.splitlines() == [
        f"{files[0]}: refused: 2 lines are at fault.", "  line 3: no number", "  line 7: \\x1b[2J",
    ]  # fmt: skip


def test_json_has_the_same_for_programs(files, capsys):
    assert cli.main(["inspect", "toy", "--json", *files]) == 3
    good, bad, none = json.loads(capsys.readouterr().out)
    assert good["facts"]["readings"] == 35 and good["tables"]["sessions"][1] == {"session": 1, "mean": 47.0}
    assert bad["refused"].startswith("line 1 has 3 columns") and none == {
        "path": files[2], "refused": "does not exist",
    }  # fmt: skip


def test_a_domain_that_does_not_support_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ATHANOR_DOMAINS", "tests.gauges_domain.domain:GAUGES")
    assert cli.main(["inspect", "gauges", str(tmp_path)]) == 2
    assert "gauges does not support `inspect`" in capsys.readouterr().err
