"""The index of a split: a split that was checked before is loaded from it, unless manifest, files or code changed."""

import dataclasses
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.domains.music.corpora import PairRecipe, ScoreRecipe, make_corpus, run, split, write_mid
from training.data import digests, encode, index, manifest, rows, unchanged
from training.data.identity import data_digest
from training.data.index import Shared, cached
from training.data.rows import Rows, Texts, counts, select, stored
from training.data.store import Store
from training.domains.music.midi.tokens import TOKENS
from training.domains.music.rows import SCHEMA
from training.errors import DataError


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Nine songs, prepared: decoded, with manifests and their indices."""
    patch = pytest.MonkeyPatch()
    for module in (digests, index):
        patch.setattr(module, "SETTLED", -3600)
    root = make_corpus(tmp_path_factory.mktemp("built"))
    run(root)
    patch.undo()
    return root


@pytest.fixture
def root(built, tmp_path, monkeypatch) -> Path:
    """A separate corpus for each test; files count as settled at once."""
    for module in (digests, index):
        monkeypatch.setattr(module, "SETTLED", -3600)
    for name in ("audio", "midi"):
        shutil.copytree(built / name, tmp_path / name)
    shutil.copytree(built / "out/cache", tmp_path / "out/cache", ignore=shutil.ignore_patterns("index"))
    run(tmp_path)
    return tmp_path


@pytest.fixture
def loads(monkeypatch) -> list[Path]:
    """The manifests that were read line by line."""
    read, plain = [], manifest.load

    def load(path: Path, *rest, **options):
        read.append(path)
        return plain(path, *rest, **options)

    monkeypatch.setattr(manifest, "load", load)
    return read


def plain(part) -> list:
    """All that training sees of rows."""
    return [
        (
            dict(row.values),
            row.place,
            {key: {name: array.tobytes() for name, array in record.items()} for key, record in row.records.items()},
        )
        for row in part
    ]


def test_training_uses_the_index_that_prepare_wrote(root, loads, monkeypatch):
    """A million rows are not parsed, and their files not checked, again at every start."""
    monkeypatch.setattr(encode, "encode", lambda *a, **k: pytest.fail("looked at the files again"))
    for which, count in (("train", 7), ("val", 2)):
        assert [len(split(root, which, kind)[0]) for kind in (PairRecipe, ScoreRecipe)] == [count, count]
    assert not loads


def test_rows_of_an_index_are_those_of_the_manifest(root, loads):
    for kind in (PairRecipe, ScoreRecipe):
        quick = {which: split(root, which, kind)[0] for which in ("train", "val")}
        digest = data_digest(quick)
        for folder in (root / "out/cache/index").glob(f"{kind.family}-*"):
            shutil.rmtree(folder)
        slow = {which: split(root, which, kind)[0] for which in ("train", "val")}
        listed = {which: list(part) for which, part in slow.items()}
        assert plain(quick["train"]) == plain(slow["train"])
        assert plain(quick["val"]) == plain(slow["val"])
        assert digest == data_digest(slow) == data_digest(listed, SCHEMA)
    assert len(loads) == 4


def touch(root: Path) -> None:
    for path in (root / "midi").rglob("*.Mid"):
        about, content = path.stat(), bytearray(path.read_bytes())
        content[content.index(80)] += 8  # the first note, louder
        path.write_bytes(content)
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def reorder(root: Path) -> None:
    path = root / "out/data/manifests/midi_train.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))


def tear(root: Path) -> None:
    for path in (root / "out/cache/index").glob("midi_generator-*/rows"):
        path.write_bytes(path.read_bytes()[:-100])


def flip(root: Path) -> None:
    for path in (root / "out/cache/index").glob("midi_generator-*/rows"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def lose(root: Path) -> None:
    for path in (root / "out/cache/tokens").glob("*.shard"):
        path.unlink()


@pytest.mark.parametrize("change", [touch, reorder, tear, flip, lose], ids=lambda change: change.__name__)
def test_an_index_that_is_out_of_date_or_damaged_is_not_used(root, loads, change):
    """An edit that keeps size and mtime, a manifest in another order, torn and flipped bytes, a lost shard."""
    before = plain(split(root, kind=ScoreRecipe)[0])
    assert not loads
    change(root)
    after = plain(split(root, kind=ScoreRecipe)[0])
    assert len(loads) == 1
    if change is touch:
        assert all(old[2] != new[2] for old, new in zip(before, after, strict=True))
    elif change is reorder:
        assert [values for values, _, _ in after] == [values for values, _, _ in reversed(before)]
    else:
        assert after == before
    loads.clear()
    assert plain(split(root, kind=ScoreRecipe)[0]) == after
    assert not loads  # what was found out this time is kept


def test_an_edited_file_is_also_found_when_several_processes_check_the_files(root, loads, monkeypatch):
    monkeypatch.setattr(unchanged, "SHARE", 1)
    monkeypatch.setattr(unchanged, "available_cpus", lambda: 4)
    before = plain(split(root, kind=ScoreRecipe)[0])
    assert not loads
    touch(root)
    after = plain(split(root, kind=ScoreRecipe)[0])
    assert len(loads) == 1 and all(old[2] != new[2] for old, new in zip(before, after, strict=True))


def test_new_code_makes_a_new_index(root, loads, monkeypatch):
    class Stricter(ScoreRecipe):
        row_checks = 2

    class Newer(ScoreRecipe):
        def encoders(self):
            return {"midi_path": dataclasses.replace(TOKENS, version="another")}

    split(root, kind=Stricter)
    assert len(loads) == 1
    split(root, kind=Newer)
    assert len(loads) == 2
    monkeypatch.setattr(index, "FORMAT", 999)
    split(root, kind=Newer)
    assert len(loads) == 3


def test_files_that_changed_a_moment_ago_are_read_again(root, loads, monkeypatch):
    """Within a tick of the file system's clock a second edit could go unseen: then nothing is kept."""
    monkeypatch.setattr(digests, "SETTLED", 3600)
    for path in (root / "midi").rglob("*.Mid"):
        path.write_bytes(path.read_bytes())  # another ctime
    for _ in range(2):
        split(root, kind=ScoreRecipe)
    assert len(loads) == 2


def test_a_root_option_that_changes_where_files_are_is_part_of_the_index(root, loads):
    shutil.move(root / "midi", root / "scores")
    moved = split(root, kind=ScoreRecipe, midi_root=root / "scores")[0]
    assert all(row.values["midi_path"].startswith(str(root / "scores")) for row in moved)
    split(root, kind=ScoreRecipe, midi_root=root / "scores")
    assert len(loads) == 1
    with pytest.raises(DataError, match="--midi-root"):
        split(root, kind=ScoreRecipe)
    assert len(loads) == 2


def test_a_row_whose_file_was_quarantined_is_tried_again(root, loads):
    """A run with a file in quarantine leaves no index: the file may have been mended."""
    next((root / "midi").rglob("t0.Mid")).write_bytes(b"broken")
    next((root / "midi").rglob("t1.Mid")).write_bytes(b"broken")
    first = split(root, kind=ScoreRecipe)[0]
    assert len(split(root, kind=ScoreRecipe)[0]) == len(first) < 7
    assert len(loads) == 2


def test_rows_are_a_sequence(root):
    part = split(root, kind=ScoreRecipe)[0]
    assert isinstance(part, Shared)
    names = [row.values["id"] for row in part]
    assert part[-1].values["id"] == names[-1]
    assert [row.values["id"] for row in part[2:5]] == names[2:5]
    assert [row.values["id"] for row in part[::-2]] == names[::-2]
    some = select(part, np.array([4, 1]))
    assert [row.values["id"] for row in select(some, np.array([1]))] == [names[1]]
    assert select(part, np.arange(len(part))) is part
    with pytest.raises(IndexError):
        part[len(part)]
    assert counts(some, "midi_path", "ids").tolist() == [len(part[i].records["midi_path"]["ids"]) for i in (4, 1)]
    assert np.array_equal(stored(some, 0, "midi_path", "ids"), part[4].records["midi_path"]["ids"])
    assert list(some.paths("midi_path")) == [part[i].values["midi_path"] for i in (4, 1)]


def test_rows_are_pickled_as_the_path_of_their_index(root):
    """A data loader worker maps the file; it is not sent a million rows."""
    part = split(root, kind=ScoreRecipe)[0]
    sent = pickle.dumps(part)
    assert len(sent) < 1000
    assert plain(pickle.loads(sent)) == plain(part)
    reorder(root)
    split(root, kind=ScoreRecipe)
    with pytest.raises(DataError, match="was changed while it was in use"):
        pickle.loads(sent)


def test_rows_without_an_index_can_be_pickled(root):
    part = split(root, kind=ScoreRecipe)[0]
    alone = Rows(part.table)
    assert plain(pickle.loads(pickle.dumps(alone))) == plain(part)


def test_cached_values_about_rows_are_kept_until_the_rows_change(root):
    found = []

    def find():
        found.append(1)
        return np.arange(3) + len(found)

    part = split(root, kind=ScoreRecipe)[0]
    assert [cached(part, "three", find).tolist() for _ in range(2)] == [[1, 2, 3]] * 2
    assert cached(part, "three, otherwise", find).tolist() == [2, 3, 4]
    assert cached(part[:3], "three", find).tolist() == [3, 4, 5]  # other rows
    write_mid(root / "midi/happy/another.mid", 30)
    run(root)
    part = split(root, kind=ScoreRecipe)[0]
    assert cached(part, "three", find).tolist() == [4, 5, 6]
    folder = next((root / "out/cache/index").glob("midi_generator-midi_train-*"))
    assert len(list(folder.glob("of-*"))) == 1  # what was worked out about other rows is gone


def test_a_second_preparation_reads_nothing_of_the_stores(root, monkeypatch):
    """Its numbers of notes and lengths are remembered: 8 GB of tokens would be read for them."""
    before = (root / "out/data/manifests/summary.json").read_text()
    monkeypatch.setattr("training.data.store.Store.get", lambda *a: pytest.fail("read"))
    assert run(root).up_to_date
    assert (root / "out/data/manifests/summary.json").read_text() == before
    assert json.loads(before)["notes"] == 72


def test_the_digest_of_an_index_is_that_of_its_rows_whatever_they_say(root):
    """Emotions in other bits (-0), whole numbers, keys of the user's own, in any order."""
    path = root / "out/data/manifests/midi_train.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["emotion"], lines[1]["emotion"], lines[2]["emotion"] = [0.0, 0, 1], [-0.0, 0.0, 1.0], [0.1] * 64
    lines[3] = {"_zweitens": {"é": [1, None]}, **lines[3], "_eins": "1"}
    path.write_text("".join(f" {json.dumps(line, ensure_ascii=False)} \n" for line in lines))
    split(root, kind=ScoreRecipe)
    both = {which: split(root, which, ScoreRecipe)[0] for which in ("train", "val")}
    assert all(isinstance(part, Shared) for part in both.values())
    assert data_digest(both) == data_digest({which: list(part) for which, part in both.items()}, SCHEMA)


@pytest.mark.parametrize("size", [1, 3, 1 << 14])
def test_texts_are_taken_out_of_their_column_in_parts(monkeypatch, size):
    monkeypatch.setattr(rows, "TEXTS_AT_ONCE", size)
    texts = ["one", "", "drei", "\udcff", "five", "a longer text", ""]
    column = Texts.of(texts)
    assert list(column) == texts
    assert [text.decode("utf-8", "surrogateescape") for text in column.every()] == texts
    assert [text.decode("utf-8", "surrogateescape") for text in column.every(2, 6)] == texts[2:6]
    for some in ([], [5], [6, 0, 5, 5, 3, 1], range(7)):
        assert list(column.take(np.array(some, np.int64))) == [texts[index] for index in some]


def test_records_can_be_read_in_blocks_of_any_size(root, monkeypatch):
    part = split(root, kind=ScoreRecipe)[0]
    files, wanted = part.table.files["midi_path"], np.array([5, 0, 3, 6])
    store = Store.at(part.table.cache / files.kind)
    for size in (64, 200, 1 << 22):
        monkeypatch.setattr(rows, "BLOCK", size)
        found = {}
        for places, held, starts, lengths in files.layout.blocks(store, "ids", wanted):
            for place, start, length in zip(places.tolist(), starts.tolist(), lengths.tolist(), strict=True):
                found[place] = held[start : start + 2 * length].view(np.uint16).tolist()
        assert found == {n: part[int(i)].records["midi_path"]["ids"].tolist() for n, i in enumerate(wanted)}
