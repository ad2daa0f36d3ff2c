"""The data loader yields each batch once and in order, also when its workers fail."""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tests.engine import toy
from training.engine.loading.batches import MicroBatch
from training.engine.loading.loader import ATTEMPTS, Loader, Stopped
from training.engine.process.signals import STOPS
from training.errors import DataError, HostError, Interrupted
from training.settings import Data

CPU = torch.device("cpu")
QUICK = 0.4  # seconds of patience


class Dataset:
    """Item = its index; a worker calls `fault(index)` first."""

    def __init__(self, fault: Callable[[int], Any] = lambda index: None):
        self.fault, self.main = fault, os.getpid()

    def __len__(self):
        return 1000

    def item(self, epoch, index):
        if os.getpid() != self.main:
            self.fault(index)
        return {"index": np.int64(index), "worker": np.int64(os.getpid())}

    def collate(self, items):
        return {key: torch.as_tensor(np.stack([item[key] for item in items])) for key in items[0]}


def micro_batches(count: int) -> list[MicroBatch]:
    return [MicroBatch(n, 0, (2 * n, 2 * n + 1)) for n in range(count)]


def loader(dataset: Any, count: int = 12, workers: int = 2, **options: Any) -> Loader:
    settings = Data(batch_size=2, num_workers=workers, prefetch_factor=2)
    return Loader(dataset, micro_batches(count), settings, CPU, **{"patience": QUICK, **options})


def once(folder: Path, index: int, act: Callable[[], Any]) -> Callable[[int], None]:
    """A fault that calls `act` once, in the process that is the first to make item `index`."""

    def fault(at: int) -> None:
        mark = folder / "done"
        if at == index and not mark.exists():
            mark.touch()
            act()

    return fault


def indices(batches: list[dict[str, torch.Tensor]]) -> list[int]:
    return [int(i) for batch in batches for i in batch["index"]]


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


# -- recovery ------------------------------------------------------------------------------------------------------


def sent(number: int) -> Callable[[], None]:
    return lambda: (faulthandler.disable(), os.kill(os.getpid(), number))  # else pytest's handler prints all stacks


@pytest.mark.parametrize(
    "act, expected",
    [
        pytest.param(sent(signal.SIGKILL), "was killed (SIGKILL", id="killed"),
        pytest.param(sent(signal.SIGSEGV), "crashed (SIGSEGV)", id="crashed"),
        pytest.param(lambda: os._exit(3), "ended (exit code 3)", id="ended"),
        pytest.param(sent(signal.SIGSTOP), "is stopped (SIGSTOP)", id="stopped"),
        pytest.param(signal.pause, "hangs", id="hung"),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_fails_is_replaced_and_no_batch_is_lost_or_repeated(tmp_path, act, expected, workers):
    messages = []
    began = time.monotonic()
    with loader(Dataset(once(tmp_path, 9, act)), workers=workers, say=messages.append) as batches:
        first = {worker.pid for worker in batches.workers}
        assert indices(list(batches)) == list(range(24))
        assert first.isdisjoint(worker.pid for worker in batches.workers)
    assert len(messages) == 1 and expected in messages[0]
    assert time.monotonic() - began < 10


def test_an_idle_worker_that_was_killed_is_replaced(tmp_path):
    """Between two batches, and between two passes."""
    messages = []
    with loader(Dataset(), say=messages.append) as batches:
        passing = iter(batches)
        got = [next(passing) for _ in range(3)]
        for worker in batches.workers:
            os.kill(worker.pid, signal.SIGKILL)
        assert indices([*got, *passing]) == list(range(24))
        os.kill(batches.workers[1].pid, signal.SIGSTOP)
        assert indices(list(batches)) == list(range(24))
    assert 2 <= len(messages) <= 3  # batches made before the kill may be delivered before the loss is noticed


def busy(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(1000))


def waiting(seconds: float) -> None:
    """Sleep in short intervals, like a process that reads from a slow drive."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(QUICK / 20)


@pytest.mark.parametrize("act", [busy, waiting])
def test_a_slow_worker_that_shows_activity_is_not_replaced(tmp_path, act):
    messages = []
    with loader(Dataset(once(tmp_path, 5, lambda: act(4 * QUICK))), workers=1, say=messages.append) as batches:
        assert indices(list(batches)) == list(range(24))
    assert not messages


def test_the_time_limit_for_a_sleeping_worker_doubles_with_each_attempt(tmp_path):
    """So a drive that stalls for longer than `patience` does not end the run."""
    messages = []
    slow = Dataset(lambda index: time.sleep(2.6 * QUICK) if index == 0 else None)
    with loader(slow, workers=1, say=messages.append) as batches:
        assert indices(list(batches)) == list(range(24))
    assert len(messages) == 2


def test_a_batch_that_fails_five_times_ends_the_run_and_names_its_samples():
    messages = []
    deadly = Dataset(lambda index: index == 7 and os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(HostError, match=r"5 times in a row.*SIGKILL.*samples 6, 7.*num_workers: 0"), \
            loader(deadly, say=messages.append) as batches:  # fmt: skip
        list(batches)
    assert len(messages) == ATTEMPTS - 1
    assert not batches.workers


def test_a_delivered_batch_resets_the_count_of_attempts(tmp_path):
    """A run continues although it loses a worker every few batches."""

    def fault(index: int) -> None:
        mark = tmp_path / str(index)
        if index % 4 == 0 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    messages = []
    with loader(Dataset(fault), count=24, say=messages.append) as batches:
        assert indices(list(batches)) == list(range(48))
    assert len(messages) > ATTEMPTS


# -- errors of items -----------------------------------------------------------------------------------------------


class TwoArguments(Exception):
    """Cannot be unpickled."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


@pytest.mark.parametrize(
    "error, kind",
    [(DataError("song.wav is broken"), DataError), (KeyError("x"), KeyError), (TwoArguments(1, 2), RuntimeError)],
)
def test_an_error_in_an_item_is_raised_in_the_training_process(error, kind):
    def fault(index):
        if index == 5:
            raise error

    messages = []
    with loader(Dataset(fault), say=messages.append) as batches, pytest.raises(kind) as raised:
        list(batches)
    assert str(error) in str(raised.value)
    assert "indices=(4, 5)" in raised.value.__notes__[0] and "in fault" in raised.value.__notes__[0]
    assert not messages


# -- being stopped -------------------------------------------------------------------------------------------------


def test_a_batch_that_takes_long_is_not_waited_for_once_a_stop_was_requested():
    asked = []
    slow = Dataset(lambda index: (asked.append(1), busy(60)) if index == 9 else None)
    began = time.monotonic()
    with pytest.raises(Stopped), loader(slow, patience=4 * QUICK, stop=lambda: time.monotonic() > began + 1) as batches:
        for number, _ in enumerate(batches):
            assert number < 4
    assert time.monotonic() - began < 5


class Stalled(toy.ToyRecipe):
    """A worker hangs at a sample, and the run gets SIGTERM one second later."""

    stalls: ClassVar[dict[str, Any]]

    def dataset(self, rows, training):
        dataset = super().dataset(rows, training)
        if training == self.stalls["training"]:
            item = dataset.item

            def stuck(epoch, index):
                if epoch >= self.stalls["epoch"] and index == self.stalls["index"] and os.getpid() != self.main:
                    time.sleep(1)  # by then the run waits for this batch
                    os.kill(self.main, signal.SIGTERM)
                    time.sleep(60)
                return item(epoch, index)

            self.main, dataset.item = os.getpid(), stuck
        return dataset


@pytest.mark.parametrize(
    "stalls",
    [
        {"training": True, "epoch": 1, "index": 3},
        {"training": False, "epoch": 0, "index": 3},
        {"training": False, "epoch": 0, "index": 8},  # the last of the held-out batches
    ],
)
def test_a_run_that_waits_for_a_batch_saves_and_ends_at_a_stop_signal(tmp_path, stalls):
    """In training, and in validation."""
    from training.engine.checkpoints import checkpoint_file

    settings = {"data": {"num_workers": 1, "prefetch_factor": 1}}
    stalled = type("Here", (Stalled,), {"stalls": stalls})
    began = time.monotonic()
    with pytest.raises(Interrupted):
        toy.run(tmp_path / "stopped", stalled, **settings)
    assert time.monotonic() - began < 10
    last = tmp_path / "stopped" / "checkpoints" / "toy" / "last.pt"
    progress = checkpoint_file.read(last)["progress"]
    assert progress["step"] >= 6  # none of the epoch before is lost
    assert progress["evaluated"] == (6 if stalls["training"] else 0)
    toy.run(tmp_path / "stopped", **settings)
    reference = toy.run(tmp_path / "reference", **settings)
    assert_close(checkpoint_file.read(last)["model"], checkpoint_file.read(reference.last)["model"], rtol=0, atol=0)


# -- what is left --------------------------------------------------------------------------------------------------


def test_replaced_workers_leave_no_process_and_no_open_file(tmp_path):
    """And so no shared memory. Closing the loader is quick, whatever the workers do."""

    def fault(index: int) -> None:
        mark = tmp_path / str(index)
        if index % 4 == 0 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    gc.collect()
    before = len([*Path("/proc/self/fd").iterdir()])
    pids = set()
    with loader(Dataset(fault), count=60, say=lambda text: None) as batches:
        for batch in batches:
            pids |= set(batch["worker"].tolist())
            last = batch
            del batch
        for worker in batches.workers:
            os.kill(worker.pid, signal.SIGSTOP)
        began = time.monotonic()
    assert time.monotonic() - began < 1
    assert len(pids) > 20 and all(gone(pid) for pid in pids)
    assert last["index"].tolist() == [118, 119]  # a batch outlives its loader
    del last
    assert len([*Path("/proc/self/fd").iterdir()]) <= before


def test_batches_do_not_travel_through_dev_shm():
    """Its size is 64 MB in a container."""
    with loader(Dataset()) as batches:
        batch = next(iter(batches))
        maps = Path("/proc/self/maps").read_text()
        address = batch["index"].data_ptr()
        ranges = {line: [int(end, 16) for end in line.split()[0].split("-")] for line in maps.splitlines()}
        (line,) = [line for line, (begin, end) in ranges.items() if begin <= address < end]
    assert "/memfd:" in line


def test_a_new_pass_starts_from_the_first_batch_after_an_abandoned_one():
    with loader(Dataset()) as batches:
        for number, _ in enumerate(batches):
            if number == 3:
                break
        assert indices(list(batches)) == list(range(24))


def test_workers_are_reused_between_passes():
    with loader(Dataset()) as batches:
        made = [set(torch.cat([batch["worker"] for batch in batches]).tolist()) for _ in range(3)]
    assert made[0] == made[1] == made[2] and len(made[0]) == 2


def test_tensors_of_every_dtype_and_shape_arrive_unchanged():
    class Odd(Dataset):
        def collate(self, items):
            return TENSORS

    with loader(Odd(), count=1, workers=1) as batches:
        (batch,) = batches
    assert batch.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert batch[name].dtype == tensor.dtype
        assert_close(batch[name], tensor, rtol=0, atol=0)


TENSORS = {
    "float": torch.randn(3, 5), "turned": torch.randn(4, 6).T, "scalar": torch.tensor(7), "none": torch.empty(0, 3),
    "bool": torch.tensor([True, False, True]), "half": torch.randn(5).bfloat16(), "bytes": torch.arange(7).byte(),
    "none_long": torch.empty(2, 0, dtype=torch.int64), "complex": torch.randn(3, dtype=torch.complex64),
}  # fmt: skip


def test_workers_ignore_stop_signals_to_the_process_group():
    """Ctrl-C, `timeout` and a closed terminal signal the workers, too; the current step still needs them."""
    with loader(Dataset(), say=lambda text: pytest.fail(text)) as batches:
        passing = iter(batches)
        got = [next(passing)]
        for worker in batches.workers:
            for number in STOPS:
                os.kill(worker.pid, number)
        assert indices([*got, *passing]) == list(range(24))
