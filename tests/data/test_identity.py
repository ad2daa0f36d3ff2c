"""The digest of the data follows its content alone, synthetic data is recognised, and splits must not overlap."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.data.schemas import PARTS, PICTURES
from training.data import digests, index
from training.data.encode import Encoder, encode_all
from training.data.identity import data_digest, is_marked_synthetic, is_synthetic, leaking_ids, refuse_leak
from training.data.index import Shared
from training.data.manifest import Row, load
from training.errors import DataError


def row(folder, name, content, grade=(0.1, 0.2, 0.3), **more):
    values = {"id": name, "image_path": str(folder / f"{name}.png"), "grade": list(grade), **more}
    return Row(values, "here:1", {"image_path": SimpleNamespace(key=content)})


def test_the_digest_depends_on_content_values_and_split_and_not_on_paths_or_names(tmp_path):
    def digest(folder="a", content=b"1", grade=(0.1, 0.2, 0.3), swap=False, **more):
        sides = [row(tmp_path / folder, "x", content, grade, **more)], [row(tmp_path / folder, "y", b"2")]
        return data_digest(dict(zip(("val", "train") if swap else ("train", "val"), sides, strict=True)), PICTURES)

    assert digest() == digest(folder="elsewhere") == digest(source="labels")
    others = {digest(content=b"3"), digest(grade=(0.1, 0.2, 0.4)), digest(swap=True), digest(offset=1)}
    assert len({digest(), *others}) == 5


def test_the_digest_includes_the_content_of_a_named_file_that_is_not_decoded(tmp_path):
    def digest(path, content):
        path.write_bytes(content)
        return data_digest({"train": [row(tmp_path, "x", b"1", preview_path=str(path))]}, PICTURES)

    first = digest(tmp_path / "a.bin", b"one")
    assert first == digest(tmp_path / "b.bin", b"one")
    assert first != digest(tmp_path / "b.bin", b"two")


def test_a_row_that_is_trained_on_and_held_out_is_refused_by_name(tmp_path):
    """Hand-written manifests may contain such rows."""
    rows = {"train": [row(tmp_path, "a", b"1")], "val": [row(tmp_path, "copy", b"1"), row(tmp_path, "b", b"2")]}
    with pytest.raises(DataError, match=r"1 of 2 held-out rows.*copy"):
        refuse_leak(rows)
    refuse_leak({"train": rows["train"], "val": rows["val"][1:]})


def test_files_under_a_marked_folder_are_synthetic(tmp_path):
    deep = tmp_path / "images" / "cats"
    deep.mkdir(parents=True)
    rows = {"train": [row(deep, "a", b"1")], "val": []}
    assert not is_synthetic(rows) and not is_marked_synthetic(None, deep)
    (tmp_path / "images" / "synthetic.json").write_text("{}")
    assert is_synthetic(rows) and is_marked_synthetic(None, deep)
    assert not is_marked_synthetic(tmp_path)


# -- rows of manifests: parts of files, and groups ---------------------------------------------------------------------


def decode(path: Path) -> dict[str, np.ndarray]:
    return {"bytes": np.frombuffer(path.read_bytes(), np.uint8)}


BYTES = Encoder("bytes", "bytes-1", decode)


@pytest.fixture
def load_split(tmp_path, monkeypatch):
    """load_split(name, rows, share) -> the rows of a manifest; with `share`, from an index, as in a training."""
    for module in (digests, index):
        monkeypatch.setattr(module, "SETTLED", -3600)
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "copy of a").write_bytes(b"a")

    def call(name, rows, share=True, schema=PARTS):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row | {"path": str(tmp_path / row["path"])}) + "\n" for row in rows))
        loaded = load(path, schema, path_keys=("path",))
        kept, _ = encode_all(loaded, {"path": BYTES}, tmp_path / "cache", 1, say=lambda _: None)
        if share:
            origin = index.Origin(path.read_text(), {}, {})
            kept = index.write(tmp_path / "index" / name / "rows", kept.table, origin)
            assert isinstance(kept, Shared) and kept.table.schema is schema
        return kept

    return call


def part(path, begin=None, end=None, **more):
    return {"path": path} | ({} if begin is None else {"begin": begin, "end": end}) | more


@pytest.mark.parametrize("share", [True, False], ids=["indexed", "in memory"])
@pytest.mark.parametrize(
    ("train", "held_out", "leaks"),
    [
        ([part("a", 0, 10)], part("a", 10, 20), False),
        ([part("a", 0, 10)], part("copy of a", 9.5, 20), True),
        ([part("a", 30, 40), part("a", 0, 100), part("a", 41, 42)], part("a", 50, 60), True),  # within a longer part
        ([part("a", 0, 1), part("a", 2, 3), part("b", 1, 2)], part("a", 1, 2), False),
        ([part("a", 0, 10)], part("a"), True),  # the complete file
        ([part("a")], part("copy of a", 5, 6), True),
        ([part("a")], part("b"), False),
        ([part("a", device="x")], part("b", device="x"), True),
        ([part("a", device="x"), part("c", 0, 1)], part("b"), False),  # without a group
        ([part("a", 0, 10, device="x")], part("a", 10, 20, device="x"), True),
    ],
)
def test_parts_leak_where_they_overlap_and_groups_where_they_are_the_same(load_split, train, held_out, leaks, share):
    rows = {"train": load_split("train", train, share), "val": load_split("val", [part("c", 7, 8), held_out], share)}
    leaking = leaking_ids(rows)
    assert leaking == ([str(rows["val"][1].values["id"])] if leaks else [])
    assert leaking == leaking_ids(rows), "the cached result is the same"
    assert leaking == leaking_ids({split: list(of_split) for split, of_split in rows.items()}, PARTS)


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(("train", "val", "test"), 2)))
def test_every_pair_of_splits_is_checked(load_split, first, second):
    content = {"train": [part("a")], "val": [part("b")], "test": [part("c")]}
    refuse_leak({split: load_split(split, rows) for split, rows in content.items()})
    content[second] = [*content[first], *content[second]]
    rows = {split: load_split(split, of_split) for split, of_split in content.items()}
    which = {"train": "trained on", "val": "held out for validation"}[first]
    with pytest.raises(DataError, match=rf"1 of 2 {'test' if second == 'test' else 'held-out'} rows are {which} too"):
        refuse_leak(rows)


def test_the_fast_digest_equals_the_general_one_with_defaults_parts_and_groups(load_split):
    lines = [part("a", 0, 1), part("b", device="x"), part("c", level=3, _mine=[1]), part("c", level=1)]
    shared = load_split("train", lines)
    assert data_digest({"train": shared}) == data_digest({"train": list(shared)}, PARTS)
    other = load_split("train", [part("a", 0, 2), *lines[1:]])
    assert data_digest({"train": shared}) != data_digest({"train": other}), "another part of the file"
