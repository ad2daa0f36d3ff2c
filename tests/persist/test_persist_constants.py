"""Large constants in a second place: copied before the checkpoints that refer to them, and restored with these."""

import json
import os

import pytest

from tests.engine.test_engine_checkpoint import die_at
from tests.engine.test_engine_constants import files, filled, put
from tests.persist.copied import WHERE, intact, tidy
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.engine.checkpoints.index import BEST, INDEX, LAST, Index, constants_name, epoch_name
from training.errors import HostError
from training.persist.copying import Pulse
from training.persist.remote import CheckpointReplica
from training.persist.restore import restore_family


@pytest.fixture
def places(here, there):
    """(source, target) folders."""
    for place in (here, there):
        (place / WHERE).mkdir(parents=True)
    return here / WHERE, there / WHERE


def updated(source, target):
    return CheckpointReplica(source, target, Pulse()).update()


def damage(folder):
    (name,) = files(folder)
    (folder / name).write_bytes(bytes((folder / name).stat().st_size))
    return name


def test_constants_are_copied_once_and_listed(places, copies):
    source, target = places
    put(source, 1, [BEST], 1.0)
    assert updated(source, target) == []
    put(source, 2, [epoch_name(2)], 1.0)
    assert updated(source, target) == []
    assert sum(name.startswith("constants-") for name in copies) == 1
    assert filled(target / LAST) == filled(target / BEST) == 1
    assert Index.read(target).constants == Index.read(source).constants and tidy(target)


def test_constants_that_nothing_refers_to_any_more_are_deleted_there(places):
    source, target = places
    put(source, 1, [BEST, epoch_name(1)], 1.0)
    replica = CheckpointReplica(source, target, Pulse())
    replica.update()
    for number in (2, 3):
        put(source, number, [BEST, epoch_name(number)], 2.0)
    CheckpointFolder(source).apply_retention(1)
    replica.update()
    assert files(target) == files(source) and filled(target / "before_last.pt") == 2
    assert set(Index.read(target).constants) == set(files(target))


def test_constants_of_a_copy_that_was_killed_before_it_listed_them_are_deleted(places):
    source, target = places
    put(source, 1, [BEST], 1.0)
    updated(source, target)
    (target / constants_name("0" * 64)).write_bytes(b"unlisted")
    updated(source, target)
    assert files(target) == files(source)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("call", range(1, 8))
def test_a_copy_that_is_killed_lists_no_checkpoint_without_its_constants(places, call, moment):
    source, target = places
    put(source, 1, [], 1.0)
    updated(source, target)
    put(source, 2, [BEST], 2.0)
    child = os.fork()
    if child == 0:
        die_at("Path.replace", call, moment)
        updated(source, target)
        os._exit(0)
    os.waitpid(child, 0)
    for name in CheckpointFolder(target).listed():
        path = target / name
        if name == BEST or path == CheckpointFolder(target).latest():
            assert filled(path) in (1, 2)
    mending = CheckpointReplica(source, target, Pulse())
    mending.sweep()
    mending.update()
    assert filled(target / LAST) == filled(target / BEST) == 2 and tidy(target)


def test_checkpoints_whose_constants_are_damaged_here_are_not_copied_and_named(places):
    source, target = places
    put(source, 1, [BEST], 1.0)
    name = damage(source)
    assert updated(source, target) == [f"{source / name} is missing or damaged"]
    assert not CheckpointFolder(target).listed()


def test_constants_damaged_there_are_found_and_copied_again(places):
    source, target = places
    put(source, 1, [BEST], 1.0)
    updated(source, target)
    name = damage(target)
    replica = CheckpointReplica(source, target, Pulse())
    assert replica.damaged() == [name]
    assert replica.update() == [] and replica.damaged() == []
    assert filled(target / BEST) == 1


def test_another_run_s_constants_are_set_aside_with_it(places):
    source, target = places
    put(target, 7, [BEST], 7.0)
    put(source, 1, [BEST], 1.0)
    index = json.loads((source / INDEX).read_text())
    for entry in index["files"].values():
        entry["run_id"] = "second"
    (source / INDEX).write_text(json.dumps(index))
    updated(source, target)
    assert filled(target / "previous" / "r" / LAST) == 7 and filled(target / LAST) == 1
    assert len(files(target)) == 1


def test_a_new_host_gets_the_constants_with_the_checkpoints(places):
    ours, theirs = places
    put(theirs, 1, [BEST], 1.0)
    put(theirs, 2, [epoch_name(2)], 1.0)
    assert "restored step 2" in restore_family(theirs, ours, Pulse())
    assert filled(ours / LAST) == filled(ours / BEST) == 1 and intact(ours) == intact(theirs)
    assert Index.read(ours).constants == Index.read(theirs).constants and tidy(ours)


def test_setting_an_older_run_aside_leaves_the_constants_that_it_shares(places):
    ours, theirs = places
    put(ours, 5, [BEST], 1.0)
    put(theirs, 1, [BEST], 1.0)
    index = json.loads((theirs / INDEX).read_text())
    for entry in index["files"].values():
        entry["run_id"] = "second"
    (theirs / INDEX).write_text(json.dumps(index))
    restore_family(theirs, ours, Pulse())
    assert filled(ours / LAST) == filled(ours / "previous" / "r" / LAST) == 1
    assert CheckpointFolder(ours).listed()[LAST].step == 1 and tidy(ours)


def test_constants_damaged_here_are_restored(places):
    ours, theirs = places
    put(ours, 1, [BEST], 1.0)
    updated(ours, theirs)
    name = damage(ours)
    assert f"restored what was damaged here: {name}" in restore_family(theirs, ours, Pulse())
    assert filled(ours / LAST) == 1 and tidy(ours)


def test_a_place_without_the_constants_restores_nothing(places):
    ours, theirs = places
    put(theirs, 1, [BEST], 1.0)
    damage(theirs)
    with pytest.raises(HostError, match="none of them is intact"):
        restore_family(theirs, ours, Pulse())
    assert (theirs / LAST).exists() and not list(ours.glob("*.pt"))
