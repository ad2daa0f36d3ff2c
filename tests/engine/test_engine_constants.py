"""Large constants are stored once, in a file named by its SHA-256, beside the checkpoints that refer to it."""

import json
import os
import shutil

import numpy as np
import pytest
import torch

from tests.engine import toy
from tests.engine.test_engine_checkpoint import die_at
from training.engine.checkpoints import constants as stored
from training.engine.checkpoints import disk_space
from training.engine.checkpoints.checkpoint_file import read
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.engine.checkpoints.index import BEST, FORMAT, INDEX, LAST, Index, constants_name, epoch_name
from training.engine.checkpoints.saver import Saver
from training.errors import HostError, Interrupted, UsageError
from training.stages.prove_resume import compare

LARGE = stored.INSIDE // 4 + 1  # float32 numbers: just too large to be kept in a checkpoint


class WithTable(toy.ToyRecipe):
    """A toy with a large table among its constants."""

    def fit_constants(self, rows):
        return {**super().fit_constants(rows), "table": np.arange(LARGE, dtype=np.float32)}


def table(fill=0.0, size=LARGE):
    return {"table": torch.full((size,), float(fill))}


def state(number, constants):
    weights = {"w": torch.full((500,), float(number))}
    return {"format": FORMAT, "family": "toy", "model": weights, "constants": constants}


def put(folder, number, names=(), fill=0.0, value=None):
    entry = {"step": number, "epoch": number, "value": value, "run_id": "r"}
    return CheckpointFolder(folder).save(state(number, table(fill)), entry, names)


def files(folder):
    return sorted(path.name for path in folder.glob("constants-*.pt"))


def filled(path):
    """The number with which the table of a checkpoint is filled."""
    values = read(path)["constants"]["table"]
    assert len(values) == LARGE and values.eq(values[0]).all()
    return float(values[0])


def test_a_run_stores_its_large_constants_once(tmp_path, monkeypatch):
    written = []
    real = stored.write_state
    monkeypatch.setattr(stored, "write_state", lambda *a: (written.append(a[0].name), real(*a))[1])
    trained = toy.run(tmp_path, WithTable, training={"save_every": 1})
    folder = tmp_path / "checkpoints" / "toy"
    assert len(written) == 1 and len(files(folder)) == 1
    assert all(path.stat().st_size < 100_000 for path in folder.glob("*.pt") if path.name not in files(folder))
    for name in CheckpointFolder(folder).listed():
        content = read(folder / name)
        assert torch.equal(content["constants"]["table"], torch.arange(LARGE, dtype=torch.float32))
        assert content["constants"]["scale"].tolist() == [0.5] * 8 and "constants_ref" not in content
    index = json.loads((folder / INDEX).read_text())
    (name,) = index["constants"]
    about = index["constants"][name]
    assert name == f"constants-{about['sha256']}.pt" and about["bytes"] == (folder / name).stat().st_size
    raw = torch.load(trained.last, weights_only=True)
    assert raw["constants"] == {} and raw["constants_ref"] == about["sha256"]


def test_small_constants_stay_in_the_checkpoint_and_are_not_in_the_index(tmp_path):
    trained = toy.run(tmp_path, training={"epochs": 1})
    assert torch.load(trained.last, weights_only=True)["constants"]["scale"].tolist() == [0.5] * 8
    index = json.loads((trained.last.parent / INDEX).read_text())
    assert set(index) == {"format", "files", "naming"} and not files(trained.last.parent)
    assert set(index["files"][LAST]) == {"step", "epoch", "value", "run_id", "sha256", "saved"}


def test_the_size_limit_applies_to_all_constants_together():
    half = {name: torch.zeros(stored.INSIDE // 8) for name in "ab"}
    assert not stored.are_large(half) and stored.are_large({**half, "c": torch.zeros(1)})


def test_a_resumed_run_has_the_same_constants_and_ends_in_the_same_bits(tmp_path):
    straight = toy.run(tmp_path / "straight", WithTable)
    with pytest.raises(Interrupted):
        toy.run(tmp_path / "cut", type("Stopped", (WithTable,), {"signal_at": 8}))

    class Refitted(WithTable):  # fitting again would give another table
        def fit_constants(self, rows):
            raise AssertionError("constants are fitted once in a run's life")

    cut = toy.run(tmp_path / "cut", Refitted)
    one, other = read(straight.last), read(cut.last)
    assert len(files(cut.last.parent)) == 1
    for part in ("model", "constants"):
        assert all(torch.equal(one[part][name], other[part][name]) for name in one[part])
    found = compare(one | {"progress": {}}, other | {"progress": {}}, [], [])
    assert found.none and found.tensors > 2
    other["constants"]["table"][7] += 1
    assert compare(one | {"progress": {}}, other | {"progress": {}}, [], []).worst == "constants.table"


def test_a_missing_or_damaged_constants_file_is_named_with_the_remedy(tmp_path):
    put(tmp_path, 1)
    (name,) = files(tmp_path)
    shutil.copy(tmp_path / LAST, tmp_path / "carried.pt")
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "carried.pt", tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=rf"elsewhere/{name}, which is missing\. .*training restore"):
        read(tmp_path / "elsewhere" / "carried.pt")
    data = bytearray((tmp_path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError, match=rf"{name}, the constants of .*last\.pt, is damaged.*training restore"):
        read(tmp_path / LAST)
    put(tmp_path, 2)  # a run that continues has them in memory
    assert filled(tmp_path / LAST) == 0


@pytest.mark.parametrize("reference", ["../secret", "A" * 64, "", 7])
def test_a_constants_reference_that_is_no_sha256_is_refused(tmp_path, reference):
    torch.save({"format": FORMAT, "constants": {}, "constants_ref": reference}, tmp_path / "planted.pt")
    with pytest.raises(UsageError, match="not a SHA-256"):
        read(tmp_path / "planted.pt")


def test_an_index_with_constants_outside_the_folder_is_refused(tmp_path):
    put(tmp_path, 1)
    index = json.loads((tmp_path / INDEX).read_text())
    (about,) = index["constants"].values()
    for changed in (
        index | {"constants": {"../secret": about}},
        index | {"files": {LAST: index["files"][LAST] | {"constants": "../secret"}}},
    ):
        (tmp_path / INDEX).write_text(json.dumps(changed))
        with pytest.raises(UsageError, match=r"index\.json cannot be read"):
            CheckpointFolder(tmp_path).latest()


def test_constants_that_no_checkpoint_refers_to_are_deleted(tmp_path):
    folder = CheckpointFolder(tmp_path)
    put(tmp_path, 1, [BEST, epoch_name(1)], 1.0)
    put(tmp_path, 2, [epoch_name(2)], 2.0)
    put(tmp_path, 3, [BEST, epoch_name(3)], 3.0)
    folder.apply_retention(3)
    assert len(files(tmp_path)) == 3
    folder.apply_retention(1)
    assert len(files(tmp_path)) == 2 and filled(tmp_path / LAST) == 3 and filled(tmp_path / "before_last.pt") == 2
    put(tmp_path, 4, [epoch_name(4)], 3.0)
    folder.apply_retention(1)
    assert len(files(tmp_path)) == 1 and filled(tmp_path / BEST) == 3
    assert set(Index.read(tmp_path).constants) == set(files(tmp_path))
    unlisted = tmp_path / constants_name("0" * 64)
    unlisted.write_bytes(b"of a save that was killed")
    folder.sweep()
    assert len(files(tmp_path)) == 1 and not unlisted.exists()


def test_evicting_a_checkpoint_deletes_constants_that_no_other_one_uses(tmp_path):
    put(tmp_path, 1, [epoch_name(1)], 1.0)
    for number in (2, 3, 4):
        put(tmp_path, number, [BEST], 2.0, value=0.1)
    assert len(files(tmp_path)) == 2
    assert CheckpointFolder(tmp_path).evict() == epoch_name(1)
    assert len(files(tmp_path)) == 1 and filled(tmp_path / LAST) == 2
    assert set(Index.read(tmp_path).constants) == set(files(tmp_path))


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    ("phase", "call"), [("torch.save", 1), ("torch.save", 2), *(("os.fsync", n) for n in range(1, 5))]
    + [("Path.replace", n) for n in range(1, 6)],
)  # fmt: skip
def test_a_process_killed_in_a_save_leaves_checkpoints_with_their_constants(tmp_path, phase, call, moment):
    put(tmp_path, 1, [BEST], 1.0, 0.5)
    child = os.fork()
    if child == 0:
        die_at(phase, call, moment)
        put(tmp_path, 2, [BEST], 2.0, 0.4)
        os._exit(0)
    os.waitpid(child, 0)
    folder = CheckpointFolder(tmp_path)
    for path in (folder.latest(), folder.best()):
        assert filled(path) == int(read(path)["model"]["w"][0])
    folder.sweep()
    put(tmp_path, 3, [], 2.0)
    assert filled(folder.latest()) == 2 and {path.suffix for path in tmp_path.iterdir()} == {".pt", ".json"}


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(("phase", "call"), [("os.link", 1), *(("Path.replace", n) for n in (1, 2, 3))])
def test_a_run_that_is_set_aside_has_its_constants_at_every_instant(tmp_path, phase, call, moment):
    put(tmp_path, 1, [BEST], 1.0)
    put(tmp_path, 2, [], 1.0)
    child = os.fork()
    if child == 0:
        die_at(phase, call, moment)
        CheckpointFolder(tmp_path).set_aside("r")
        os._exit(0)
    os.waitpid(child, 0)
    aside = tmp_path / "previous" / "r"
    for path in (*tmp_path.glob("*.pt"), *aside.glob("*.pt")):
        assert path.name.startswith(("constants-", ".saving-")) or filled(path) == 1
    CheckpointFolder(tmp_path).set_aside("r")
    assert filled(aside / BEST) == filled(aside / LAST) == 1 and not list(tmp_path.glob("*.pt"))
    assert {path.suffix for path in aside.iterdir()} == {".pt", ".json"}


def test_the_disk_space_of_constants_is_counted_once(tmp_path, monkeypatch):
    put(tmp_path, 1)
    monkeypatch.setattr(disk_space, "free", lambda folder: 0)
    with pytest.raises(HostError, match=r"1\.05 MB of constants, 0 kB of exports") as caught:
        disk_space.require_space(tmp_path, keep=3, growth=0, exports=0)
    assert "needs up to 34.6 MB" in str(caught.value)  # 33.55 MB to spare, 1.05 MB of constants, 7 small checkpoints


def test_large_constants_are_not_copied_for_each_save(tmp_path, monkeypatch):
    """Nor serialised again: tensors that were stored are recognised."""
    with Saver(tmp_path, 3, print) as saver:
        kept = table(5.0)
        for number in range(3):
            entry = {"step": number, "epoch": 0, "value": None, "run_id": "r"}
            saver.save(state(number, kept), entry, [], wait=True)
            assert all(spare.numel() < LARGE for spare in saver._copy._spare)
            monkeypatch.setattr(stored, "write_state", None)  # not called again
    assert filled(tmp_path / LAST) == 5


def test_equal_constants_share_one_file_whatever_their_memory_layout(tmp_path):
    complete = torch.arange(2 * LARGE, dtype=torch.float32)
    for constants in ({"t": complete[:LARGE]}, {"t": complete[:LARGE].clone()}):
        entry = {"step": 1, "epoch": 0, "value": None, "run_id": "r"}
        CheckpointFolder(tmp_path).save(state(1, constants), entry)
    (name,) = files(tmp_path)
    assert (tmp_path / name).stat().st_size < 5 * LARGE


def test_each_use_of_a_folder_parses_its_index_once(tmp_path, monkeypatch):
    for number in (1, 2, 3):
        put(tmp_path, number, [BEST, epoch_name(number)], value=1 / number)
    parses = []
    real = json.loads
    monkeypatch.setattr(json, "loads", lambda text: (parses.append(1), real(text))[1])
    folder = CheckpointFolder(tmp_path)
    uses = (
        folder.sweep, folder.listed, folder.latest, folder.best, folder.damaged, lambda: folder.apply_retention(2),
        folder.evict, lambda: put(tmp_path, 4, [BEST]),
    )  # fmt: skip
    for use in uses:
        parses.clear()
        use()
        assert len(parses) == 1, use
