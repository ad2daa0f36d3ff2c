"""Threads are sized by what a process may use, wait without spinning, and leave what the user has set."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from training import host, threads

PROJECT = Path(__file__).parents[2]
SIX_OF_128 = "600000 100000"  # cpu.max of a container


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """os.environ, without what says anything about threads; a host that shows 128 CPUs and grants 6 by a quota."""
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text(SIX_OF_128)
    monkeypatch.setattr(host, "ROOT", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(128)))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "OPENBLAS_"))}
    for name in (threads.CONFIGURED, threads.AT_ONCE, "LOCAL_WORLD_SIZE", "TORCHINDUCTOR_COMPILE_THREADS"):
        kept.pop(name, None)
    monkeypatch.setattr(os, "environ", kept)
    return kept


def test_a_quota_counts_and_not_the_cpus_that_the_host_shows(environment):
    threads.configure()
    assert environment["OMP_NUM_THREADS"] == environment["TORCHINDUCTOR_COMPILE_THREADS"] == "6"
    assert (threads.count(), threads.count(workers=1), threads.count(workers=4)) == (6, 5, 5)


def test_what_waits_does_not_spin_for_long(environment):
    threads.configure()
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE" and int(environment["GOMP_SPINCOUNT"]) <= 10_000
    assert int(environment["OPENBLAS_THREAD_TIMEOUT"]) < 20


@pytest.mark.parametrize(("given", "number"), [("3", 3), ("12", 12), ("4,2", 4)])
def test_the_users_number_of_threads_stands(environment, given, number):
    environment["OMP_NUM_THREADS"] = given
    threads.configure()
    assert environment["OMP_NUM_THREADS"] == given
    assert threads.chosen() == threads.count(workers=2) == number


@pytest.mark.parametrize(("name", "value"), [("OMP_WAIT_POLICY", "ACTIVE"), ("GOMP_SPINCOUNT", "300000")])
def test_the_users_way_of_waiting_stands(environment, name, value):
    environment[name] = value
    threads.configure()
    assert {key: environment.get(key) for key in threads.WAITING} == dict.fromkeys(threads.WAITING) | {name: value}


def test_an_inherited_number_that_no_user_set_is_worked_out_again(environment):
    """A rank of torchrun, started by a process that was configured for all CPUs; then a process that was started beside
    another one."""
    threads.configure()
    environment["LOCAL_WORLD_SIZE"] = "2"
    threads.configure()
    assert environment["OMP_NUM_THREADS"] == "3" and threads.count(workers=1) == 2
    del environment["LOCAL_WORLD_SIZE"]
    environment |= threads.sharing(3)
    threads.configure()
    assert environment["OMP_NUM_THREADS"] == "2"
    environment |= threads.sharing(2)  # each of the three starts two
    threads.configure()
    assert environment["OMP_NUM_THREADS"] == "1"


def test_every_process_has_one_thread_where_there_are_fewer_cpus(environment):
    environment["LOCAL_WORLD_SIZE"] = "8"
    threads.configure()
    assert environment["OMP_NUM_THREADS"] == "1" and threads.count(workers=2) == 1


def test_a_stage_is_configured_before_its_openmp_is_loaded(tmp_path):
    """What libgomp itself reports of a stage that imports torch and may use one CPU."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    first = min(os.sched_getaffinity(0))
    done = subprocess.run(
        [sys.executable, "-m", "training", "verify", str(tmp_path)], cwd=PROJECT, capture_output=True, text=True,
        env=environment | {"OMP_DISPLAY_ENV": "verbose"}, preexec_fn=lambda: os.sched_setaffinity(0, {first}),
    )  # fmt: skip
    assert done.returncode == 4 and "There are no exports" in done.stderr
    reported = {line.split("=")[0].split()[-1]: line.split("'")[1] for line in done.stderr.splitlines() if "='" in
                line.replace(" = ", "=")}  # fmt: skip
    assert reported["OMP_NUM_THREADS"] == "1"
    assert (reported["OMP_WAIT_POLICY"], reported["GOMP_SPINCOUNT"]) == ("PASSIVE", threads.SPINS)
