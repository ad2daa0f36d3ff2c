"""A replica in an object store: what is listed is there, after a kill at any request; the rest is deleted later."""

import json
from datetime import UTC, datetime

import pytest

from tests.engine.test_engine_checkpoint import number_in, put, state
from tests.persist.copied import WHERE, a_run, intact, persist, restore, write
from training.data.objects.store import ObjectStore
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.engine.checkpoints.index import BEST, Index, epoch_name
from training.errors import HostError, UsageError
from training.persist.copying import Pulse
from training.persist.lease import Taken
from training.persist.objects import blobs, catalog, place, replica
from training.persist.objects.catalog import Catalog
from training.persist.objects.replica import ObjectReplica

RUN = "toy"


def replica_of(here, there):
    return ObjectReplica(ObjectStore(there), RUN, here / WHERE, Pulse())


def listed(there):
    """Name -> step of every listed checkpoint, each of which must be there, intact."""
    store = ObjectStore(there)
    found, _ = Catalog.read(store, RUN)
    for content, parts in found.blobs.items():
        data = b"".join(store.get(f"checkpoints/{RUN}/blobs/{part.sha256}")[0] for part in parts)
        assert blobs.hashlib.sha256(data).hexdigest() == content
    return {name: entry.step for name, entry in found.listing.files.items()}


def keys(there):
    return {one.key.rpartition("/")[2] for one in ObjectStore(there).list(f"checkpoints/{RUN}/blobs")}


def test_contents_are_written_once_and_in_parts(here, there, monkeypatch, tmp_path):
    monkeypatch.setattr(blobs, "PART", 500)
    put(here / WHERE, 1, [BEST, epoch_name(1)], 0.1)
    size = (here / WHERE / "last.pt").stat().st_size
    copying = replica_of(here, there)
    assert copying.update() == [] and listed(there) == {"last.pt": 1, "best.pt": 1, epoch_name(1): 1}
    assert 2 < len(keys(there)) <= -(-size // 500)  # equal parts are one object
    written = []
    monkeypatch.setattr(blobs, "write", lambda *arguments: written.append(arguments))
    assert replica_of(here, there).update() == [] and not written
    restore(there, tmp_path / "new")  # no run is registered: that is the place's work
    ObjectStore(there).put("place.json", json.dumps({"runs": [RUN]}).encode())
    restore(there, tmp_path / "new")
    assert intact(tmp_path / "new" / WHERE) == intact(here / WHERE)


class Killed(BaseException):
    pass


def test_a_kill_at_any_request_leaves_what_is_listed_intact(here, there, monkeypatch):
    """Every write and every deletion, one after the other, is the last one that a process makes."""
    monkeypatch.setattr(blobs, "PART", 700)
    monkeypatch.setattr(replica, "LINGER", 0)
    monkeypatch.setattr(catalog, "LINGER", 0.0)
    put(here / WHERE, 1, [BEST], 0.1)
    replica_of(here, there).update()
    before, left = listed(there), 0
    put(here / WHERE, 2, [epoch_name(2)], 0.5)
    put(here / WHERE, 3, [BEST], 0.05)
    done = False
    while not done:
        copying, made = replica_of(here, there), 0

        def counted(real):
            def call(*arguments, **options):
                nonlocal made
                if made == left:  # noqa: B023
                    raise Killed
                made += 1
                return real(*arguments, **options)

            return call

        copying.store.put, copying.store.delete = counted(copying.store.put), counted(copying.store.delete)
        try:
            copying.update()
            done = True
        except Killed:
            found = listed(there)
            assert found in (before, found | {"last.pt": 3, "best.pt": 3}), "the last one without the best of its run"
        left = 0 if done else left + 1 if made == left else left
    assert listed(there) == {"last.pt": 3, "best.pt": 3, "before_last.pt": 2, epoch_name(2): 2}


def test_what_is_no_longer_listed_is_deleted_an_hour_later(here, there, monkeypatch):
    put(here / WHERE, 1)
    copying = replica_of(here, there)
    copying.update()
    first = keys(there)
    for number in (2, 3):
        put(here / WHERE, number)
        copying.update()
    assert first < keys(there), "a reader may still need it"
    clock = catalog.time.time()
    monkeypatch.setattr(catalog.time, "time", lambda: clock + 3700)
    put(here / WHERE, 4)
    copying.update()
    assert not first & keys(there) and listed(there) == {"last.pt": 4, "before_last.pt": 3}


def test_what_a_killed_copy_left_unlisted_is_deleted_after_an_hour(here, there, monkeypatch):
    put(here / WHERE, 1)
    copying = replica_of(here, there)
    copying.update()
    store, stray = ObjectStore(there), "ab" * 32
    store.put(f"checkpoints/{RUN}/blobs/{stray}", b"never listed")
    copying.sweep()
    assert stray in keys(there)
    ahead = datetime.now(UTC).timestamp() + 3700
    monkeypatch.setattr(replica.time, "time", lambda: ahead)
    copying.sweep()
    assert stray not in keys(there) and listed(there) == {"last.pt": 1}


def test_another_host_that_has_written_the_index_is_noticed(here, there, tmp_path):
    put(here / WHERE, 1)
    one = replica_of(here, there)
    one.update()
    restoring = tmp_path / "second"
    ObjectStore(there).put("place.json", json.dumps({"runs": [RUN]}).encode())
    restore(there, restoring)
    put(restoring / WHERE, 2)
    replica_of(restoring, there).update()
    put(here / WHERE, 3)
    with pytest.raises(Taken, match=r"another host has written .*toy/index\.json"):
        one.update()
    assert listed(there)["last.pt"] == 2


def test_a_place_that_is_ahead_is_refused_and_another_run_is_set_aside(here, there, tmp_path):
    put(here / WHERE, 1)
    put(tmp_path / "old" / WHERE, 1)
    put(here / WHERE, 2)
    replica_of(here, there).update()
    with pytest.raises(HostError, match="is ahead: it holds step 2"):
        replica_of(tmp_path / "old", there).update()
    entry = {"step": 7, "epoch": 7, "value": None, "run_id": "another"}
    CheckpointFolder(tmp_path / "other" / WHERE).save(state(7), entry)
    replica_of(tmp_path / "other", there).update()
    found, _ = Catalog.read(ObjectStore(there), RUN)
    assert {name: entry.step for name, entry in found.previous["r"].files.items()} == {
        "last.pt": 2,
        "before_last.pt": 1,
    }
    assert listed(there) == {"last.pt": 7}


def test_an_object_that_is_gone_or_was_replaced_is_copied_again(here, there, capsys):
    a_run(here)
    persist(here, there)
    store = ObjectStore(there)
    part = Index.read(here / WHERE).files["last.pt"].sha256
    store.delete([f"checkpoints/{RUN}/blobs/{part}"])
    best = Index.read(here / WHERE).files["best.pt"].sha256
    store.put(f"checkpoints/{RUN}/blobs/{best}", b"another content")
    store.put("exports/toy.onnx", b"other")
    persist(here, there)
    assert listed(there)["last.pt"] == 2 and store.get("exports/toy.onnx")[0] == b"model"


def test_a_damaged_checkpoint_there_is_passed_over(here, there, tmp_path, capsys):
    a_run(here)
    persist(here, there)
    last = Index.read(here / WHERE).files["last.pt"].sha256
    ObjectStore(there).put(f"checkpoints/{RUN}/blobs/{last}", b"damaged")
    restore(there, tmp_path / "new")
    assert "damaged there, and passed over: last.pt" in capsys.readouterr().out
    assert number_in(tmp_path / "new" / WHERE / "last.pt") == 1 and listed(there)["last.pt"] == 1


def test_a_checkpoint_damaged_here_is_named_and_not_copied(here, there):
    put(here / WHERE, 1, [BEST], 0.1)
    put(here / WHERE, 2)
    (here / WHERE / "best.pt").unlink()
    (here / WHERE / "best.pt").write_bytes(b"damaged")
    assert replica_of(here, there).update() == [f"{here / WHERE / 'best.pt'} is missing or damaged"]
    assert listed(there) == {"last.pt": 2, "before_last.pt": 1}


def test_a_store_whose_digest_is_not_that_of_the_content_is_read_back(here, there, monkeypatch):
    """As with encryption by a key of one's own, on Google's and on Azure."""
    put(here / WHERE, 1)
    monkeypatch.setattr(blobs, "digest_of_store", lambda content: "something else")
    copying = replica_of(here, there)
    reads, real = [], copying.store.get
    copying.store.get = lambda key: reads.append(key) or real(key)
    copying.update()
    assert any("/blobs/" in key for key in reads) and listed(there) == {"last.pt": 1}
    put(here / WHERE, 2)
    copying.store.get = lambda key: (b"bit rot", None) if "/blobs/" in key else real(key)
    with pytest.raises(OSError, match="what was read back is not what was written"):
        copying.update()
    assert listed(there) == {"last.pt": 1}


@pytest.mark.parametrize("change", ["{", '{"files": {}}', '{"../outside": 1}', "name"])
def test_an_index_that_is_damaged_or_leads_out_of_the_workspace_is_refused(here, there, tmp_path, change):
    a_run(here)
    persist(here, there)
    store, key = ObjectStore(there), catalog.key_of(RUN)
    text = change
    if change in ('{"../outside": 1}', "name"):
        value = json.loads(store.get(key)[0])
        digest = value["files"]["last.pt"]["sha256"]
        name = "exports/../../outside" if change == "name" else "../outside"
        value["beside"][name] = {"sha256": digest, "mtime_ns": 1}
        text = json.dumps(value)
    store.put(key, text.encode())
    with pytest.raises(UsageError, match=r"toy/index\.json cannot be read"):
        restore(there, tmp_path / "new")
    assert not (tmp_path / "outside").exists()


def test_a_manifest_is_written_last_and_lists_only_what_is_complete(here, there, monkeypatch, tmp_path):
    a_run(here)
    persist(here, there)
    write(here / "exports/toy.onnx", "a newer model")
    with monkeypatch.context() as broken:
        broken.setattr(ObjectStore, "put_file", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            persist(here, there)
    held = json.loads(ObjectStore(there).get("manifest.json")[0])["files"]
    assert "exports/toy.onnx" not in held and "exports/toy.mlpackage/Data/weights.bin" in held
    restore(there, tmp_path / "new")
    assert not (tmp_path / "new/exports/toy.onnx").exists(), "half of a copy is not restored"
    persist(here, there)
    restore(there, tmp_path / "new")
    assert (tmp_path / "new/exports/toy.onnx").read_text() == "a newer model"


def test_a_copy_of_files_that_was_cut_short_continues(here, there, monkeypatch):
    monkeypatch.setattr(place, "LISTED", -1.0)
    for name in "abc":
        write(here / f"exports/{name}.onnx", name)
    real, copied = ObjectStore.put_file, []

    def killed_at_the_third(self, name, *arguments):
        if len(copied) == 2:
            raise Killed
        copied.append(name)
        return real(self, name, *arguments)

    with monkeypatch.context() as broken:
        broken.setattr(ObjectStore, "put_file", killed_at_the_third)
        with pytest.raises(Killed):
            persist(here, there)
    assert copied == ["exports/a.onnx", "exports/b.onnx"]
    monkeypatch.setattr(
        ObjectStore, "put_file", lambda self, *arguments: copied.append(arguments[0]) or real(self, *arguments)
    )
    persist(here, there)
    assert copied == ["exports/a.onnx", "exports/b.onnx", "exports/c.onnx"]
