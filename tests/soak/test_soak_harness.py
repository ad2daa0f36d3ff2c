"""The harness counts correctly: a mutant that is not caught, or a trial that itself fails, does not count as a pass."""

import json
import os
import signal
import subprocess
import time
from contextlib import contextmanager

import pytest

from soak import __main__ as command_line
from soak import harness, listing
from soak.harness import Mutant, Row, Soak, each, edited, once, patched, tally
from soak.processes import NotHeld, expect, forked, start
from training.errors import HostError

GUARD = True


def guarded(trial):
    expect(GUARD or trial.index != 2, f"trial {trial.index} was not guarded")


def row(trial, *mutants, **changes):
    return Row(**{"number": 99, "fault": "a fault", "bar": "a bar", "run": each(trial, seconds=5), "full": 4,
                  "small": 3, "mutants": mutants} | changes)  # fmt: skip


def run(row, tmp_path, **options):
    output = []
    done = tally(row, **{"small": False, "seed": 1, "scratch": tmp_path, "say": output.append} | options)
    assert list(tmp_path.iterdir()) == []
    return done, "\n".join(output)


def no_guard(value=False):
    import sys

    return patched(sys.modules[guarded.__module__], "GUARD", value)


def test_a_row_passes_when_all_hold_and_its_mutant_is_caught(tmp_path):
    done, _ = run(row(guarded, Mutant("no guard", no_guard())), tmp_path)
    assert (done.tried, done.held, done.caught, done.passed) == (4, 4, 1, True)
    assert done.mutants[0]["tried"] == 3 and GUARD is True


def test_a_mutant_that_changes_nothing_fails_the_row(tmp_path):
    done, output = run(row(guarded, Mutant("still guarded", no_guard(True))), tmp_path)
    assert done.held == 4 and not done.passed and "still guarded" in output


def test_a_failure_for_another_reason_catches_no_mutant(tmp_path):
    done, _ = run(row(guarded, Mutant("no guard", no_guard(), sign="the disk was full")), tmp_path)
    assert done.caught == 0 and not done.passed


def test_a_broken_trial_does_not_hold_and_catches_no_mutant(tmp_path):
    def broken(trial):
        raise KeyError("the trial's own bug")

    done, output = run(row(broken, Mutant("none", no_guard())), tmp_path)
    assert (done.held, done.caught, done.passed) == (0, 0, False) and "the trial's own bug" in output


def test_a_row_without_trials_does_not_pass(tmp_path):
    done, _ = run(row(guarded, full=0), tmp_path)
    assert not done.passed


def test_a_trial_that_hangs_is_ended_with_all_it_started(tmp_path):
    pids = tmp_path.parent / f"{tmp_path.name}-pids"

    def hangs(trial):
        child = subprocess.Popen(["sleep", "600"])
        pids.write_text(str(child.pid))
        time.sleep(600)

    done, output = run(row(hangs, run=each(hangs, seconds=0.5), full=1), tmp_path)
    assert done.held == 0 and "did not end within" in output
    with pytest.raises(ProcessLookupError):
        for _ in range(500):
            os.kill(int(pids.read_text()), 0)
            time.sleep(0.01)


def test_trials_get_the_same_random_numbers_for_the_same_seed(tmp_path):
    def draw(seed, index):
        return Soak(7, 1, seed, tmp_path).random(index).random()

    assert draw(1, 0) == draw(1, 0) and len({draw(1, 0), draw(1, 1), draw(2, 0)}) == 3


def test_only_the_trials_requested_run_and_no_mutants(tmp_path):
    done, _ = run(row(guarded, Mutant("no guard", no_guard())), tmp_path, only=frozenset({1, 3}))
    assert (done.tried, done.mutants, done.passed) == (2, [], True)


def test_a_row_that_cannot_run_here_shows_why_and_does_not_pass(tmp_path):
    done, _ = run(row(guarded, unable=lambda: "no engine"), tmp_path)
    assert (done.tried, done.passed, done.unable) == (0, False, "no engine")
    assert "not run here: no engine" in command_line.line(done)


def test_one_process_may_judge_all_trials(tmp_path):
    def all_of_them(soak):
        return [harness.TrialResult(str(index), index != 1, "seen") for index in range(soak.count)]

    done, _ = run(row(guarded, run=once(all_of_them, seconds=5)), tmp_path)
    assert (done.tried, done.held) == (4, 3)


def test_a_pass_under_a_mutant_is_marked_so_that_it_may_end_with_the_first_failure(tmp_path):
    def all_of_them(soak):
        return [harness.TrialResult("0", not soak.mutant, "seen")]

    done, _ = run(row(guarded, Mutant("any", no_guard()), run=once(all_of_them, seconds=5), full=1), tmp_path)
    assert (done.held, done.caught) == (1, 1)


def test_a_forked_process_ends_as_a_command_does(tmp_path):
    def refuses():
        print("before")
        raise HostError("no room")

    ended = forked(refuses)
    assert ended.code == 6 and ended.output == "before\nerror: no room\n"
    assert forked(lambda: 41).value == 41
    assert forked(lambda: expect(False, "what was seen")).not_held == "what was seen"

    child = start(time.sleep, 60)
    assert child.running
    child.kill()
    assert child.wait(5).code == -signal.SIGKILL


def test_commands_run_under_the_mutant_that_is_tested(tmp_path, monkeypatch):
    seen = []

    @contextmanager
    def fault():
        seen.append(os.environ[harness.MUTANT])
        yield

    run(row(guarded, Mutant("a name: with a colon", fault)), tmp_path)
    assert seen == ["99:a name: with a colon"] and harness.MUTANT not in os.environ
    mutant = Mutant("a name: with a colon", fault)
    monkeypatch.setattr(listing, "rows", lambda: [row(guarded, mutant)])
    assert listing.find_mutant(seen[0]) is mutant


def test_patching_an_attribute_that_does_not_exist_is_an_error():
    with pytest.raises(AttributeError), patched(os, "no_such_function", None)():
        pass


def test_the_exit_code_and_the_results_show_whether_all_trials_held(tmp_path, monkeypatch, capsys):
    def never(trial):
        raise NotHeld("it broke at byte 17")

    out = tmp_path / "results.json"
    monkeypatch.setattr(command_line, "rows", lambda: [row(guarded), row(never, number=100)])
    assert command_line.main(["--output", str(out), "--seed", "5"]) == 1
    printed = capsys.readouterr().out
    assert "seed 5" in printed and "it broke at byte 17" in printed and "held   4 of 4" in printed
    assert [(r["row"], r["held"], r["passed"]) for r in json.loads(out.read_text())["rows"]] == [
        (99, 4, True), (100, 0, False),
    ]  # fmt: skip
    assert command_line.main(["--output", str(out), "--seed", "5", "--at-once", "2"]) == 1
    assert [(r["row"], r["held"], r["passed"]) for r in json.loads(out.read_text())["rows"]] == [
        (99, 4, True), (100, 0, False),
    ]  # fmt: skip
    assert command_line.main(["--rows", "99"]) == 0
    with pytest.raises(SystemExit) as refused:
        command_line.main(["--rows", "3"])
    assert refused.value.code == 2


def test_every_mutant_finds_the_code_that_it_changes():
    """Names of the product are in them as text: a renamed one would only be noticed by a long run."""

    def failed():
        found = {}
        for number, mutant in mutants:
            try:
                with mutant.fault():
                    pass
            except Exception as error:  # noqa: BLE001  reported
                found[f"{number}: {mutant.name}"] = repr(error)
        return found

    mutants = [(row.number, mutant) for row in listing.rows() for mutant in row.mutants]
    assert len(mutants) > 40 and forked(failed).value == {}


def test_a_function_is_edited_within_the_context_and_restored_afterwards():
    import sys

    here = sys.modules[guarded.__module__]
    with edited(here, "guarded", "trial.index != 2", "trial.index != 3")():
        guarded(harness.Trial(2, None, None, None))
        with no_guard()(), pytest.raises(NotHeld):
            guarded(harness.Trial(3, None, None, None))
    guarded(harness.Trial(3, None, None, None))
    with pytest.raises(LookupError):
        edited(here, "guarded", "no such line", "")
