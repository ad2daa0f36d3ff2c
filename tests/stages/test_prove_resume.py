"""`prove-resume` kills real processes, and fails if the killed run differs from an uninterrupted one."""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from tests.engine import toy
from training.engine.checkpoints import checkpoint_file
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.errors import HostError, TrainingError
from training.stages.prove_resume import SCRATCH, compare, prove_resume
from training.workspace import PROJECT, Workspace, exclusive

COMMAND = [sys.executable, str(Path(__file__).with_name("toy_train.py"))]
MADE = [sys.executable, str(Path(__file__).with_name("made_run.py"))]


@pytest.fixture
def prove(tmp_path, monkeypatch, capsys):
    """prove(forgets) -> what it found; `prove.output()` is what it printed."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TOY_SECONDS", "0.05")
    (tmp_path / "data").mkdir()

    def call(forgets="", **options):
        monkeypatch.setenv("TOY_FORGETS", forgets)
        return prove_resume(
            "toy", Workspace(tmp_path), **{"command": COMMAND, "steps": 20, "kills": 2, "seed": 5, **options}
        )

    return call


def alive():
    """The processes of the trainings; a zombie has no environment any more."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone, or somebody else's
            if b"TOY_SECONDS=0.05" in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
    return found - {os.getpid()}


@pytest.mark.slow
def test_a_run_that_is_killed_twice_equals_the_uninterrupted_one(prove, tmp_path, capsys):
    """And nothing is left: no file, no process."""
    found = prove()
    output = capsys.readouterr().out
    assert found.none and found.tensors > 20 and found.records > 20
    assert output.count("kill -9 after step") == 2 and "Equal, bit for bit" in output
    assert "No kill came after a save" not in output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "data"]
    assert not alive()


@pytest.mark.slow
def test_two_ranks_that_are_killed_equal_two_uninterrupted_ones(prove, monkeypatch, capsys):
    launch = [sys.executable, "-m", "training.runner.launch", "--standalone", "--nproc_per_node=2", COMMAND[1]]
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    assert prove(command=launch, kills=1).none
    assert capsys.readouterr().out.count("kill -9 after step") == 1
    assert not alive()


@pytest.mark.slow
def test_a_resume_that_loses_the_optimizer_state_is_reported(prove, tmp_path):
    with pytest.raises(TrainingError, match=r"the first is model\.layers\.0\.weight.*first difference is at step \d+"):
        prove("optimizer", kills=1)
    assert not (tmp_path / SCRATCH).exists()


def test_a_run_that_fails_unkilled_is_reported_with_its_exit_code(prove, tmp_path):
    with pytest.raises(HostError, match=r"(?s)exit code 6.*this host is on fire"):
        prove("fail")
    assert not (tmp_path / SCRATCH).exists()


def test_a_second_proof_at_the_same_time_is_refused(prove, tmp_path):
    with exclusive(tmp_path / SCRATCH, "proving"), pytest.raises(HostError, match="in use"):
        prove()


@pytest.fixture
def prove_made(tmp_path, run):
    """prove_made(device, kills, killed=..., again=...) -> what is found about runs that were made before: that of
    toy.run on such a device, its weights off by so much in the folders of that name."""
    made, root = tmp_path / "made", tmp_path / "root"
    root.mkdir()

    def call(device, kills=0, **off):
        for name in ("straight", "killed", "again"):
            content = copy.deepcopy(run)
            content["provenance"]["hardware"]["device"] = device
            content["model"]["layers.0.weight"].mul_(1 + off.get(name, 0.0))
            shutil.rmtree(made / name, ignore_errors=True)
            entry = {"step": content["progress"]["step"], "epoch": 1, "value": None, "run_id": "made"}
            CheckpointFolder(made / name / "checkpoints" / "toy").save(content, entry)
        return prove_resume("toy", Workspace(root), command=[*MADE, str(made)], kills=kills, seed=1)

    return call


def test_every_process_of_a_trial_is_killed_whatever_group_it_is_in(prove_made, tmp_path, monkeypatch, capsys):
    """torchrun gives its ranks sessions of their own: killing a group would leave them running."""
    monkeypatch.setenv("MADE_HANGS", "1")
    monkeypatch.setenv("TOY_SECONDS", "0.05")  # by which `alive` finds them
    assert prove_made("CPU", kills=1).none
    assert "kill -9 after step 99: it continues from step 0" in capsys.readouterr().out
    assert len((tmp_path / "made" / "pids").read_text().split()) == 2 and not alive()


# -- on a GPU ------------------------------------------------------------------------------------------------------


def test_a_gpus_own_rounding_is_measured_and_reported(prove_made, capsys):
    found = prove_made("NVIDIA H100", killed=1e-3, again=-1e-3)
    assert found.relative == pytest.approx(1e-3, rel=1e-3)
    output = capsys.readouterr().out
    assert "CUDA kernels need not be" in output and "Equal but for the GPU's own rounding" in output


def test_a_gpu_excuses_no_more_than_its_own_rounding(prove_made):
    with pytest.raises(TrainingError, match=r"model\.layers\.0\.weight"):
        prove_made("NVIDIA H100", killed=1e-2, again=1e-5)
    with pytest.raises(TrainingError, match=r"model\.layers\.0\.weight"):
        prove_made("NVIDIA H100", killed=1e-6)  # two straight runs are equal, bit for bit


# -- comparing -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("run")
    toy.run(root, training={"ema_decay": 0.9, "epochs": 1})
    return checkpoint_file.read(root / "checkpoints/toy/last.pt")


RECORDS = [{"kind": "train", "step": n, "loss": 1.0 / n, "lr": 0.1} for n in range(1, 5)]


def other(run, change):
    made = copy.deepcopy(run)
    change(made)
    return compare(run, made, RECORDS, RECORDS)


def test_equal_runs_are_equal_whatever_the_clock_shows(run):
    found = other(run, lambda state: state["progress"].update(seconds=99.0))
    assert found.none and found.tensors > 10


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("model.layers.0.weight", lambda state: state["model"]["layers.0.weight"][0, 0].mul_(1 + 1e-7)),
        ("ema.layers.3.bias", lambda state: state["ema"]["layers.3.bias"].add_(1e-7)),
        ("optimizer.state.0.exp_avg", lambda state: state["optimizer"]["state"][0]["exp_avg"].neg_()),
        ("optimizer.param_groups.0.lr", lambda state: state["optimizer"]["param_groups"][0].update(lr=0.1)),
        ("early_stopping", lambda state: state.update(early_stopping={})),
        ("progress.step", lambda state: state["progress"].update(step=5)),
        ("metrics.val_loss", lambda state: state["metrics"].update(val_loss=0.5)),
    ],
)
def test_the_smallest_difference_is_named(run, path, change):
    found = other(run, change)
    assert found.differing[0] == path and not found.none
    assert path in str(found)


def test_the_largest_difference_of_a_tensor_is_relative_to_its_largest_value(run):
    def change(state):
        state["model"]["layers.0.weight"].mul_(1.5)

    assert other(run, change).relative == pytest.approx(0.5)


def test_a_zero_with_the_other_sign_is_another_bit(run):
    one, two = copy.deepcopy(run), copy.deepcopy(run)
    one["model"]["layers.3.bias"].zero_()
    two["model"]["layers.3.bias"].zero_().neg_()
    assert compare(one, two, [], []).differing == ["model.layers.3.bias"]


def test_the_first_step_that_differs_is_named_with_its_values(run):
    changed = [dict(record) for record in RECORDS]
    changed[2]["loss"] = 0.25
    found = compare(run, run, RECORDS, changed)
    assert found.record == f"at step 3 (train): loss {1 / 3} and 0.25" and not found.none
    assert "no more records at step 4" in compare(run, run, RECORDS, RECORDS[:3]).record
