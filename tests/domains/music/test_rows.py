"""Rows of music's manifests: invalid emotions, scores, recordings and clouds are refused with their line."""

from pathlib import Path

import pytest

from tests.data.manifests import Loading, fill
from tests.data.manifests import write as file
from training.domains.music.rows import SCHEMA

KEYS = ("audio_path", "midi_path")
ROW = {"audio_path": "audio/happy/t.wav", "midi_path": "midi/happy/t.mid", "emotion": [0.8, -0.7, 0.7]}
LOADING = Loading(SCHEMA, KEYS, ROW)
row, load, refusal = LOADING.row, LOADING.load, LOADING.refusal


@pytest.fixture
def corpus(tmp_path):
    """root/audio/happy/t.wav and root/midi/happy/t.mid; manifests are in root/out."""
    return fill(tmp_path, ("audio/happy/t.wav", "audio/t.wav", "midi/happy/t.mid", "out/manifests/here.mid"))


def test_a_handwritten_row_needs_neither_id_nor_label_source(corpus):
    """Both are filled in, and ids are unique."""
    rows = load(file(corpus, row(corpus), row(corpus), b"", row(corpus, id="x", label_source="labels", _mine={"a": 1})))
    assert [Path(r.values["audio_path"]).is_absolute() for r in rows] == [True] * 3
    assert len({r.values["id"] for r in rows}) == 3
    assert [r.values["label_source"] for r in rows] == ["manifest", "manifest", "labels"]
    assert rows[0].values["emotion"] == [0.8, -0.7, 0.7], "negative arousal is valid"
    assert [r.place.rpartition(":")[2] for r in rows] == ["1", "2", "4"]


def test_a_missing_manifest_is_reported_with_the_command_that_builds_it(corpus):
    message = refusal(corpus / "nowhere.jsonl")
    assert "nowhere.jsonl" in message
    assert "build_manifests.py" in message


@pytest.mark.parametrize(
    ("change", "expected"),
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
        ({"time_map": []}, "should be a list of [score seconds, recording seconds]"),
        ({"time_map": [1, 2]}, "its entry 1 is 1"),
        ({"time_map": [[0, 0], [1]]}, "its entry 2 is [1]"),
        ({"time_map": [[0, "0"]]}, "its entry 1"),
        ({"time_map": [[0, 0], [1, 2], [2, 2]]}, "both times should ascend; [2, 2] follows [1, 2]"),
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
def test_each_fault_of_a_row_is_reported_with_its_line(corpus, change, expected):
    message = refusal(file(corpus, row(corpus), row(corpus, **change)))
    assert "m.jsonl:2: " in message
    assert expected in message


def test_the_error_for_a_moved_file_has_the_option_for_its_folder(corpus):
    assert "give --audio-root" in refusal(file(corpus, row(corpus, audio_path="/elsewhere/t.wav")))


def test_clouds_are_found_next_to_their_manifest_on_another_host(corpus):
    (corpus / "out" / "clouds").mkdir()
    (corpus / "out" / "clouds" / "c.npy").write_bytes(b"x")
    rows = load(file(corpus, row(corpus, target_pointcloud_path="/old/host/data/clouds/c.npy")))
    assert rows[0].values["target_pointcloud_path"] == str(corpus / "out" / "clouds" / "c.npy")


def test_the_error_for_a_line_that_is_not_an_object_has_an_example(corpus):
    assert '{"midi_path": ..., "emotion": [...]}' in refusal(file(corpus, []))
