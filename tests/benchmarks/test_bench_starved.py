"""Bar 11 is measured on complete processes: the processes beside them are busy, and the CPU limit is in effect."""

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import starved

PROJECT = Path(starved.__file__).parents[1]
SEES = [sys.executable, "-S", "-c", "from training.host import available_cpus; print(available_cpus())"]


def test_a_process_with_one_cpu_sees_that_it_has_one():
    with starved.one_cpu() as (enter, how):
        seen = subprocess.run(SEES, cwd=PROJECT, preexec_fn=enter, capture_output=True, text=True, check=True).stdout
    assert seen.strip() == "1" and ("quota" in how or "affinity" in how)


def test_busy_processes_use_processor_time_and_are_ended():
    before, others, began = os.times(), children(), time.monotonic()
    with starved.busy(2):
        while time.monotonic() - began < 30:
            used = [ticks(child) for child in children() - others]
            if len(used) == 2 and min(used) > 3:  # clock ticks
                break
            time.sleep(0.02)
    assert len(used) == 2 and min(used) > 3 and not children() - others
    assert os.times().children_user > before.children_user


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def ticks(process: str) -> int:
    """Clock ticks of user time."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11])


def test_a_command_is_timed_beside_busy_processes_and_under_a_quota():
    work = starved.Work("11e", ("--help",), lambda: None)
    beside, quota = starved.rows_of(work, starved.timed_sides(work, 1, small=True))
    assert (beside.bar, quota.bar) == ("11e", "11f")
    for row in (beside, quota):
        assert row.ratio == row.ours / row.reference and row.ours > 0.02
        assert row.met == (row.ratio <= float(row.wanted.removeprefix("<= ").removesuffix("x")))
