"""A run that is stopped anywhere and resumed ends with the bits of an uninterrupted one; no checkpoint is lost."""

import json
import os
import signal

import pytest
import torch

from tests.engine import toy
from tests.engine.test_engine_loader_killed import children
from training.engine.checkpoints import checkpoint_file
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.errors import DataError, HostError, Interrupted, UsageError
from training.workspace import exclusive

#: Settings with every kind of state: dropout, averaged weights, accumulation, patience, a last smaller batch.
RICH = {
    "model": {"dropout": 0.4},
    "training": {
        "ema_decay": 0.9,
        "grad_accum_steps": 2,
        "epochs": 4,
        "save_every": 1,
        "early_stopping": {"enabled": True, "patience": 3, "min_delta": 0.5},
    },
    "data": {"batch_size": 2},
}
HALF = {"training": {"amp": True, "amp_dtype": "float16", "epochs": 2}, "model": {"dropout": 0.4}}


def folder(root):
    return root / "checkpoints" / "toy"


def saved(root, name="last.pt"):
    return checkpoint_file.read(folder(root) / name)


def assert_same(one, other, path=""):
    """Bit-identical nested values."""
    assert type(one) is type(other), path
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_same(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{path}[{number}]")
    else:
        assert one == other, path


def assert_same_run(one, other):
    for part in ("model", "ema", "optimizer", "scaler", "constants", "early_stopping", "metrics"):
        assert_same(one[part], other[part], part)
    timeless = [{k: v for k, v in state["progress"].items() if k != "seconds"} for state in (one, other)]
    assert timeless[0] == timeless[1]


def stop_and_resume(root, step=-1, validation=-1, **settings):
    with pytest.raises(Interrupted) as caught:
        toy.run(root, toy.stopped(step, validation), **settings)
    assert caught.value.exit_code == 75
    at = saved(root)["progress"]["step"] if (folder(root) / "last.pt").exists() else 0
    toy.run(root, **settings)
    return at


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("uninterrupted")
    toy.ToyRecipe.log.clear()
    toy.run(root, **RICH)
    return saved(root), list(toy.ToyRecipe.log)


@pytest.mark.parametrize("step", [0, 2, 5, 6, 13, 23])
def test_a_run_stopped_in_a_step_ends_bit_identical(tmp_path, uninterrupted, step):
    """At the first step, in the middle of an epoch, at an epoch's very end (5, 23), just after (6)."""
    at = stop_and_resume(tmp_path, step, **RICH)
    assert at in (step + 1, 0)  # before the first step is done there is nothing to lose
    assert_same_run(saved(tmp_path), uninterrupted[0])
    if at:
        assert toy.ToyRecipe.log == uninterrupted[1]  # no sample lost, none twice


@pytest.mark.parametrize("validation", [2, 4, 5, 7, 12])
def test_a_run_stopped_in_validation_ends_bit_identical(tmp_path, uninterrupted, validation):
    """In the sanity check before step 1 (2), and in the epochs' validations: the epoch is not trained again."""
    stop_and_resume(tmp_path, validation=validation, **RICH)
    assert_same_run(saved(tmp_path), uninterrupted[0])
    assert toy.ToyRecipe.log == uninterrupted[1]


def test_a_stop_signal_ends_a_validation_before_its_last_batch(tmp_path):
    """The stop must not wait for its last batch."""
    judged = []

    class Judging(toy.stopped(validation=4)):
        def validate(self, model, batch):
            judged.append(len(batch["x"]))
            return super().validate(model, batch)

    with pytest.raises(Interrupted):
        toy.run(tmp_path, Judging)
    assert len(judged) == 4  # two of the sanity check, two of three in the first epoch's validation
    assert saved(tmp_path)["progress"]["evaluated"] == 0


def test_a_run_stopped_many_times_ends_bit_identical(tmp_path, uninterrupted):
    for step in (1, 3, 5, 8, 11, 13, 17, 22):
        with pytest.raises(Interrupted):
            toy.run(tmp_path, toy.stopped(step), **RICH)
    toy.run(tmp_path, **RICH)
    assert_same_run(saved(tmp_path), uninterrupted[0])
    assert toy.ToyRecipe.log == uninterrupted[1]


def test_a_float16_run_resumes_with_the_state_of_its_gradient_scaler(tmp_path):
    toy.run(tmp_path / "reference", **HALF)
    stop_and_resume(tmp_path / "parts", 7, **HALF)
    assert saved(tmp_path / "reference")["scaler"]["scale"] > 0
    assert_same_run(saved(tmp_path / "parts"), saved(tmp_path / "reference"))


def test_a_stop_signal_to_loader_workers_does_not_end_them(tmp_path):
    """SIGTERM to all processes, as to a process group: the current step still gets its batches."""
    settings = {"data": {"num_workers": 2}, "training": {"epochs": 2}}
    toy.run(tmp_path / "reference", **settings)

    class Group(toy.ToyRecipe):
        def losses(self, model, batch, progress):
            if progress.step == 4:
                workers = children()
                assert len(workers) >= 2
                for pid in (*workers, os.getpid()):
                    os.kill(pid, signal.SIGTERM)
            return super().losses(model, batch, progress)

    with pytest.raises(Interrupted):
        toy.run(tmp_path / "parts", Group, **settings)
    toy.run(tmp_path / "parts", **settings)
    assert_same_run(saved(tmp_path / "parts"), saved(tmp_path / "reference"))


def test_starting_a_finished_run_again_trains_nothing(tmp_path):
    """The checkpoint of the last step is left as it is."""
    first = toy.run(tmp_path)
    before = (folder(tmp_path) / "last.pt").stat()
    toy.ToyRecipe.log.clear()
    again = toy.run(tmp_path)
    assert again.already and not first.already and not toy.ToyRecipe.log
    assert again.metrics == first.metrics and again.step == 18 and again.run == first.run
    assert (folder(tmp_path) / "last.pt").stat().st_mtime_ns == before.st_mtime_ns


def test_more_epochs_continue_from_the_end(tmp_path):
    """No epoch is repeated; the schedule is planned again, and the log reports it."""
    toy.run(tmp_path, training={"epochs": 2})
    toy.ToyRecipe.log.clear()
    trained = toy.run(tmp_path, training={"epochs": 3})
    assert [step for step, _ in toy.ToyRecipe.log] == list(range(12, 18))
    assert trained.step == 18 and not trained.already
    assert "from 12 to 18 steps" in (trained.run / "log.txt").read_text()
    assert not (folder(tmp_path) / "previous").exists()


def test_the_log_of_a_resumed_run_has_every_step_once(tmp_path):
    """Records past the checkpoint are dropped, and come again."""
    with pytest.raises(Interrupted):
        toy.run(tmp_path, toy.stopped(7))
    (run_folder,) = (tmp_path / "runs/toy").iterdir()
    with (run_folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "train", "step": 9}) + '\n{"kind": "tr')
    trained = toy.run(tmp_path)
    assert trained.run == run_folder
    records = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if r["kind"] == "train"] == list(range(1, 19))


# -- another run ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "output"),
    [
        ({"optim": {"lr": 0.02}}, "optim.lr: 0.01 -> 0.02"),
        ({"model": {"width": 8}}, "model.width: 16 -> 8"),
        ({"seed": 1}, "seed: 42 -> 1"),
        ({"train_rows": 23}, "the data is not the same"),
        ({"data": {"batch_size": 3}}, "4 -> 3"),
        ({"training": {"epochs": 1}}, "18 steps are done, and 6 are requested"),
        ({"resume": "never"}, "--resume never"),
    ],
)
def test_a_run_with_other_settings_starts_from_step_0_and_keeps_the_old_checkpoints(tmp_path, change, output):
    first = toy.run(tmp_path)
    before = saved(tmp_path)
    toy.ToyRecipe.log.clear()
    second = toy.run(tmp_path, **change)
    assert toy.ToyRecipe.log[0][0] == 0 and second.run != first.run
    assert output in (second.run / "log.txt").read_text()
    assert_same(checkpoint_file.read(folder(tmp_path) / "previous" / first.run.name / "last.pt"), before)


@pytest.mark.parametrize(
    "change",
    [
        {"data": {"batch_size": 2}, "training": {"grad_accum_steps": 2}},
        {"data": {"num_workers": 1, "prefetch_factor": 4}},
        {"training": {"log_every": 5, "save_every": 2, "keep": 1, "save_minutes": 3.0}},
        {"logging": {"tensorboard": True}},
    ],
)
def test_settings_that_do_not_affect_the_weights_do_not_prevent_a_resume(tmp_path, change):
    with pytest.raises(Interrupted):
        toy.run(tmp_path, toy.stopped(7))
    toy.ToyRecipe.log.clear()
    toy.run(tmp_path, **change)
    assert toy.ToyRecipe.log[0][0] == 8


def test_a_run_that_stopped_early_stays_finished_until_its_rule_changes(tmp_path):
    """Started again it does nothing; once early stopping is off, it continues."""
    stopping = {"enabled": True, "patience": 2, "min_delta": 1e6}
    stopped = toy.run(tmp_path, training={"epochs": 9, "early_stopping": stopping})
    assert stopped.epoch == 3 and "early stopping" in stopped.finished
    assert toy.run(tmp_path, training={"epochs": 9, "early_stopping": stopping}).already
    longer = toy.run(tmp_path, training={"epochs": 9, "early_stopping": {"enabled": False}})
    assert longer.epoch == 9 and not longer.already


def test_early_stopping_waits_for_min_epochs(tmp_path):
    stopping = {"enabled": True, "patience": 1, "min_delta": 1e6}
    trained = toy.run(tmp_path, training={"epochs": 9, "min_epochs": 5, "early_stopping": stopping})
    assert trained.epoch == 5


def test_evaluation_runs_every_eval_every_epochs_and_at_the_end(tmp_path):
    trained = toy.run(tmp_path, training={"epochs": 5, "eval_every": 2})
    records = [json.loads(line) for line in (trained.run / "metrics.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in records if r["kind"] == "validation"] == [2, 4, 5]


def test_an_unknown_monitor_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(UsageError, match=r"`val_los` is not a validation metric of Toy; its metrics are val_loss"):
        toy.run(tmp_path, training={"early_stopping": {"monitor": "val_los"}})
    assert not toy.ToyRecipe.log


# -- resume_from ---------------------------------------------------------------------------------------------------


def test_resume_from_a_file_continues_from_there(tmp_path):
    """An earlier checkpoint of a run begins a new one; the old one is moved aside. A repeated command continues."""
    toy.run(tmp_path, training={"save_every": 1})
    end = saved(tmp_path)
    settings = {"training": {"save_every": 1, "resume_from": str(folder(tmp_path) / "checkpoint_epoch_1.pt")}}
    toy.ToyRecipe.log.clear()
    with pytest.raises(Interrupted):
        toy.run(tmp_path, toy.stopped(9), **settings)
    trained = toy.run(tmp_path, **settings)
    assert [step for step, _ in toy.ToyRecipe.log] == list(range(6, 18))
    assert_same(saved(tmp_path)["model"], end["model"])
    assert toy.run(tmp_path, **settings).already
    assert (folder(tmp_path) / "previous").is_dir() and trained.step == 18


def test_resume_from_the_newest_file_continues_in_place(tmp_path):
    with pytest.raises(Interrupted):
        toy.run(tmp_path, toy.stopped(9))
    toy.ToyRecipe.log.clear()
    toy.run(tmp_path, training={"resume_from": str(folder(tmp_path) / "last.pt")})
    assert toy.ToyRecipe.log[0][0] == 10
    assert not (folder(tmp_path) / "previous").exists()


def test_resume_from_another_folder_takes_weights_and_optimizer(tmp_path):
    """With another learning rate: reported, and the rate is the new one."""
    toy.run(tmp_path / "a", training={"epochs": 1})
    source = folder(tmp_path / "a") / "last.pt"
    trained = toy.run(tmp_path / "b", training={"resume_from": str(source)}, optim={"lr": 0.5})
    assert trained.step == 18
    log = (trained.run / "log.txt").read_text()
    assert "optim.lr: 0.01 -> 0.5" in log and "lr 4." in log
    assert source.exists()


def test_resume_with_a_larger_batch_keeps_checkpoints_from_its_first_step_on(tmp_path):
    """Its steps are counted from a smaller number, and so are those that `save_steps` keeps."""
    toy.run(tmp_path / "a", training={"epochs": 2, "save_steps": 5})  # 12 steps, 6 an epoch
    settings = {"epochs": 4, "save_steps": 4, "resume_from": str(folder(tmp_path / "a") / "last.pt")}
    trained = toy.run(tmp_path / "b", data={"batch_size": 8}, training=settings)  # 3 an epoch: from step 6 to 12
    assert trained.step == 12
    kept = sorted(path.name for path in folder(tmp_path / "b").glob("checkpoint_step_*.pt"))
    assert kept == ["checkpoint_step_12.pt", "checkpoint_step_8.pt"]


def test_resume_from_a_finished_run_saves_its_state_in_the_new_folder(tmp_path):
    """Nothing is left to train; last.pt and best.pt are saved there all the same."""
    first = toy.run(tmp_path / "a", training={"epochs": 1})
    trained = toy.run(tmp_path / "b", training={"epochs": 1, "resume_from": str(first.last)})
    assert trained.step == first.step and trained.finished == first.finished
    assert_same(saved(tmp_path / "b")["model"], saved(tmp_path / "a")["model"])
    assert trained.best.is_file() and CheckpointFolder(folder(tmp_path / "b")).best() == trained.best


# -- refusals ------------------------------------------------------------------------------------------------------


def test_a_missing_resume_file_is_refused_and_similar_files_are_listed(tmp_path):
    """It must not be ignored silently."""
    trained = toy.run(tmp_path)
    with pytest.raises(UsageError, match="There is no checkpoint") as caught:
        toy.run(tmp_path, training={"resume_from": str(folder(tmp_path) / "lst.pt")})
    assert str(trained.last) in str(caught.value) and caught.value.exit_code == 2
    assert saved(tmp_path)["progress"]["step"] == 18


def test_resume_from_a_model_of_another_shape_is_refused(tmp_path):
    toy.run(tmp_path / "a", training={"epochs": 1})
    with pytest.raises(UsageError, match="does not fit the model"):
        toy.run(tmp_path / "b", training={"resume_from": str(folder(tmp_path / "a") / "last.pt")}, model={"width": 5})


@pytest.mark.parametrize("split", ["train_rows", "val_rows"])
def test_an_empty_split_is_refused(tmp_path, split):
    """Exit 3."""
    with pytest.raises(DataError, match="holds no example"):
        toy.run(tmp_path, **{split: 0})


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    """Exit 6."""
    with exclusive(folder(tmp_path), "another"), pytest.raises(HostError, match="in use") as caught:
        toy.run(tmp_path)
    assert caught.value.exit_code == 6 and not list(folder(tmp_path).glob("*.pt"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused(tmp_path):
    with pytest.raises(HostError, match="A GPU was required") as caught:
        toy.run(tmp_path, device="cuda")
    assert caught.value.exit_code == 6
