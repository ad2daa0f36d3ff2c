"""Encoding: each missing content is decoded once, stale results are never used, unreadable files are quarantined."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from training.data import digests, encode
from training.data.encode import Encoder, encode_all, encode_files
from training.data.manifest import Row
from training.errors import DataError
from training.host import slow_factor

sys.path.insert(0, str(Path(__file__).parent))
import hostile_decoders as hostile

NUMBERS = Encoder("numbers", "1", hostile.by_name, seconds=4.0, megabytes=200)
HASTY = Encoder("numbers", "1", hostile.by_name, seconds=0.5, megabytes=200)


@pytest.fixture
def folder(tmp_path):
    def make(**texts: str) -> list[Row]:
        rows = []
        for number, (name, text) in enumerate(texts.items(), 1):
            (tmp_path / name).write_text(text)
            rows.append(Row({"path": str(tmp_path / name), "id": name}, f"m.jsonl:{number}"))
        return rows

    return make


def run(rows, tmp_path, encoder=NUMBERS, **options):
    messages = []
    out = encode_all(rows, {"path": encoder}, tmp_path / "cache", 2, say=messages.append, **options)
    return *out, "\n".join(messages)


def test_rows_come_back_in_order_with_their_arrays(folder, tmp_path):
    rows = folder(**{f"f{n}": f"{n} {n + 1}" for n in range(30)})
    kept, refused, output = run(rows, tmp_path)
    assert not refused
    assert [row.values["id"] for row in kept] == [f"f{n}" for n in range(30)]
    for n, row in enumerate(kept):
        assert row.records["path"]["values"].tolist() == [n, n + 1]
    assert "30 files decoded" in output


def test_bad_files_are_listed_with_reasons_and_good_ones_kept(folder, tmp_path):
    """A hang, a crash and a decoder that uses too much memory are among them."""
    good = {f"g{n}": str(n) for n in range(24)}
    rows = folder(a="bad", b="crash", c="hang", d="eat", e="odd", **good)
    listing = tmp_path / "quarantine.jsonl"
    kept, refused, _ = run(rows, tmp_path, quarantine=listing)
    assert [row.values["id"] for row in kept] == list(good)
    reasons = {Path(item.path).name: item.reason for item in refused}
    assert reasons["a"] == "its header is damaged"
    assert "SIGSEGV" in reasons["b"]
    assert f"longer than {4 * slow_factor()} s" in reasons["c"]
    assert "memory" in reasons["d"]
    assert "KeyError" in reasons["e"]
    lines = [json.loads(line) for line in listing.read_text().splitlines()]
    assert [(line["kind"], line["place"]) for line in lines] == [("numbers", f"m.jsonl:{n}") for n in range(1, 6)]


def test_too_many_bad_files_are_an_error_that_states_the_reasons(folder, tmp_path):
    """One bad file in five is accepted, more are not; quarantine.jsonl is written in both cases."""
    kept, refused, _ = run(folder(a="bad", **{f"g{n}": "1" for n in range(4)}), tmp_path)
    assert (len(kept), len(refused)) == (4, 1)
    listing = tmp_path / "q.jsonl"
    with pytest.raises(DataError, match=r"2 of 9 files could not be decoded(.|\n)*its header is damaged"):
        run(folder(a="bad", b="bad 2", **{f"h{n}": f"{n} 7" for n in range(7)}), tmp_path, quarantine=listing)
    assert len(listing.read_text().splitlines()) == 2


def test_a_run_without_any_readable_row_is_refused(folder, tmp_path):
    with pytest.raises(DataError, match="No row is left"):
        run(folder(a="bad"), tmp_path, too_many=1.0)


def test_a_second_run_decodes_nothing(folder, tmp_path, monkeypatch):
    rows = folder(a="1", b="2")
    run(rows, tmp_path)
    monkeypatch.setattr(encode.sandbox, "run", lambda *a, **k: pytest.fail("decoded again"))
    kept, _, output = run(rows, tmp_path)
    assert [row.records["path"]["values"].tolist() for row in kept] == [[1], [2]]
    assert output == ""


def test_equal_contents_are_decoded_once(folder, tmp_path):
    kept, _, output = run(folder(a="5", b="5", c="5"), tmp_path)
    assert "1 file decoded" in output
    assert [row.records["path"]["values"].tolist() for row in kept] == [[5]] * 3


def test_an_edited_file_is_decoded_again(folder, tmp_path, monkeypatch):
    """Even if its size and mtime are unchanged and its old digest is cached."""
    monkeypatch.setattr(digests, "SETTLED", -3600)
    rows = folder(a="1")
    run(rows, tmp_path)
    path = tmp_path / "a"
    about = path.stat()
    path.write_text("2")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert run(rows, tmp_path)[0][0].records["path"]["values"].tolist() == [2]


def test_a_moved_file_is_not_decoded_again(folder, tmp_path, monkeypatch):
    """The key of a record is the content of the file, not its path."""
    run(folder(a="1 2"), tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    monkeypatch.setattr(encode.sandbox, "run", lambda *a, **k: pytest.fail("decoded again"))
    records, _ = encode_files([tmp_path / "b"], NUMBERS, tmp_path / "cache")
    assert records[tmp_path / "b"]["values"].tolist() == [1, 2]


def test_a_new_encoder_version_decodes_again(folder, tmp_path):
    """The version is part of the key."""
    rows = folder(a="3")
    run(rows, tmp_path)
    newer = Encoder("numbers", "2", hostile.by_name, seconds=1.0, megabytes=200)
    messages = []
    encode_all(rows, {"path": newer}, tmp_path / "cache", 1, say=messages.append)
    assert "1 file decoded" in messages[0]


def test_a_file_that_changes_between_digest_and_decoding_is_not_stored(folder, tmp_path, monkeypatch):
    """Else the new content would be stored under the digest of the old one."""
    rows = folder(a="1", b="2")
    real = encode.sandbox.run

    def edited(*args, **options):
        (tmp_path / "a").write_text("9")
        return real(*args, **options)

    monkeypatch.setattr(encode.sandbox, "run", edited)
    kept, refused, _ = run(rows, tmp_path, too_many=0.5)
    assert [row.values["id"] for row in kept] == ["b"]
    assert "changed while it was read" in refused[0].reason
    monkeypatch.undo()
    (tmp_path / "a").write_text("1")
    assert run(rows, tmp_path)[0][0].records["path"]["values"].tolist() == [1]


def test_a_file_that_timed_out_is_tried_again_only_with_a_longer_limit(folder, tmp_path, monkeypatch):
    """A second run must not wait for the same time limit again."""
    rows = folder(a="hang", **{f"g{n}": str(n) for n in range(5)})
    run(rows, tmp_path, HASTY, too_many=0.9)
    tried = []

    def watch(function, items, **limits):
        tried.extend(items)
        yield from ()

    monkeypatch.setattr(encode.sandbox, "run", watch)
    refused = run(rows, tmp_path, HASTY, too_many=0.9)[1]
    assert "in an earlier run" in next(item.reason for item in refused if item.path.endswith("/a"))
    assert str(tmp_path / "a") not in tried
    encode_files([tmp_path / "a"], NUMBERS, tmp_path / "cache")
    assert str(tmp_path / "a") in tried


def test_a_row_is_refused_if_any_of_its_files_is(tmp_path):
    for name, text in {"x": "1", "y": "bad", "z": "3"}.items():
        (tmp_path / name).write_text(text)
    rows = [
        Row({"one": str(tmp_path / "x"), "two": str(tmp_path / "z")}, "m:1"),
        Row({"one": str(tmp_path / "x"), "two": str(tmp_path / "y")}, "m:2"),
    ]
    both = {"one": NUMBERS, "two": NUMBERS}
    kept, refused = encode_all(rows, both, tmp_path / "cache", 1, too_many=0.5, say=lambda _: None)
    assert [row.place for row in kept] == ["m:1"]
    assert [(Path(item.path).name, item.place) for item in refused] == [("y", "m:2")]
    assert isinstance(kept[0].records["two"]["values"], np.ndarray)
