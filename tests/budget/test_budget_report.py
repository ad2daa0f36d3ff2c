"""What is printed about a budget."""

from __future__ import annotations

from tests.budget.jobs import FAMILIES, book_of, work
from training.budget.account import ledger_path, table
from training.budget.limit import Limit
from training.cli import main
from training.workspace import Workspace


def test_the_table_lists_stages_money_and_what_is_left(tmp_path, clock):
    space = Workspace(tmp_path)
    work(space, clock, "train", 1800, ["one"], Limit(hours=1, price=2.0))
    work(space, clock, "export", 60, FAMILIES)  # by hand, without the flags: the limit stays on record
    output = table(book_of(space))
    assert "train one" in output and "0:30:00" in output and "1.00" in output
    assert "Limit: 1:00:00; left: 0:29:00" in output and "not counted" in output


def test_a_continued_job_notes_that_time_between_its_runs_is_not_counted(tmp_path, clock, monkeypatch, capsys):
    space = Workspace(tmp_path)
    monkeypatch.setenv("ATHANOR_RUNNER", "a-1")
    for seconds in (10, 20):
        work(space, clock, "train", seconds, ["one"], Limit(hours=1))
    assert "not counted" not in capsys.readouterr().out
    monkeypatch.setenv("ATHANOR_RUNNER", "a-2")
    work(space, clock, "train", 30, ["one"], Limit(hours=1))
    output = capsys.readouterr().out
    assert "Budget: 0:00:30 of 1:00:00 used." in output and "not counted" in output


def test_done_ends_the_job(tmp_path, clock, capsys):
    space = Workspace(tmp_path)
    work(space, clock, "train", 60, ["one"])
    assert main(["budget", "--out", str(tmp_path)]) == 0
    assert "not done yet" in capsys.readouterr().out
    assert main(["budget", "--out", str(tmp_path), "--done"]) == 0
    assert "done 2" in capsys.readouterr().out and book_of(space).job.done


def test_showing_the_budget_changes_nothing(tmp_path, clock, capsys):
    assert main(["budget", "--out", str(tmp_path)]) == 0
    assert not list(tmp_path.iterdir())
    work(Workspace(tmp_path), clock, "train", 60, ["one"])
    before = ledger_path(Workspace(tmp_path)).stat()
    main(["budget", "--out", str(tmp_path)])
    assert ledger_path(Workspace(tmp_path)).stat() == before
    ledger_path(Workspace(tmp_path)).write_text("{")
    assert main(["budget", "--out", str(tmp_path), "--done"]) == 6
    assert "Move it away" in capsys.readouterr().err
