"""The GPU benchmark runs on a CPU with small sizes, and detects wrong results."""

import functools
import json
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from benchmarks import gpu, gpu_engine, gpu_ranks, table
from benchmarks.gpu_place import place_here
from benchmarks.harness import Row
from benchmarks.music import gpu_chamfer
from benchmarks.music.chamfer import by_cdist
from benchmarks.sql import gpu_sharding
from tests.ranks import two_ranks
from tests.warm import Warm


@pytest.fixture
def traced(monkeypatch):
    """torch.compile traces and counts graphs and runs them eagerly, because a real backend takes minutes."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    monkeypatch.setattr(gpu, "not_installed", lambda *_: "transformers not installed")
    yield
    torch._dynamo.reset()


def test_all_subjects_run_without_a_gpu_and_are_reported_as_not_measured(traced, tmp_path, capsys):
    torch._dynamo.utils.counters.clear()
    assert gpu.main(["--output", str(tmp_path / "out.json")]) == 0
    assert "not measured on a GPU" in capsys.readouterr().out
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["small"]  # the page's table refuses it
    bars = [row["bar"] for row in result["rows"]]
    assert bars == [f"10{letter}" for letter in "abcdefghiklmnoprsuvwxyz"]
    assert all(table.verdict(row) == "not measured" for row in result["rows"])
    page = (tmp_path / "out.md").read_text()
    assert "**On a GPU**" in page and "no GPU" in page and "23 not measured" in page


def test_failed_and_late_subjects_do_not_affect_the_others(monkeypatch, tmp_path):
    good = Row("10b", "good", 1.0, None, "s", 1.0, "<= 2 s", True)

    def raises():
        raise torch.OutOfMemoryError("CUDA out of memory")

    report = gpu.Report(until=time.monotonic() + 60)
    report.attempt("10a", "broken", raises)
    report.attempt("10b", "good", lambda: [good])
    report.until = 0.0
    report.attempt("10c", "late", raises)
    assert [table.verdict(row.plain()) for row in report.rows] == ["failed", "met", "not measured"]
    assert "OutOfMemoryError: CUDA out of memory" in report.rows[0].note and "were over" in report.rows[2].note
    monkeypatch.setattr(gpu, "measure", lambda _: report.rows)
    assert gpu.main(["--output", str(tmp_path / "out.json")]) == 1


def test_an_inexact_distance_is_detected(monkeypatch, tmp_path):
    here = place_here(tmp_path)
    right = gpu_chamfer.exactness(here, 2, 60)
    assert all(row.met for row in right)
    monkeypatch.setattr(gpu_chamfer, "chamfer", by_cdist)
    wrong = gpu_chamfer.exactness(here, 2, 60)
    assert not wrong[0].met and wrong[0].ratio > 0.05


def test_a_recompilation_is_detected(traced, tmp_path):
    class Engine:
        run = property(lambda self: self)
        sizes = iter(range(2, 100))
        work = staticmethod(torch.compile(lambda x: x * 2, dynamic=False))

        def evaluate(self): ...

        def __call__(self, steps):
            self.work(torch.ones(next(self.sizes)))

    assert gpu_engine.recompilations(place_here(tmp_path), Engine()).ratio == 2
    Engine.sizes = iter([2] * 100)
    assert gpu_engine.recompilations(place_here(tmp_path), Engine()).met


def test_input_wait_is_the_time_that_the_loop_waited(tmp_path):
    class Engine:
        waited = 5.0

        def __call__(self, steps):
            time.sleep(0.01)
            self.waited += 0.005

    row = gpu_engine.waiting(place_here(tmp_path), Engine())
    assert 20 < row.ratio < 60 and not row.met


def test_ranks_are_counted_together(tmp_path):
    """Two processes under torchrun, each with its own batch; the time of the slower one is used."""
    here = place_here(tmp_path)
    assert gpu_ranks.rate(here, 2) > 0


@pytest.mark.parametrize(("count", "met"), [(3, True), (4, False)])
def test_scaling_is_relative_to_n_times_one_gpu(count, met, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(gpu_ranks, "rate", lambda _here, n: 280.0 if n > 1 else 100.0)
    (row,) = gpu_ranks.measure(place_here(tmp_path))
    assert row.met is met and row.ratio == 2.8 / count


@pytest.fixture
def forked_ranks(monkeypatch, tmp_path):
    """The ranks of gpu_sharding.py are forked from a process that has imported what they need, for seconds each."""
    warm = Warm(tmp_path, "tests.benchmarks.sharding_imported:unchanged")
    launch = [sys.executable, "-m", "training.runner.launch", "--nproc_per_node=2", "--standalone", "-m"]

    def run(command, **_):
        assert command[:6] == launch  # as in gpu_ranks.py, which a test runs as it is
        two_ranks(warm.python, tmp_path / "printed", *command[6:])

    monkeypatch.setattr(gpu_sharding, "subprocess", SimpleNamespace(run=run, DEVNULL=subprocess.DEVNULL))
    yield
    warm.close()


def test_sharded_and_copied_layers_are_compared_on_two_processes(monkeypatch, tmp_path, forked_ranks):
    """On a CPU the memory is that of the parameters."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    rate, memory, loss = gpu_sharding.measure(place_here(tmp_path))
    assert rate.ours > 0 and rate.reference > 0
    assert memory.met and 0.5 < memory.ratio < 0.9  # embeddings are on both
    assert loss.met and loss.ratio == pytest.approx(1, rel=1e-3)


def test_fewer_than_two_gpus_are_reported(tmp_path):
    rows = gpu_sharding.measure(place_here(tmp_path))
    assert [row.bar for row in rows] == ["10w", "10x", "10z"] and not any(row.ours for row in rows)
    assert all("0 GPUs here, and two are needed" in row.note for row in rows)
