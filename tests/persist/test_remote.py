"""A replica of checkpoints in a second place: it is intact at any moment, and lists nothing that is not."""

import errno
import os
import shutil

import pytest

from tests.engine.test_engine_checkpoint import die_at, number_in, put
from tests.persist.copied import WHERE, intact, tidy
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.engine.checkpoints.index import BEST, FORMAT, INDEX, LAST, Index, epoch_name
from training.errors import HostError
from training.persist import copying, remote
from training.persist.copying import Pulse
from training.persist.remote import CheckpointReplica
from training.persist.restore import restore_family


def updated(here, there):
    return CheckpointReplica(here / WHERE, there / WHERE, Pulse()).update()


def test_what_is_listed_here_is_intact_there(here, there):
    (there / WHERE).mkdir(parents=True)
    put(here / WHERE, 1, [BEST, epoch_name(1)], 0.1)
    put(here / WHERE, 2)
    put(here / WHERE, 3, [epoch_name(3)], 0.5)
    assert updated(here, there) == []
    assert intact(there / WHERE) == intact(here / WHERE) and len(intact(here / WHERE)) == 5
    put(here / WHERE, 4, [epoch_name(4)])
    CheckpointFolder(here / WHERE).apply_retention(1)
    updated(here, there)
    assert intact(there / WHERE) == {"last.pt": 4, "before_last.pt": 3, "best.pt": 1, "checkpoint_epoch_4.pt": 4}
    assert {path.name for path in (there / WHERE).glob("*.pt")} == intact(there / WHERE).keys() and tidy(there / WHERE)


def test_nothing_is_copied_twice(here, there, copies):
    """Nor for a further name of content that is there, nor by the next process on this host."""
    (there / WHERE).mkdir(parents=True)
    put(here / WHERE, 1, [BEST, epoch_name(1)], 0.1)
    updated(here, there)
    assert copies == ["best.pt"]
    updated(here, there)
    assert copies == ["best.pt"]
    put(here / WHERE, 2, [epoch_name(2)])
    updated(here, there)
    assert copies == ["best.pt", "last.pt"]


def test_a_copy_that_is_cut_short_never_lists_a_last_checkpoint_without_the_best(here, there, monkeypatch, tmp_path):
    """It would be continued without the model that is to be exported."""
    real = Index.write
    for at in range(1, 4):
        place, made = there / str(at) / WHERE, []
        place.mkdir(parents=True)
        put(here / str(at) / WHERE, 1, [BEST], 0.1)
        put(here / str(at) / WHERE, 2)

        def write(self, folder, place=place, made=made, at=at):
            real(self, folder)
            if folder == place:
                made.append(1)
                if len(made) == at:
                    raise OSError(errno.EIO, "the drive is gone")

        monkeypatch.setattr(Index, "write", write)
        with pytest.raises(OSError, match="the drive is gone"):
            updated(here / str(at), there / str(at))
        monkeypatch.setattr(Index, "write", real)
        (new := tmp_path / str(at) / WHERE).mkdir(parents=True)
        restore_family(place, new, Pulse())
        found = intact(new)
        assert found["best.pt"] == 1 and found["last.pt"] == (1 if at == 1 else 2), found


def test_a_drive_without_hard_links_gets_copies(here, there, copies, monkeypatch):
    (there / WHERE).mkdir(parents=True)
    put(here / WHERE, 1, [BEST], 0.1)
    put(here / WHERE, 2, [epoch_name(2)])

    def refuse(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    updated(here, there)
    assert intact(there / WHERE) == intact(here / WHERE)


PHASES = ["os.fsync", "Path.replace", "os.link"]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("call", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("phase", PHASES)
def test_a_process_killed_inside_a_copy_leaves_verified_checkpoints_there(here, there, phase, call, moment):
    """And one that is killed again, at its first rename, after that."""
    (there / WHERE).mkdir(parents=True)
    put(here / WHERE, 1, [BEST], 0.5)
    updated(here, there)
    put(here / WHERE, 2, [], 0.6)
    updated(here, there)
    put(here / WHERE, 3, [BEST, epoch_name(3)], 0.4)
    for again in (False, True):
        child = os.fork()
        if child == 0:
            die_at(*(("Path.replace", 2, "after") if again else (phase, call, moment)))
            updated(here, there)
            os._exit(0)
        os.waitpid(child, 0)
        assert number_in(CheckpointFolder(there / WHERE).latest()) in (2, 3)
        assert number_in(CheckpointFolder(there / WHERE).best()) in (1, 3)
    mending = CheckpointReplica(here / WHERE, there / WHERE, Pulse())
    mending.sweep()
    mending.update()
    assert intact(there / WHERE).items() >= {"last.pt": 3, "best.pt": 3, "checkpoint_epoch_3.pt": 3}.items()
    assert tidy(there / WHERE)


def test_another_run_s_checkpoints_are_set_aside_there(here, there):
    put(there / WHERE, 7, [BEST], 0.1)
    entry = {"step": 1, "epoch": 1, "value": 0.5, "run_id": "second"}
    state = {"format": FORMAT, "family": "toy", "model": {}}
    CheckpointFolder(here / WHERE).save(state, entry, [BEST])
    updated(here, there)
    assert intact(there / WHERE / "previous" / "r") == {"last.pt": 7, "best.pt": 7}
    assert set(CheckpointFolder(there / WHERE).listed()) == {"last.pt", "best.pt"}


def test_a_place_that_is_ahead_is_not_overwritten(here, there):
    """An older copy of the same run, on a host that was left for another."""
    put(here / WHERE, 3)
    shutil.copytree(here / WHERE, there / WHERE)
    put(there / WHERE, 9)
    with pytest.raises(HostError, match=r"is ahead: it holds step 9 .* only step 3.*training restore"):
        updated(here, there)
    assert intact(there / WHERE) == {"last.pt": 9, "before_last.pt": 3}


def test_a_file_that_is_missing_there_is_copied_again(here, there):
    (there / WHERE).mkdir(parents=True)
    put(here / WHERE, 1, [BEST], 0.1)
    put(here / WHERE, 2)
    updated(here, there)
    (there / WHERE / BEST).unlink()
    updated(here, there)
    assert intact(there / WHERE) == intact(here / WHERE)


def test_a_damaged_file_there_is_not_linked_to_another_name(here, there):
    (there / WHERE).mkdir(parents=True)
    put(here / WHERE, 1, [BEST], 0.1)
    updated(here, there)
    files = Index.read(there / WHERE).files
    Index({"last.pt": files["last.pt"]}).write(there / WHERE)  # as if killed before the second name
    (there / WHERE / BEST).unlink()
    (there / WHERE / LAST).write_bytes(bytes((here / WHERE / LAST).stat().st_size))
    updated(here, there)
    assert number_in(there / WHERE / BEST) == 1


def test_an_index_that_was_not_written_is_an_error(here, there, monkeypatch):
    (there / WHERE).mkdir(parents=True)
    put(here / WHERE, 1)
    monkeypatch.setattr(Index, "write", lambda *_: None)
    with pytest.raises(OSError, match="index read back is not the one written"):
        updated(here, there)


def test_a_save_in_the_middle_of_a_copy_is_no_damage(here, there, monkeypatch):
    (there / WHERE).mkdir(parents=True)
    put(here / WHERE, 1)
    real, left = remote.copy, [2]

    def meanwhile(*arguments):
        if left[0]:
            left[0] -= 1
            put(here / WHERE, 5 - left[0])
        return real(*arguments)

    monkeypatch.setattr(remote, "copy", meanwhile)
    assert updated(here, there) == []
    assert intact(there / WHERE)["last.pt"] == 5


def test_a_copy_between_a_saves_rename_and_its_index_is_no_damage(here, there, monkeypatch):
    (there / WHERE).mkdir(parents=True)
    index = here / WHERE / INDEX
    put(here / WHERE, 1)
    before = index.read_bytes()
    put(here / WHERE, 2)
    after = index.read_bytes()
    index.write_bytes(before)
    monkeypatch.setattr(remote.time, "sleep", lambda _: index.write_bytes(after))
    assert updated(here, there) == []
    assert intact(there / WHERE) == {"last.pt": 2, "before_last.pt": 1}


def test_a_checkpoint_that_is_damaged_here_is_not_copied_and_named(here, there):
    (there / WHERE).mkdir(parents=True)
    put(here / WHERE, 1, [BEST], 0.1)
    put(here / WHERE, 2)
    put(here / WHERE, 3)
    (here / WHERE / BEST).write_bytes(b"damaged")
    assert updated(here, there) == [f"{here / WHERE / BEST} is missing or damaged"]
    assert intact(there / WHERE) == {"last.pt": 3, "before_last.pt": 2}


def test_a_drive_that_stores_something_else_is_an_error(here, there, monkeypatch):
    (there / WHERE).mkdir(parents=True)
    put(here / WHERE, 1)
    updated(here, there)
    put(here / WHERE, 2)
    monkeypatch.setattr(copying, "read_back", lambda *_: "0" * 64)
    with pytest.raises(OSError, match="not what was written"):
        updated(here, there)
    assert intact(there / WHERE) == {"last.pt": 1}
