"""Manifests: refused before training, every bad line at once with its number. P4, P16."""

import json
import os
import unicodedata
from pathlib import Path

import pytest

from training.data import manifest
from training.errors import DataError

KEYS = ("audio_path", "midi_path")


@pytest.fixture
def corpus(tmp_path):
    """root/audio/happy/t.wav and root/midi/happy/t.mid; manifests lie in root/out."""
    for name in ("audio/happy/t.wav", "audio/t.wav", "midi/happy/t.mid", "out/manifests/here.mid"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def row(corpus: Path, **changes) -> dict:
    base = {
        "audio_path": str(corpus / "audio/happy/t.wav"),
        "midi_path": str(corpus / "midi/happy/t.mid"),
        "emotion": [0.8, -0.7, 0.7],
    }
    return {key: value for key, value in {**base, **changes}.items() if value is not None}


def file(corpus: Path, *lines) -> Path:
    path = corpus / "out" / "manifests" / "m.jsonl"
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"\n".join(texts) + b"\n")
    return path


def load(path: Path, keys=KEYS, **options):
    return manifest.load(path, path_keys=keys, **options)


def refusal(path: Path, **options) -> str:
    with pytest.raises(DataError) as error:
        load(path, **options)
    assert error.value.exit_code == 3
    return str(error.value)


def test_a_handwritten_row_is_as_good_as_a_built_one(corpus):
    """Neither id nor label_source is needed; both are there afterwards, and ids are unique."""
    rows = load(file(corpus, row(corpus), row(corpus), b"", row(corpus, id="x", label_source="labels", _mine={"a": 1})))
    assert [Path(r.values["audio_path"]).is_absolute() for r in rows] == [True] * 3
    assert len({r.values["id"] for r in rows}) == 3
    assert [r.values["label_source"] for r in rows] == ["manifest", "manifest", "labels"]
    assert rows[0].values["emotion"] == [0.8, -0.7, 0.7], "negative arousal is legal"
    assert [r.place.rpartition(":")[2] for r in rows] == ["1", "2", "4"]


def test_a_missing_manifest_says_what_to_do_and_makes_nothing_up(corpus):
    """P4."""
    message = refusal(corpus / "nowhere.jsonl")
    assert "nowhere.jsonl" in message
    assert "build_manifests.py" in message
    os.mkfifo(corpus / "pipe.jsonl")
    assert "FIFO" in refusal(corpus / "pipe.jsonl")


@pytest.mark.parametrize("content", [b"", b"\n\n  \n"])
def test_an_empty_manifest_is_refused(corpus, content):
    path = file(corpus)
    path.write_bytes(content)
    assert "empty" in refusal(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"emotion": None}, "`emotion` is missing"),
        ({"emotion": []}, "length 0"),
        ({"emotion": [0.1, 0.2]}, "length 2"),
        ({"emotion": [0.1] * 4}, "length 4"),
        ({"emotion": [0.1] * 63}, "length 63"),
        ({"emotion": "happy"}, "'happy'"),
        ({"emotion": {"v": 1}}, "dict"),
        ({"emotion": [1.2, 0, 0.5]}, "valence should be a number from -1 to 1; it is 1.2"),
        ({"emotion": [0, -1.01, 0.5]}, "arousal"),
        ({"emotion": [0, 0, -0.1]}, "intensity should be a number from 0 to 1"),
        ({"emotion": [0, 0, True]}, "True"),
        ({"emotion": [0, 0, "0.5"]}, "'0.5'"),
        ({"emotion": [0, 0, None]}, "None"),
        ({"emotion": [0, 0, 10**400]}, "intensity"),
        ({"emotion": [0.0] * 63 + [1.5]}, "number 64"),
        ({"audio_path": None}, "`audio_path` is missing"),
        ({"audio_path": ""}, "should be the path"),
        ({"audio_path": 5}, "it is 5"),
        ({"audio_path": ["x.wav"]}, "should be the path"),
        ({"audio_path": "a\0b.wav"}, "NUL"),
        ({"midi_path": "/no/such.mid"}, "no such file"),
        ({"midi_path": "/"}, "folder"),
        ({"id": 7}, "`id` should be a text"),
        ({"id": ""}, "`id` should be a text"),
        ({"label_source": 1}, "`label_source` should be a text"),
        ({"emotoin": [0, 0, 0]}, "did you mean `emotion`?"),
        ({"wav": "x"}, "known are audio_path"),
        ({"target_pointcloud_path": "none.npy"}, "target_pointcloud_path"),
        ({"target_pointcloud_start": -1}, "seconds"),
    ],
)
def test_each_fault_of_a_row_is_told_with_its_line(corpus, change, told):
    message = refusal(file(corpus, row(corpus), row(corpus, **change)))
    assert "m.jsonl:2: " in message
    assert told in message


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"{", "valid JSON"),
        (b"[]", "JSON object"),
        (b"null", "JSON object"),
        (b'"text"', "JSON object"),
        (b'{"emotion": [NaN, 0, 0]}', "NaN"),
        (b'{"emotion": [0, 0, -Infinity]}', "-Infinity"),
        (b'{"emotion": [0,0,0], "emotion": [0,0,1]}', "`emotion` is there twice"),
        (b"\xff\xfe{}", "UTF-8"),
        (b'{"a": 1} {"b": 2}', "valid JSON"),
        (b'{"emotion": [0, 0, 0]} // comment', "valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_lines_that_are_no_json_objects_are_told(corpus, line, told):
    message = refusal(file(corpus, line, row(corpus)))
    assert "m.jsonl:1: " in message
    assert told in message


def test_all_bad_lines_are_told_at_once_up_to_a_number(corpus):
    message = refusal(file(corpus, *[row(corpus, emotion=[n]) for n in range(50)]))
    assert "50 bad lines" in message
    assert message.count("m.jsonl:") == manifest.MOST_SHOWN
    assert "30 more" in message


def test_doubled_ids_name_both_lines(corpus):
    message = refusal(file(corpus, row(corpus, id="a"), row(corpus, id="b"), row(corpus, id="a")))
    assert "m.jsonl:3: `id` 'a' is that of line 1 too" in message


def test_a_familys_own_check_is_told_with_the_line(corpus):
    def check(values):
        raise ValueError("too short")

    assert "m.jsonl:1: too short" in refusal(file(corpus, row(corpus)), check=check)


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(corpus):
    path = file(corpus)
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(row(corpus)).encode() + b"\r\n")
    assert len(load(path)) == 1


def test_a_fifo_in_a_row_is_refused_and_not_opened(corpus):
    """P17."""
    os.mkfifo(corpus / "pipe.wav")
    assert "FIFO" in refusal(file(corpus, row(corpus, audio_path=str(corpus / "pipe.wav"))))


# -- paths ---------------------------------------------------------------------------------------------------------


def paths(corpus: Path, text: str, **options) -> str:
    rows = load(file(corpus, row(corpus, audio_path=text)), **options)
    return str(Path(rows[0].values["audio_path"]).relative_to(corpus))


@pytest.mark.parametrize(
    ("elsewhere", "here"),
    [
        ("/mnt/host/audio/happy/t.wav", "audio/happy/t.wav"),
        ("/data/happy/t.wav", "audio/happy/t.wav"),
        ("/t.wav", "audio/t.wav"),
        ("/other/folder/t.wav", "audio/t.wav"),
        ("C:\\Music\\audio\\happy\\t.wav", "audio/happy/t.wav"),
        ("\\\\server\\share\\happy\\t.wav", "audio/happy/t.wav"),
        ("happy/t.wav", "audio/happy/t.wav"),
    ],
)
def test_paths_of_another_host_are_found_by_their_longest_ending(corpus, elsewhere, here):
    """P16."""
    assert paths(corpus, elsewhere, audio_root=corpus / "audio") == here


def test_a_path_that_exists_is_kept(corpus):
    other = corpus / "other"
    (other / "happy").mkdir(parents=True)
    (other / "happy" / "t.wav").write_bytes(b"y")
    assert paths(corpus, str(corpus / "audio/happy/t.wav"), audio_root=other) == "audio/happy/t.wav"


def test_a_root_is_never_left(corpus):
    secret = corpus / "secret.wav"
    secret.write_bytes(b"x")
    message = refusal(
        file(corpus, row(corpus, audio_path="/elsewhere/../../secret.wav")), audio_root=corpus / "audio" / "happy"
    )
    assert "no such file" in message
    assert "--audio-root" in message


def test_relative_paths_mean_beside_the_manifest_then_where_the_user_stands(corpus, monkeypatch):
    path = file(corpus, *({"midi_path": text, "emotion": [0, 0, 0]} for text in ("here.mid", "midi/happy/t.mid")))
    monkeypatch.chdir(corpus)
    rows = load(path, keys=("midi_path",))
    assert [r.values["midi_path"] for r in rows] == [
        str(corpus / "out/manifests/here.mid"),
        str(corpus / "midi/happy/t.mid"),
    ]


def test_a_moved_file_that_is_not_found_names_the_option(corpus):
    assert "give --audio-root" in refusal(file(corpus, row(corpus, audio_path="/elsewhere/t.wav")))


def test_accents_are_found_in_whichever_form_the_disk_has_them(corpus):
    name = corpus / "audio" / unicodedata.normalize("NFD", "été.wav")
    name.write_bytes(b"x")
    rows = load(file(corpus, row(corpus, audio_path=str(corpus / "audio" / unicodedata.normalize("NFC", "été.wav")))))
    assert Path(rows[0].values["audio_path"]).is_file()


def test_clouds_follow_their_manifest_to_another_host(corpus):
    (corpus / "out" / "clouds").mkdir()
    (corpus / "out" / "clouds" / "c.npy").write_bytes(b"x")
    rows = load(file(corpus, row(corpus, target_pointcloud_path="/old/host/data/clouds/c.npy")))
    assert rows[0].values["target_pointcloud_path"] == str(corpus / "out" / "clouds" / "c.npy")


def test_odd_names_survive_writing_and_loading(corpus):
    """P16: a space, quote, newline or leading dash in a name."""
    written = []
    for name in ("a b", "it's", 'q"q', "new\nline", "-rf", "$(x)", "back\\slash", "été", "日本"):
        path = corpus / "midi" / f"{name}.mid"
        path.write_bytes(b"x")
        written.append({"midi_path": str(path), "emotion": [0.0, 0.0, 0.5], "id": name, "label_source": "path"})
    path = corpus / "w.jsonl"
    assert manifest.write(path, written)
    assert not manifest.write(path, written)
    assert [dict(r.values) for r in load(path, keys=("midi_path",))] == written
