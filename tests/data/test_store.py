"""Stores: arrays are read back unchanged in any process, and incomplete or damaged shards are never used."""

import mmap
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from training.data import shard_file
from training.data import store as stores
from training.data.store import Record, Store, key_of, pack, unpack
from training.errors import HostError

PROJECT = Path(__file__).resolve().parents[2]
NESTED = np.dtype([("onset", "f8"), ("pitch", "u1"), ("drum", "?"), ("place", "f4", (3,)), ("in", [("a", "i2")])])


def examples() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    notes = np.zeros(7, NESTED)
    notes["onset"], notes["place"] = rng.random(7), rng.random((7, 3))
    return {
        "half": rng.random((5, 128)).astype(np.float16),
        "notes": notes,
        "none": np.zeros((0, 4), np.float32),
        "scalar": np.array(3.5),
        "ids": np.arange(11, dtype=np.uint16),
        "names": np.array(["a", "ßß"]),
        "fortran": np.asfortranarray(rng.random((3, 4))),
        "big endian": np.arange(4, dtype=">i4"),
    }


def filled(folder: Path, count: int = 50, **options) -> Store:
    store = Store(folder)
    with store.writing(**options) as writer:
        for n in range(count):
            writer.add(key_of(str(n), "v1"), {"values": np.full(n, n, np.int32)})
    return store


def test_arrays_of_every_kind_come_back_bit_for_bit(tmp_path):
    store = Store(tmp_path)
    with store.writing() as writer:
        writer.add(key_of("x", "1"), examples())
    back = Store(tmp_path).get(key_of("x", "1"))
    assert list(back) == list(examples())
    for name, array in examples().items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        assert back[name].tobytes() == array.tobytes()


def test_arrays_are_read_only_views_of_the_memory_mapped_file(tmp_path):
    filled(tmp_path)
    values = Store(tmp_path).get(key_of("9", "v1"))["values"]
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 1
    base = values
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base.obj, mmap.mmap)
    assert base.nbytes == (tmp_path / "00000001.shard").stat().st_size


def test_arrays_of_objects_are_refused_when_written():
    with pytest.raises(TypeError, match="`x`"):
        pack({"x": np.array([object()])})
    with pytest.raises(TypeError, match="at least one"):
        pack({})


def test_many_records_are_in_one_file(tmp_path):
    store = filled(tmp_path, 2000)
    assert len(store) == 2000
    assert [p.name for p in tmp_path.iterdir() if p.name != ".lock"] == ["00000001.shard"]
    for n in (0, 1, 999, 1999):
        assert (store.get(key_of(str(n), "v1"))["values"] == n).all()


def test_another_encoder_version_is_another_record(tmp_path):
    store = filled(tmp_path)
    assert key_of("3", "v1") in store
    assert key_of("3", "v2") not in store
    with pytest.raises(KeyError):
        store.get(key_of("3", "v2"))


def test_a_reader_finds_what_another_process_adds_later(tmp_path):
    reader = filled(tmp_path, 3)
    assert len(reader) == 3
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, numpy as np; from pathlib import Path; from training.data.store import Store, key_of\n"
            "with Store(Path(sys.argv[1])).writing() as w: w.add(key_of('new', '1'), {'x': np.arange(3)})",
            str(tmp_path),
        ],
        check=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert reader.get(key_of("new", "1"))["x"].tolist() == [0, 1, 2]


def test_large_stores_are_cut_into_shards_and_published_as_they_fill(tmp_path):
    store = Store(tmp_path)
    with store.writing(shard_bytes=10_000) as writer:
        for n in range(30):
            writer.add(key_of(str(n), ""), {"x": np.zeros(1000, np.uint8)})
            if n == 20:
                assert key_of("0", "") in Store(tmp_path), "published before the end"
    assert len(list(tmp_path.glob("*.shard"))) == 3
    assert all(key_of(str(n), "") in store for n in range(30))


def test_adding_twice_keeps_one(tmp_path):
    store = filled(tmp_path, 4)
    filled(tmp_path, 4)
    assert len(list(tmp_path.glob("*.shard"))) == 1
    assert len(store) == 4


def _read_in_child(queue, record, store):
    queue.put((record["values"].tolist(), store is record.store, store.get(key_of("2", "v1"))["values"].tolist()))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_records_can_be_sent_to_worker_processes(tmp_path, method):
    """A pickled record is small, independent of the size of its arrays, and a process opens each store once."""
    store = filled(tmp_path)
    store.get(key_of("40", "v1"))
    record = Record(Store.at(tmp_path), key_of("4", "v1"))
    assert record["values"].tolist() == [4] * 4
    assert len(pickle.dumps(record)) < 500
    again, twin = pickle.loads(pickle.dumps((record, Store.at(tmp_path))))
    assert again.store is twin
    assert dict(again)["values"].tolist() == [4] * 4
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    if method == "spawn":
        sys.modules.setdefault(_read_in_child.__module__, sys.modules[__name__])
    process = context.Process(target=_read_in_child, args=(queue, record, record.store))
    process.start()
    assert queue.get() == ([4] * 4, True, [2] * 2)
    process.join()


def test_every_truncated_shard_is_ignored(tmp_path):
    filled(tmp_path / "complete", 6)
    data = (tmp_path / "complete" / "00000001.shard").read_bytes()
    truncated = tmp_path / "truncated"
    truncated.mkdir()
    for length in [*range(0, len(data), 37), len(data) - 1]:
        (truncated / "00000001.shard").write_bytes(data[:length])
        assert len(Store(truncated)) == 0, length
    filled(truncated, 6)
    assert len(Store(truncated)) == 6


def test_every_flipped_bit_of_header_table_and_footer_is_noticed(tmp_path):
    filled(tmp_path, 2)
    path = tmp_path / "00000001.shard"
    data = path.read_bytes()
    table = len(data) - shard_file.FOOTER.size - 2 * shard_file.ENTRY.itemsize
    places = [*range(12), *range(table, len(data) - 32)]
    for place in places:
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        assert len(Store(tmp_path)) == 0, place


def test_a_damaged_list_of_arrays_is_an_error_and_damaged_records_can_be_found(tmp_path):
    record = bytearray(pack({"x": np.arange(100)}))
    record[12] ^= 1
    with pytest.raises(ValueError, match="damaged"):
        unpack(np.frombuffer(bytes(record), np.uint8))
    store = filled(tmp_path, 20)
    assert store.damaged() == []
    path = tmp_path / "00000001.shard"
    data = bytearray(path.read_bytes())
    values = Store(tmp_path).get(key_of("19", "v1"))["values"].tobytes()
    data[data.index(values)] ^= 1
    path.write_bytes(data)
    assert Store(tmp_path).damaged() == [key_of("19", "v1").hex()]


def test_shards_of_another_format_are_ignored_and_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "FORMAT", stores.FORMAT + 1)
    filled(tmp_path, 5)
    monkeypatch.undo()
    store = Store(tmp_path)
    assert len(store) == 0
    filled(tmp_path, 5)
    assert len(Store(tmp_path)) == 5
    assert len(list(tmp_path.glob("*.shard"))) == 2, "the shard of the other format was deleted"


def test_the_next_writer_deletes_the_unfinished_shard_of_a_killed_one(tmp_path):
    """The kernel has released the lock of the killed process."""
    code = (
        "import os, sys, numpy as np; from pathlib import Path; from training.data.store import Store, key_of\n"
        "with Store(Path(sys.argv[1])).writing() as w:\n"
        "    w.add(key_of('a', '1'), {'x': np.zeros(10**6)}); w.publish()\n"
        "    w.add(key_of('b', '1'), {'x': np.zeros(10**6)}); os.kill(os.getpid(), 9)\n"
    )
    run = [sys.executable, "-c", code, str(tmp_path)]
    assert subprocess.run(run, check=False, env={**os.environ, "PYTHONPATH": str(PROJECT)}).returncode == -9
    assert list(tmp_path.glob(".writing-*"))
    store = Store(tmp_path)
    assert (key_of("a", "1") in store, key_of("b", "1") in store) == (True, False)
    filled(tmp_path, 2)
    assert not list(tmp_path.glob(".writing-*"))


def test_an_interruption_keeps_what_was_added_and_leaves_no_temporary_file(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt), store.writing() as writer:
        writer.add(key_of("a", "1"), {"x": np.zeros(3)})
        raise KeyboardInterrupt
    assert key_of("a", "1") in Store(tmp_path)
    assert not list(tmp_path.glob(".writing-*"))


def test_a_full_disk_leaves_no_temporary_file(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stores.os, "fsync", full)
    with pytest.raises(HostError, match="No space left"), Store(tmp_path).writing() as writer:
        writer.add(key_of("a", "1"), {"x": np.zeros(3)})
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]


def test_two_concurrent_writers_lose_no_record(tmp_path):
    code = (
        "import sys, numpy as np; from pathlib import Path; from training.data.store import Store, key_of\n"
        "for n in range(20):\n"
        "    with Store(Path(sys.argv[1])).writing() as writer:\n"
        "        writer.add(key_of(sys.argv[2] + str(n), ''), {'x': np.arange(n)})\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    runs = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name], env=environment) for name in "ab"]
    assert [run.wait() for run in runs] == [0, 0]
    assert len(Store(tmp_path)) == 40


def test_a_folder_that_cannot_be_written_is_reported_by_name(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="file/store"), Store(tmp_path / "file" / "store").writing():
        pass


def test_a_store_of_a_million_records_is_searched_quickly(tmp_path):
    """The table is searched in the memory-mapped file; no dictionary is built when it is opened."""
    count = 1_000_000
    table = np.zeros(count, shard_file.ENTRY)
    table["key"][:, :8] = np.arange(count, dtype=">u8").view(np.uint8).reshape(count, 8)[:, ::-1]
    table["head"] = np.arange(count)
    record = pack({"x": np.array([7])})
    table["offset"], table["length"] = 64, len(record)
    data = table.tobytes()
    (tmp_path / "00000001.shard").write_bytes(
        shard_file.HEADER.pack(shard_file.BEGIN, shard_file.FORMAT)
        + record
        + data
        + shard_file.FOOTER.pack(shard_file.END, shard_file.FORMAT, zlib.crc32(data), 64 + len(record), count)
    )
    store = Store(tmp_path)
    begin = time.perf_counter()
    for n in range(0, count, 1000):
        assert store.get(table[n]["key"].tobytes())["x"][0] == 7
    assert time.perf_counter() - begin < 2.0
