"""What a run knows of its data: the same songs are the same data, and none is on both sides."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from training.data.identity import data_digest, is_synthetic
from training.data.manifest import Row
from training.errors import DataError
from training.stages.train import refuse_leak


def row(folder, name, content, emotion=(0.1, 0.2, 0.3)):
    values = {"id": name, "midi_path": str(folder / f"{name}.mid"), "emotion": list(emotion)}
    return Row(values, "here:1", {"midi_path": SimpleNamespace(key=content)})


def test_the_digest_follows_content_emotion_and_side_but_no_path(tmp_path):
    def digest(folder="a", content=b"1", emotion=(0.1, 0.2, 0.3), swap=False):
        sides = [row(tmp_path / folder, "x", content, emotion)], [row(tmp_path / folder, "y", b"2")]
        return data_digest(dict(zip(("val", "train") if swap else ("train", "val"), sides, strict=True)))

    assert digest() == digest(folder="elsewhere")
    assert len({digest(), digest(content=b"3"), digest(emotion=(0.1, 0.2, 0.4)), digest(swap=True)}) == 4


def test_a_song_trained_on_and_held_out_is_refused_by_name(tmp_path):
    """P10, for manifests written by hand."""
    rows = {"train": [row(tmp_path, "a", b"1")], "val": [row(tmp_path, "copy", b"1"), row(tmp_path, "b", b"2")]}
    with pytest.raises(DataError, match=r"1 of 2 held-out rows.*copy"):
        refuse_leak(rows)
    refuse_leak({"train": rows["train"], "val": rows["val"][1:]})


def test_files_under_a_marked_folder_are_synthetic(tmp_path):
    """P4"""
    deep = tmp_path / "midi" / "happy"
    deep.mkdir(parents=True)
    rows = {"train": [row(deep, "a", b"1")], "val": []}
    assert not is_synthetic(rows)
    (tmp_path / "midi" / "synthetic.json").write_text("{}")
    assert is_synthetic(rows)
