"""Saving in the background: a checkpoint holds the state that was copied, whatever the training does meanwhile."""

import copy
import os
import signal
import threading
import time

import pytest
import torch

from tests.engine import toy
from tests.engine.test_engine_checkpoint import PHASES, die_at, number_in, put, state
from training.engine.checkpoints import checkpoint_file
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.engine.checkpoints.index import BEFORE_LAST, BEST, FORMAT, LAST, epoch_name
from training.engine.checkpoints.saver import Saver, Snapshot
from training.errors import HostError


def entry(number, value=None):
    return {"step": number, "epoch": number, "value": value, "run_id": "r"}


@pytest.fixture
def saver(tmp_path):
    return Saver(tmp_path, 3, print)


@pytest.fixture
def gate(monkeypatch):
    """An event for which every save waits at its beginning."""
    opened, real = threading.Event(), CheckpointFolder.save

    def held(*arguments):
        assert opened.wait(30)
        return real(*arguments)

    monkeypatch.setattr(CheckpointFolder, "save", held)
    yield opened
    opened.set()


def trained():
    """A model with tied weights, its optimizer after a step, and a function that does another step."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    model[1].weight = model[0].weight
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        model(torch.ones(1, 4)).sum().backward()
        optimizer.step()

    step()
    return model, optimizer, step


def content(model, optimizer, progress):
    return {
        "format": FORMAT,
        "family": "toy",
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": progress,
        "nothing": None,
        "empty": torch.zeros(0),
    }


def test_a_background_save_holds_the_state_at_the_time_of_the_call(tmp_path, saver, gate):
    """Although weights, optimizer state and plain values change while it is written."""
    model, optimizer, step = trained()
    progress = {"step": 1, "values": [1, 2]}
    names = [BEST]
    before = copy.deepcopy(content(model, optimizer, progress))
    saver.save(content(model, optimizer, progress), entry(1), names, wait=False)
    step()
    names.clear()
    progress["step"] = 99
    progress["values"].append(3)
    optimizer.param_groups[0]["lr"] = 9.0
    gate.set()
    saver.finish()
    saved = checkpoint_file.read(tmp_path / BEST)
    assert saved["progress"] == before["progress"] and saved["nothing"] is None
    assert saved["optimizer"]["param_groups"] == before["optimizer"]["param_groups"]
    for name, value in before["model"].items():
        assert torch.equal(saved["model"][name], value)
    for index, values in before["optimizer"]["state"].items():
        for name, value in values.items():
            assert torch.equal(saved["optimizer"]["state"][index][name], value), name
    assert not torch.equal(saved["model"]["0.weight"], model[0].weight)  # the weights have changed since
    one, other = saved["model"]["0.weight"], saved["model"]["1.weight"]
    assert one.data_ptr() == other.data_ptr()  # tied weights are not stored twice


def test_training_is_not_blocked_while_a_checkpoint_is_written(tmp_path, saver, gate):
    saver.save(state(1), entry(1), [], wait=False)
    assert not (tmp_path / LAST).exists()
    gate.set()
    saver.finish()
    assert number_in(tmp_path / LAST) == 1


def test_a_save_with_wait_is_on_the_disk_when_it_returns(tmp_path, saver):
    saver.save(state(1), entry(1), [], wait=True)
    assert number_in(CheckpointFolder(tmp_path).latest()) == 1


def test_saves_come_one_after_the_other_in_order(tmp_path, saver, monkeypatch):
    busy, order, real = threading.Lock(), [], CheckpointFolder.save

    def alone(folder, content, entry, names):
        assert busy.acquire(blocking=False), "two saves at a time"
        order.append(entry["step"])
        assert content["model"]["w"].eq(entry["step"]).all(), "the copy was changed while it waited"
        real(folder, content, entry, names)
        busy.release()

    monkeypatch.setattr(CheckpointFolder, "save", alone)
    for number in range(1, 8):
        saver.save(state(number), entry(number), [epoch_name(number)], wait=False)
    saver.finish()
    assert order == [1, 2, 3, 4, 5, 6, 7]
    kept = {path.name for path in tmp_path.glob("checkpoint_epoch_*")}
    assert kept == {f"checkpoint_epoch_{number}.pt" for number in (5, 6, 7)}  # retention is applied, too


def test_a_failed_save_is_reported_once_and_does_not_count_as_saved(tmp_path, saver):
    """Exit 6; the checkpoint before it is intact."""
    saver.save(state(1), entry(1), [], wait=True)
    (tmp_path / f".saving-{os.getpid()}").symlink_to("/dev/full")
    saver.save(state(2), entry(2), [], wait=False)
    while saver.busy:
        os.sched_yield()
    assert saver.failed
    with pytest.raises(HostError, match="No space left") as caught:
        saver.save(state(3), entry(3), [], wait=False)
    assert caught.value.exit_code == 6
    assert not saver.failed
    saver.finish()  # reported already
    assert number_in(CheckpointFolder(tmp_path).latest()) == 1
    saver.save(state(4), entry(4), [], wait=True)  # once there is room, saving continues
    assert number_in(CheckpointFolder(tmp_path).latest()) == 4


def test_the_saved_callback_runs_after_each_save_that_is_on_the_disk(tmp_path):
    seen = []
    saver = Saver(tmp_path, 3, print, saved=lambda: seen.append(number_in(tmp_path / LAST)))
    for number in (1, 2):
        saver.save(state(number), entry(number), [], wait=True)
    (tmp_path / f".saving-{os.getpid()}").symlink_to("/dev/full")
    with pytest.raises(HostError):
        saver.save(state(3), entry(3), [], wait=True)
    assert seen == [1, 2]


def test_a_failure_of_any_kind_reaches_the_run(saver, monkeypatch):
    def broken(*_):
        raise MemoryError

    monkeypatch.setattr(CheckpointFolder, "save", broken)
    saver.save(state(1), entry(1), [], wait=False)
    with pytest.raises(MemoryError):
        saver.finish()


def test_a_signal_during_a_wait_does_not_change_the_copy_being_written(tmp_path, saver, gate):
    """The second save must wait for the first, though an exception ended an earlier wait for it."""

    class Signalled(Exception):
        pass

    def handler(*_):
        raise Signalled

    saver.save(state(1), entry(1), [], wait=False)
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        with pytest.raises(Signalled):
            saver.save(state(2), entry(2), [], wait=False)
    finally:
        signal.signal(signal.SIGALRM, before)
    threading.Timer(0.05, gate.set).start()
    saver.save(state(3), entry(3), [], wait=True)
    assert number_in(tmp_path / BEFORE_LAST) == 1
    assert number_in(tmp_path / LAST) == 3


def test_a_snapshot_reuses_the_memory_of_the_one_before():
    model, optimizer, step = trained()
    snapshot = Snapshot(print)
    places = []
    for number in range(3):
        taken = snapshot.take(content(model, optimizer, {"step": number}))
        places.append([v.data_ptr() for v in taken["model"].values()])
        step()
    assert places[0] == places[1] == places[2]


def test_a_snapshot_copies_tensors_whose_shapes_have_changed():
    snapshot = Snapshot(print)
    first = {"a": torch.ones(3), "b": torch.zeros(2, dtype=torch.int64)}
    second = {"a": torch.ones(2, 2).t(), "b": torch.tensor(7), "c": [torch.arange(4)[::2]]}
    for values in (first, second, first):
        torch.testing.assert_close(snapshot.take(values), values)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("phase", PHASES)
def test_a_process_killed_while_it_saves_in_the_background_leaves_verified_checkpoints(tmp_path, phase, moment):
    put(tmp_path, 1, [BEST], 0.5)
    put(tmp_path, 2, [], 0.6)
    child = os.fork()
    if child == 0:
        saver = Saver(tmp_path, 1, print)
        die_at(phase, 2 if phase != "torch.save" else 1, moment)
        saver.save(state(3), entry(3, 0.4), [BEST, epoch_name(3)], wait=False)
        saver.finish()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 9
    assert number_in(CheckpointFolder(tmp_path).latest()) in (2, 3)
    assert number_in(CheckpointFolder(tmp_path).best()) in (1, 3)
    CheckpointFolder(tmp_path).sweep()
    put(tmp_path, 4)
    assert {path.suffix for path in tmp_path.iterdir()} == {".pt", ".json"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_changes_queued_after_a_snapshot_are_not_in_it(tmp_path):
    weights = torch.ones(1 << 24, device="cuda")
    snapshot = Snapshot(print)
    for number in range(3):
        taken = snapshot.take({"w": weights})
        weights += 1
        snapshot.arrived()
        assert taken["w"].is_pinned() and taken["w"].eq(1 + number).all()


def test_a_run_waits_for_its_first_and_last_save_only(tmp_path, monkeypatch):
    """It waits for the first to find errors before training, for the last so that the result is on the disk."""
    waited = []
    save = Saver.save

    def watched(self, content, entry, names, *, wait):
        waited.append((entry["step"], wait))
        save(self, content, entry, names, wait=wait)

    monkeypatch.setattr(Saver, "save", watched)
    toy.run(tmp_path, training={"save_every": 1, "epochs": 3})
    assert waited == [(0, True), (6, False), (12, False), (18, True)]


def test_a_save_that_fails_in_the_background_ends_the_run_at_the_next_step(tmp_path, monkeypatch):
    """Not at the next save, which may be hours later, as no step in between would be saved."""
    save = CheckpointFolder.save

    def full(folder, content, entry, names=()):
        if entry["step"] == 6:
            raise HostError("no room")
        return save(folder, content, entry, names)

    class Patient(toy.ToyRecipe):  # its next step takes until the save has failed
        def losses(self, model, batch, progress):
            until = time.monotonic() + 30
            while progress.step == 6 and not savers[-1].failed:
                assert time.monotonic() < until, "the save did not fail"
                time.sleep(0.001)
            return super().losses(model, batch, progress)

    savers, begin = [], Saver.save

    def noted(self, *arguments, **options):
        savers.append(self)
        begin(self, *arguments, **options)

    monkeypatch.setattr(Saver, "save", noted)
    monkeypatch.setattr(CheckpointFolder, "save", full)
    toy.ToyRecipe.log.clear()
    with pytest.raises(HostError, match="no room"):
        toy.run(tmp_path, Patient)
    assert max(step for step, _ in toy.ToyRecipe.log) <= 8
    assert CheckpointFolder(tmp_path / "checkpoints" / "toy").latest() is not None
