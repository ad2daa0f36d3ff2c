"""Manifests: all bad lines are reported at once, with their numbers, before training starts."""

import json
import os
import pickle
import unicodedata
from pathlib import Path

import pytest

from tests.data.manifests import Loading, fill
from tests.data.manifests import write as file
from tests.data.schemas import PARTS, PICTURES
from training.data import manifest
from training.errors import DataError

KEYS = ("image_path", "mask_path")
ROW = {"image_path": "images/cats/t.png", "mask_path": "masks/cats/t.pgm", "grade": [0.8, -0.7, 0.7]}
LOADING = Loading(PICTURES, KEYS, ROW)
row, load, refusal = LOADING.row, LOADING.load, LOADING.refusal


@pytest.fixture
def corpus(tmp_path):
    """root/images/cats/t.png and root/masks/cats/t.pgm; manifests are in root/out."""
    return fill(tmp_path, ("images/cats/t.png", "images/t.png", "masks/cats/t.pgm", "out/manifests/here.pgm"))


def test_a_handwritten_row_gets_a_unique_id_and_the_defaults(corpus):
    rows = load(file(corpus, row(corpus), row(corpus), b"", row(corpus, id="x", source="labels", _mine={"a": 1})))
    assert [Path(r.values["image_path"]).is_absolute() for r in rows] == [True] * 3
    assert len({r.values["id"] for r in rows}) == 3
    assert [r.values["source"] for r in rows] == ["manifest", "manifest", "labels"]
    assert rows[0].values["grade"] == [0.8, -0.7, 0.7]
    assert [r.place.rpartition(":")[2] for r in rows] == ["1", "2", "4"]


def test_the_error_for_a_missing_manifest_names_the_command_that_builds_it(corpus):
    message = refusal(corpus / "nowhere.jsonl")
    assert "nowhere.jsonl" in message
    assert "build_pictures.py" in message
    os.mkfifo(corpus / "pipe.jsonl")
    assert "FIFO" in refusal(corpus / "pipe.jsonl")


@pytest.mark.parametrize("content", [b"", b"\n\n  \n"])
def test_an_empty_manifest_is_refused(corpus, content):
    path = file(corpus)
    path.write_bytes(content)
    assert "empty" in refusal(path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"grade": None}, "`grade` is missing"),
        ({"grade": [0.1]}, "three numbers"),
        ({"grade": "good"}, "'good'"),
        ({"grade": [1.2, 0, 0.5]}, "it is 1.2"),
        ({"grade": [0, 0, True]}, "True"),
        ({"grade": [0, 0, 10**400]}, "a number from -1 to 1"),
        ({"image_path": None}, "`image_path` is missing"),
        ({"image_path": ""}, "should be the path"),
        ({"image_path": 5}, "it is 5"),
        ({"image_path": ["x.png"]}, "should be the path"),
        ({"image_path": "a\0b.png"}, "NUL"),
        ({"mask_path": "/no/such.pgm"}, "no such file"),
        ({"mask_path": "/"}, "folder"),
        ({"id": 7}, "`id` should be a text"),
        ({"id": ""}, "`id` should be a text"),
        ({"source": 1}, "`source` should be a text"),
        ({"garde": [0, 0, 0]}, "did you mean `grade`?"),
        ({"png": "x"}, "known are image_path"),
        ({"preview_path": "none.npz"}, "preview_path"),
        ({"offset": -1}, "seconds"),
    ],
)
def test_each_fault_of_a_row_is_reported_with_its_line(corpus, change, expected):
    message = refusal(file(corpus, row(corpus), row(corpus, **change)))
    assert "m.jsonl:2: " in message
    assert expected in message


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"{", "valid JSON"),
        (b"[]", "JSON object"),
        (b"null", "JSON object"),
        (b'"text"', "JSON object"),
        (b'{"grade": [NaN, 0, 0]}', "NaN"),
        (b'{"grade": [0, 0, -Infinity]}', "-Infinity"),
        (b'{"grade": [0,0,0], "grade": [0,0,1]}', "the key `grade` occurs twice"),
        (b"\xff\xfe{}", "UTF-8"),
        (b'{"a": 1} {"b": 2}', "valid JSON"),
        (b'{"grade": [0, 0, 0]} // comment', "valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_lines_that_are_not_json_objects_are_reported(corpus, line, expected):
    message = refusal(file(corpus, line, row(corpus)))
    assert "m.jsonl:1: " in message
    assert expected in message


def test_all_bad_lines_are_reported_at_once_up_to_a_limit(corpus):
    message = refusal(file(corpus, *[row(corpus, grade=[n]) for n in range(50)]))
    assert "50 bad lines" in message
    assert message.count("m.jsonl:") == manifest.MOST_SHOWN
    assert "30 more" in message


def test_the_error_for_a_duplicate_id_names_both_lines(corpus):
    message = refusal(file(corpus, row(corpus, id="a"), row(corpus, id="b"), row(corpus, id="a")))
    assert "m.jsonl:3: `id` 'a' is already the id of line 1" in message


def test_an_error_of_the_familys_check_is_reported_with_the_line(corpus):
    def check(values):
        raise ValueError("too short")

    assert "m.jsonl:1: too short" in refusal(file(corpus, row(corpus)), check=check)


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(corpus):
    path = file(corpus)
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(row(corpus)).encode() + b"\r\n")
    assert len(load(path)) == 1


def test_a_fifo_in_a_row_is_refused_and_not_opened(corpus):
    os.mkfifo(corpus / "pipe.png")
    assert "FIFO" in refusal(file(corpus, row(corpus, image_path=str(corpus / "pipe.png"))))


# -- paths ---------------------------------------------------------------------------------------------------------


def paths(corpus: Path, text: str, **options) -> str:
    rows = load(file(corpus, row(corpus, image_path=text)), **options)
    return str(Path(rows[0].values["image_path"]).relative_to(corpus))


@pytest.mark.parametrize(
    ("elsewhere", "here"),
    [
        ("/mnt/host/images/cats/t.png", "images/cats/t.png"),
        ("/data/cats/t.png", "images/cats/t.png"),
        ("/t.png", "images/t.png"),
        ("/other/folder/t.png", "images/t.png"),
        ("C:\\Pictures\\images\\cats\\t.png", "images/cats/t.png"),
        ("\\\\server\\share\\cats\\t.png", "images/cats/t.png"),
        ("cats/t.png", "images/cats/t.png"),
    ],
)
def test_paths_of_another_host_are_found_by_their_longest_ending(corpus, elsewhere, here):
    assert paths(corpus, elsewhere, roots={"image_path": corpus / "images"}) == here


def test_a_path_that_exists_is_kept(corpus):
    other = corpus / "other"
    (other / "cats").mkdir(parents=True)
    (other / "cats" / "t.png").write_bytes(b"y")
    assert paths(corpus, str(corpus / "images/cats/t.png"), roots={"image_path": other}) == "images/cats/t.png"


def test_a_path_with_dots_never_leads_out_of_the_root(corpus):
    secret = corpus / "secret.png"
    secret.write_bytes(b"x")
    message = refusal(
        file(corpus, row(corpus, image_path="/elsewhere/../../secret.png")),
        roots={"image_path": corpus / "images" / "cats"},
    )
    assert "no such file" in message
    assert "--image-root" in message


def test_relative_paths_are_looked_up_next_to_the_manifest_then_in_the_working_directory(corpus, monkeypatch):
    path = file(corpus, *({"mask_path": text, "grade": [0, 0, 0]} for text in ("here.pgm", "masks/cats/t.pgm")))
    monkeypatch.chdir(corpus)
    rows = load(path, keys=("mask_path",))
    assert [r.values["mask_path"] for r in rows] == [
        str(corpus / "out/manifests/here.pgm"),
        str(corpus / "masks/cats/t.pgm"),
    ]


def test_the_error_for_a_moved_file_names_the_option(corpus):
    assert "give --image-root" in refusal(file(corpus, row(corpus, image_path="/elsewhere/t.png")))


def test_a_file_is_found_in_any_unicode_form_of_its_name(corpus):
    name = corpus / "images" / unicodedata.normalize("NFD", "été.png")
    name.write_bytes(b"x")
    rows = load(file(corpus, row(corpus, image_path=str(corpus / "images" / unicodedata.normalize("NFC", "été.png")))))
    assert Path(rows[0].values["image_path"]).is_file()


def test_files_in_a_workspace_folder_are_found_next_to_a_copied_manifest(corpus):
    (corpus / "out" / "previews").mkdir()
    (corpus / "out" / "previews" / "c.npz").write_bytes(b"x")
    rows = load(file(corpus, row(corpus, preview_path="/old/host/data/previews/c.npz")))
    assert rows[0].values["preview_path"] == str(corpus / "out" / "previews" / "c.npz")


def test_unusual_names_are_the_same_after_writing_and_loading(corpus):
    """A space, quote, newline or leading dash in a name, for example."""
    written = []
    for name in ("a b", "it's", 'q"q', "new\nline", "-rf", "$(x)", "back\\slash", "été", "日本"):
        path = corpus / "masks" / f"{name}.pgm"
        path.write_bytes(b"x")
        written.append({"mask_path": str(path), "grade": [0.0, 0.0, 0.5], "id": name, "source": "path"})
    path = corpus / "w.jsonl"
    assert manifest.write(path, written)
    assert not manifest.write(path, written)
    assert [dict(r.values) for r in load(path, keys=("mask_path",))] == written


# -- parts of files, and groups ----------------------------------------------------------------------------------------


def parts(corpus: Path, *changes: dict) -> Path:
    return file(corpus, *({"path": str(corpus / "images/t.png"), **change} for change in changes))


def test_rows_may_use_parts_of_files(corpus):
    path = parts(corpus, {"begin": 0, "end": 1.5}, {"begin": 1.5, "end": 3, "device": "a"}, {"device": 7})
    rows = manifest.load(path, PARTS, path_keys=("path",))
    assert [(row.values.get("begin"), row.values.get("end")) for row in rows] == [(0, 1.5), (1.5, 3), (None, None)]
    assert [row.values["level"] for row in rows] == [1, 1, 1], "the default"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"begin": 1}, "`end` is missing: a row has both `begin` and `end`, or neither"),
        ({"end": 1}, "`begin` is missing"),
        ({"begin": -1, "end": 1}, "`begin` should be a number from 0 up; it is -1"),
        ({"begin": 0, "end": "1"}, "`end` should be a number"),
        ({"begin": 2, "end": 2}, "`begin` 2 is not before `end` 2"),
        ({"device": ["a"]}, "`device` should be a text or a number"),
        ({"bgein": 2}, "did you mean `begin`?"),
    ],
)
def test_an_invalid_part_or_group_is_refused_with_its_line(corpus, change, expected):
    with pytest.raises(DataError, match=r"m\.jsonl:2: ") as error:
        manifest.load(parts(corpus, {}, change), PARTS, path_keys=("path",))
    assert expected in str(error.value)


def test_a_row_without_a_file_needs_an_id(corpus):
    rows = manifest.load(file(corpus, {"id": "a", "level": 2}), PARTS, path_keys=())
    assert rows[0].values["id"] == "a"
    with pytest.raises(DataError, match="`id` is missing"):
        manifest.load(file(corpus, {"level": 2}), PARTS, path_keys=())


def test_a_schema_is_pickled_by_its_place():
    assert pickle.loads(pickle.dumps(PARTS)) is PARTS
