"""Disk space is checked before training; on a disk that fills up later, old checkpoints are evicted in a fixed order.

Rows are those of the table in docs/reliability.md.
"""

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.drives import attached
from tests.engine import toy
from tests.engine.test_engine_checkpoint import number_in
from training.engine.checkpoints import checkpoint_file, checkpoint_folder, disk_space
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.engine.checkpoints.index import BEFORE_LAST, BEST, FORMAT, INDEX, LAST, Index, epoch_name
from training.engine.checkpoints.saver import Saver
from training.errors import HostError
from training.units import size

SIZE = 100_000  # bytes of weights in a checkpoint


def state(number):
    return {"format": FORMAT, "family": "toy", "model": {"w": torch.full((SIZE // 4,), float(number))}}


def put(saver, number, *names, value=None):
    entry = {"step": number, "epoch": number, "value": value, "run_id": "r"}
    saver.save(state(number), entry, names, wait=True)


def names_in(folder):
    return {path.name for path in folder.glob("*.pt")}


def intact_ones(folder):
    """The numbers in the checkpoints that are listed and intact."""
    return {
        number_in(folder / name)
        for name in CheckpointFolder(folder).listed()
        if checkpoint_file.listed_entry(folder / name)
    }


def no_temporary_files(folder):
    return {path.suffix for path in folder.iterdir()} <= {".pt", ".json"}


def test_a_full_disk_evicts_the_oldest_epochs_and_never_the_best_or_the_last(disk):
    """50 saves would be kept; there is room for 5 at a time, the one being written among them."""
    place = disk(int(5.6 * SIZE))
    output = []
    saver = Saver(place.folder / "toy", 50, output.append)
    put(saver, 1, BEST, epoch_name(1), value=0.1)
    for number in range(2, 13):
        put(saver, number, epoch_name(number), value=0.5)
        assert number_in(CheckpointFolder(saver.folder).best()) == 1
        assert number_in(saver.folder / LAST) == number
        assert no_temporary_files(saver.folder)
    kept = names_in(saver.folder)
    assert kept > {"best.pt", "last.pt", "before_last.pt", "checkpoint_epoch_12.pt", "checkpoint_epoch_11.pt"}
    assert "checkpoint_epoch_2.pt" not in kept and "checkpoint_epoch_5.pt" not in kept
    assert output[0] == (
        "The disk is full: checkpoint_epoch_2.pt was deleted to make room for the newest checkpoint."
    )  # not epoch 1: it is a hard link to best.pt, so deleting it would free nothing
    assert set(CheckpointFolder(saver.folder).listed()) == kept


def test_before_last_is_evicted_only_where_a_third_checkpoint_is_intact(disk):
    place = disk(int(3.6 * SIZE))
    saver = Saver(place.folder / "toy", 3, lambda text: None)
    put(saver, 1, BEST, value=0.1)
    for number in (2, 3, 4, 5):
        put(saver, number, value=0.5)
        assert intact_ones(saver.folder) >= {1, number}
    place.fill(left=SIZE // 4)  # 1 (best), 4 and 5 are there
    assert CheckpointFolder(saver.folder).evict() == BEFORE_LAST
    assert intact_ones(saver.folder) == {1, 5}
    with pytest.raises(HostError, match="No space left"):  # now nothing more may be evicted
        place.fill(left=SIZE // 2)
        put(saver, 6)
    assert intact_ones(saver.folder) == {1, 5} and no_temporary_files(saver.folder)


def test_before_last_is_kept_where_it_is_the_only_other_checkpoint(disk):
    place = disk(int(2.6 * SIZE))
    saver = Saver(place.folder / "toy", 3, print)
    put(saver, 1, value=0.5)
    put(saver, 2, BEST, value=0.1)  # best.pt and last.pt are the same
    with pytest.raises(HostError, match="No space left"):
        put(saver, 3)
    assert intact_ones(saver.folder) == {1, 2}
    assert number_in(CheckpointFolder(saver.folder).latest()) == 2 and no_temporary_files(saver.folder)


def test_a_damaged_third_checkpoint_does_not_count(disk):
    place = disk(8 * SIZE)
    saver = Saver(place.folder / "toy", 3, print)
    put(saver, 1, BEST, value=0.1)
    put(saver, 2)
    put(saver, 3)
    (saver.folder / BEST).write_bytes(b"damaged")
    assert CheckpointFolder(saver.folder).evict() is None
    assert intact_ones(saver.folder) == {2, 3}


def test_before_last_is_kept_where_last_is_not_listed(disk):
    """After a save that was killed, before_last.pt is the newest verified checkpoint."""
    place = disk(8 * SIZE)
    saver = Saver(place.folder / "toy", 3, print)
    put(saver, 1, BEST, value=0.1)
    put(saver, 2)
    put(saver, 3)
    shutil.copy(saver.folder / LAST, saver.folder / BEFORE_LAST)  # as a save does before its rename
    torch.save(state(4), saver.folder / LAST)
    assert CheckpointFolder(saver.folder).evict() is None
    assert number_in(CheckpointFolder(saver.folder).latest()) == 3


def test_another_run_s_checkpoints_are_never_evicted(disk):
    place = disk(int(4.6 * SIZE))
    folder = place.folder / "toy"
    first = Saver(folder, 3, print)
    put(first, 1, epoch_name(1))
    put(first, 2, epoch_name(2))
    aside = CheckpointFolder(folder).set_aside("first")
    second = Saver(folder, 3, print)
    put(second, 3)
    put(second, 4)
    with pytest.raises(HostError, match="No space left"):
        put(second, 5)
    assert intact_ones(aside) == {1, 2} and intact_ones(folder) == {3, 4}


@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.5, 0.99, 1.0, 1.05, 1.2, 1.5])
def test_at_any_fill_level_a_save_is_intact_or_reported(disk, share):
    """Row 7: the old checkpoint can be loaded, no temporary file is left, the error names the cause."""
    place = disk(6 * SIZE)
    saver = Saver(place.folder / "toy", 3, print)
    put(saver, 1)
    place.fill(left=int(share * SIZE))
    try:
        put(saver, 2)
    except HostError as error:
        assert "No space left on device" in str(error) and "MB free" in str(error) and error.exit_code == 6
        assert number_in(CheckpointFolder(saver.folder).latest()) == 1
        assert share < 1.2
    else:
        assert number_in(CheckpointFolder(saver.folder).latest()) == 2
        assert share >= 1
    assert no_temporary_files(saver.folder)


def test_an_exceeded_quota_is_treated_as_a_full_disk(tmp_path, monkeypatch):
    saver = Saver(tmp_path, 5, print)
    for number in (1, 2, 3, 4):
        put(saver, number, epoch_name(number))
    left, real = [2], checkpoint_folder.write_state

    def over_quota(*arguments):
        if left[0]:
            left[0] -= 1
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        return real(*arguments)

    monkeypatch.setattr(checkpoint_folder, "write_state", over_quota)
    put(saver, 5, epoch_name(5))
    assert {n for n in names_in(tmp_path) if "epoch" in n} == {f"checkpoint_epoch_{n}.pt" for n in (3, 4, 5)}


def test_other_errors_delete_nothing(tmp_path, monkeypatch):
    saver = Saver(tmp_path, 5, print)
    for number in (1, 2, 3):
        put(saver, number, epoch_name(number))
    there = names_in(tmp_path)

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(checkpoint_folder, "write_state", broken)
    with pytest.raises(HostError, match="Input/output error"):
        put(saver, 4)
    assert names_in(tmp_path) == there and intact_ones(tmp_path) == {1, 2, 3}


def test_a_full_disk_while_the_index_is_written_is_recovered_from(tmp_path, monkeypatch):
    """There is no space for the index after the rename: the save is repeated, and the verified checkpoint is kept."""
    saver = Saver(tmp_path, 5, print)
    for number in (1, 2, 3):
        put(saver, number, epoch_name(number))
    left, real = [1], Index.write

    def full(index, folder):
        if index.files[LAST].step == 4 and left[0]:
            left[0] -= 1
            assert number_in(CheckpointFolder(folder).latest()) == 3
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(index, folder)

    monkeypatch.setattr(Index, "write", full)
    put(saver, 4)
    assert number_in(tmp_path / LAST) == 4 and number_in(tmp_path / BEFORE_LAST) == 3


def test_a_disk_that_turns_read_only_is_reported(disk):
    """Row 8."""
    place = disk(8 * SIZE)
    saver = Saver(place.folder / "toy", 3, print)
    put(saver, 1, BEST, value=0.1)
    place.read_only()
    with pytest.raises(HostError, match="Read-only file system"):
        put(saver, 2)
    assert number_in(CheckpointFolder(saver.folder).latest()) == 1 == number_in(CheckpointFolder(saver.folder).best())
    assert no_temporary_files(saver.folder)


def test_a_detached_disk_is_reported_and_nothing_is_written_in_its_place(disk):
    """Row 8: the mount point is now a folder of another disk; a checkpoint there would wrongly count as saved."""
    place = disk(8 * SIZE)
    saver = Saver(place.folder / "toy", 3, print)
    put(saver, 1)
    place.detach()
    with pytest.raises(HostError, match="has disappeared"):
        put(saver, 2)
    assert not (place.folder / "toy").exists()
    (place.folder / "toy").mkdir(parents=True)
    with pytest.raises(HostError, match="has disappeared"):
        put(saver, 2)
    assert not list((place.folder / "toy").iterdir())


def test_an_older_run_under_the_mount_point_is_not_taken_for_this_one(tmp_path):
    """The mount point has a complete checkpoint from a time when the drive was not attached."""
    with attached(tmp_path) as drive:
        put(Saver(drive.below, 3, print), 0)
        saver = Saver(drive.path, 3, print)
        put(saver, 1)
        drive.detach()
        with pytest.raises(HostError, match="has disappeared"):
            put(saver, 2)
    assert number_in(CheckpointFolder(drive.below).latest()) == 0


# -- before training ------------------------------------------------------------------------------------------------


def test_a_run_that_will_not_fit_is_refused_at_its_beginning(disk, monkeypatch):
    """Exit 6; the message has the space needed, for what, the free space, and the remedy."""
    monkeypatch.setattr(disk_space, "MARGIN", 10_000)
    place = disk(7 * SIZE)
    saver = Saver(place.folder / "toy", 3, print)
    put(saver, 0)
    with pytest.raises(HostError, match=r"7 checkpoints of 102 kB") as caught:
        saver.require_space(exports=50_000)
    assert caught.value.exit_code == 6
    for part in ("training.keep 3", "50 kB of exports", "is free", "too little", "lower training.keep", "--out DIR"):
        assert part in str(caught.value)
    fewer = Saver(saver.folder, 2, print)
    fewer.require_space(exports=0)
    with pytest.raises(HostError):
        fewer.require_space(exports=2 * SIZE)


def test_checkpoints_on_the_disk_count_towards_the_space_needed(disk, monkeypatch):
    """So a resumed run is not refused because of checkpoints that it wrote before."""
    monkeypatch.setattr(disk_space, "MARGIN", 0)
    place = disk(9 * SIZE)
    saver = Saver(place.folder / "toy", 3, print)
    put(saver, 1, BEST, epoch_name(1), value=0.1)
    for number in range(2, 6):
        put(saver, number, epoch_name(number))
        put(saver, number + 0.5)
    place.fill(left=int(2.2 * SIZE))
    Saver(saver.folder, 3, print).require_space(exports=0)
    place.fill(left=SIZE // 2)
    with pytest.raises(HostError):
        Saver(saver.folder, 3, print).require_space(exports=0)


def test_optimizer_moments_missing_from_the_first_checkpoint_are_counted(tmp_path, monkeypatch):
    """AdamW has no moments before its first step; later checkpoints are three times as large, which is planned for."""
    model = torch.nn.Linear(300, 300)
    optimizer = torch.optim.AdamW(model.parameters())
    saver = Saver(tmp_path, 1, print)
    needs = []

    def save(step):
        content = {"format": 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
        saver.save(content, {"step": step, "epoch": 0, "value": None, "run_id": "r"}, [], wait=True)
        monkeypatch.setattr(disk_space, "free", lambda folder: 0)
        with pytest.raises(HostError) as caught:
            saver.require_space(0)
        needs.append(str(caught.value))
        return (tmp_path / LAST).stat().st_size

    small = save(0)
    model(torch.ones(1, 300)).sum().backward()
    optimizer.step()
    large = save(1)
    assert 2.8 * small < large < 3.2 * small
    assert all(f"5 checkpoints of {size(large)}" in need for need in needs[1:])
    assert f"5 checkpoints of {large / 1e6:.2f}"[:-1] in needs[0]


def test_the_index_never_lists_what_was_evicted(tmp_path):
    saver = Saver(tmp_path, 5, print)
    for number in (1, 2, 3):
        put(saver, number, epoch_name(number))
    assert CheckpointFolder(tmp_path).evict() == "checkpoint_epoch_1.pt"
    files = json.loads((Path(tmp_path) / INDEX).read_text())["files"]
    assert set(files) == names_in(tmp_path)


def test_a_run_checks_disk_space_before_its_first_step(tmp_path, monkeypatch):
    """Exit 6 after the first checkpoint is saved; also when a run is resumed."""
    monkeypatch.setattr(disk_space, "free", lambda folder: 10_000_000)
    toy.ToyRecipe.log.clear()
    with pytest.raises(HostError, match="not enough room") as caught:
        toy.run(tmp_path)
    assert caught.value.exit_code == 6 and toy.ToyRecipe.log == []
    assert CheckpointFolder(tmp_path / "checkpoints" / "toy").latest() is not None
    monkeypatch.undo()
    toy.run(tmp_path, training={"max_steps": 2})
    monkeypatch.setattr(disk_space, "free", lambda folder: 10_000_000)
    with pytest.raises(HostError, match="not enough room"):
        toy.run(tmp_path)
