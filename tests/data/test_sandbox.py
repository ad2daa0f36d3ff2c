"""A file that makes its decoder hang, crash or use too much memory is refused alone, and the run continues."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from training.data import sandbox
from training.errors import HostError

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)
import hostile_decoders as hostile  # noqa: E402

PROJECT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("signals_as_at_a_terminal")


def outcomes(function, items, seconds=5.0, megabytes=200, workers=2):
    found = list(sandbox.run(function, items, seconds=seconds, megabytes=megabytes, workers=workers))
    assert sorted(o.index for o in found) == list(range(len(items))), "every item has exactly one outcome"
    return sorted(found, key=lambda o: o.index)


def gone(pid: int, seconds: float = 10.0) -> bool:
    """Whether a process ends (or becomes a zombie) within `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_every_item_has_an_outcome_with_its_index():
    assert [o.value for o in outcomes(hostile.double, list(range(300)))] == [2 * n for n in range(300)]


def test_without_items_no_process_is_started():
    assert list(sandbox.run(hostile.double, [], seconds=1, megabytes=10)) == []


def test_each_fault_affects_one_item_and_is_reported_with_its_reason():
    """Hang, segmentation fault, exit and excessive memory use among good items, on one worker and on two."""
    kinds = ["a", "crash", "b", "hang", "c", "eat", "d", "exit", "e"]
    for workers in (1, 2):
        got = outcomes(hostile.fault, kinds, seconds=3.0, workers=workers)
        assert [o.value for o in got if o.error is None] == ["a", "b", "c", "d", "e"]
        errors = {kinds[o.index]: o.error for o in got if o.error}
        assert "SIGSEGV" in errors["crash"]
        assert "longer than 3 s" in errors["hang"]
        assert "more than 200 MB of memory" in errors["eat"]
        assert "exit code 7" in errors["exit"]
        assert [kinds[o.index] for o in got if o.timed_out] == ["hang"]


def test_the_limit_of_processor_time_ends_a_loop_and_not_a_wait():
    """A file is not refused because the machine is busy or its drive is slow."""
    kinds = ["spin", "doze 1.5", "a", "spin", "b"]
    got = outcomes(hostile.fault, kinds, seconds=lambda kind: sandbox.TimeLimit(60.0, 0.5), workers=1)
    assert [o.error is None for o in got] == [False, True, True, False, True]
    assert all("takes longer than 0.5 s" in o.error and o.timed_out for o in got if o.error)


def test_each_item_has_its_own_time_limit():
    limits = {"doze 0.4": 0.1, "doze 0.8": 20.0}
    got = outcomes(hostile.fault, list(limits), seconds=lambda kind: sandbox.TimeLimit(limits[kind]))
    assert [o.timed_out for o in got] == [True, False]


def test_items_queued_behind_a_hanging_item_are_done_by_another_worker():
    got = outcomes(hostile.fault, ["hang", *"abcdefgh"], seconds=2.0, workers=1)
    assert [o.error is None for o in got] == [False] + [True] * 8


def test_the_memory_limit_applies_to_what_an_item_uses():
    """It is measured from what the worker has when it starts, so that its imports do not use it up."""
    got = outcomes(hostile.fault, ["take 130", "take 290", "take 130"], megabytes=200, workers=1)
    assert [o.error is None for o in got] == [True, False, True]


def test_a_worker_that_answered_in_time_is_not_late_because_the_caller_was_busy():
    """The caller runs between two outcomes, for any length of time."""
    found = []
    for outcome in sandbox.run(hostile.fault, ["doze 0.2", "doze 0.6"], seconds=3.0, megabytes=200, workers=2):
        if not found:
            time.sleep(3.2)
        found.append(outcome)
    assert [o.error for o in found] == [None, None]


def test_all_answers_that_have_arrived_are_received_in_one_pass(monkeypatch):
    """One sleep for each answer would limit a fast worker to one item per sleep. A sleep is long here, so that several
    answers arrive in it on a busy host, too."""
    sleeps, sleep = [], time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleeps.append(seconds) or sleep(0.1 if seconds else 0))
    outcomes(hostile.fault, ["doze 0.003"] * 120, workers=1)
    assert sum(seconds > 0 for seconds in sleeps) < 80, "of 120 items"


def test_large_results_are_returned():
    assert len(outcomes(hostile.fault, ["big"], megabytes=1000)[0].value) == 100_000_000


def test_a_missing_program_stops_the_run_instead_of_refusing_the_files(tmp_path):
    path = tmp_path / "x"
    path.write_text("need")
    with pytest.raises(HostError, match="install it with"):
        outcomes(hostile.by_name, [path])


def test_a_function_that_workers_cannot_load_is_a_runtime_error():
    class Local:
        def __reduce__(self):
            return __import__, ("no_such_module_at_all",)

    with pytest.raises(RuntimeError, match="no_such_module_at_all"):
        list(sandbox.run(Local(), [1], seconds=1, megabytes=100))


def test_late_imports_do_not_use_up_the_limits_of_the_first_item():
    """The server runs already, and has not imported them: a decoder that compiles what it imports takes seconds."""
    module = "netrc"
    assert outcomes(hostile.loaded, [module])[0].value is False
    found = list(sandbox.run(hostile.loaded, [module], seconds=5, megabytes=200, imports=[module]))
    assert [outcome.value for outcome in found] == [True]


def test_the_output_of_decoders_is_discarded(capfd):
    outcomes(hostile.fault, ["noise"])
    assert "NOISE" not in capfd.readouterr().err


def test_workers_use_one_thread_each_and_the_callers_environment_is_unchanged():
    before = os.environ.get("OMP_NUM_THREADS")
    assert outcomes(hostile.threads, [1])[0].value == "1"
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_programs_that_a_decoder_started_end_with_it(tmp_path):
    """A killed worker must not leave its ffmpeg behind. In a separate process, since workers inherit the environment
    that the server was started with."""
    code = (
        f"import sys; sys.path[:0] = [{HERE!r}, {str(PROJECT)!r}]\n"
        "import hostile_decoders\n"
        "from training.data import sandbox\n"
        "items = ['hang with a child']\n"
        "print(list(sandbox.run(hostile_decoders.fault, items, seconds=1, megabytes=200)))\n"
    )
    file = tmp_path / "pid"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "CHILD_PID_FILE": str(file)}, capture_output=True, text=True
    )
    assert "longer than 1 s" in done.stdout, done.stderr
    assert gone(int(file.read_text()))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_an_interrupted_run(how):
    """The caller is interrupted or killed while its workers hang."""
    code = (
        f"import sys; sys.path[:0] = [{HERE!r}, {str(PROJECT)!r}]\n"
        "import hostile_decoders, multiprocessing\n"
        "from training.data import sandbox\n"
        "items = ['a', 'b', 'hang', 'hang']\n"
        "for _ in sandbox.run(hostile_decoders.fault, items, seconds=60, megabytes=99, workers=2):\n"
        "    print(*[p.pid for p in multiprocessing.active_children()], flush=True)\n"
    )
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    run = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, **quiet)
    run.stdout.readline()
    pids = [int(pid) for pid in run.stdout.readline().split()]
    assert len(pids) == 2
    run.send_signal(how)
    assert run.wait(120) != 0
    assert all(gone(pid) for pid in pids)


@pytest.mark.parametrize("what", ["a long TMPDIR", "no TMPDIR", "modules in the current folder", "warnings as errors"])
def test_workers_start_in_unusual_environments(tmp_path, what):
    (here := tmp_path / "here").mkdir()
    (far := tmp_path / ("far" * 30)).mkdir()
    given = {
        "a long TMPDIR": {"TMPDIR": str(far)},
        "no TMPDIR": {"TMPDIR": "/nowhere/at/all"},
        "modules in the current folder": {},
        "warnings as errors": {"PYTHONWARNINGS": "error"},
    }[what]
    if what.startswith("modules"):
        for name in ("random", "socket", "selectors", "training", "hostile_decoders"):
            (here / f"{name}.py").write_text("raise SystemExit('the module of somebody else')\n")
    code = (
        f"import sys; sys.path[:0] = [{HERE!r}, {str(PROJECT)!r}]\n"
        "import hostile_decoders\n"
        "from training.data import sandbox\n"
        "print([o.value for o in sandbox.run(hostile_decoders.double, [2], seconds=5, megabytes=200)])\n"
    )
    words = [sys.executable, "-P", "-c", code]
    done = subprocess.run(words, cwd=here, env={**os.environ, **given}, capture_output=True, text=True)
    assert done.stdout == "[4]\n", done.stderr


def test_the_callers_script_is_not_run_again_in_workers(tmp_path):
    """So a script may have no `if __name__` guard, and may import torch without a cost for each worker."""
    script = tmp_path / "unguarded.py"
    script.write_text(
        f"import sys; sys.path[:0] = [{HERE!r}, {str(PROJECT)!r}, {str(tmp_path)!r}]\n"
        "print('begun', flush=True)\n"
        "import hostile_decoders, this_is_heavy\n"
        "from training.data import sandbox\n"
        "run = sandbox.run(hostile_decoders.loaded, ['this_is_heavy', 'torch'], seconds=5, megabytes=99)\n"
        "print(sorted(o.value for o in run))\n"
    )
    (tmp_path / "this_is_heavy.py").write_text("")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[:2] == ["begun", "[False, False]"], done.stderr
