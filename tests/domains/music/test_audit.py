"""`prepare --audit` lists the song whose label was swapped, on the console and in audit.json."""

from __future__ import annotations

import json
import shutil

import pytest

from training.cli import main
from training.domains.music.composing.compose import compose
from training.domains.music.domain import MUSIC
from training.workspace import Workspace


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """Five happy and five sad pieces, one of the sad ones in the folder of the happy ones."""
    root = tmp_path_factory.mktemp("midi")
    for emotion in ("happy", "sad"):
        (root / emotion).mkdir()
        for index in range(5):
            compose(emotion, 1, index).write(root / emotion / f"song{emotion[0]}{index}.mid")
    shutil.move(root / "sad" / "songs2.mid", root / "happy" / "songs2.mid")
    return root


def test_a_song_in_the_wrong_folder_is_listed_with_reasons(pieces, tmp_path, capsys):
    arguments = ["prepare", "--midi-root", str(pieces), "--out", str(tmp_path)]
    assert main([*arguments, "--audit"]) == 0
    audit = json.loads((tmp_path / "data/manifests/audit.json").read_text())
    assert audit["songs"] == 10 and audit["labels"] == {"happy": 6, "sad": 4}
    (item,) = audit["flagged"]
    assert (item["song"], item["label"], item["likelier"]) == ("happy/songs2", "happy", "sad")
    assert item["probability"] <= audit["listed_from"] and len(item["why"]) > 1
    (corpus,) = [one for one in MUSIC.sections(Workspace(tmp_path)) if one.name == "corpus"]
    (shown,) = corpus.facts["audit"]  # the report's table
    assert (shown["song"], shown["label"], shown["likelier"]) == ("happy/songs2", "happy", "sad")
    assert "loudness" in shown["why"]
    output = capsys.readouterr().out
    assert "1 of 10 labelled songs contradict their label" in output
    assert "happy/songs2: labelled happy" in output and "sounds sad" in output


def test_songs_without_an_emotion_word_are_not_audited(pieces, tmp_path, capsys):
    folder = tmp_path / "midi"
    shutil.copytree(pieces, folder)
    (folder / "sad" / "songs0.mid").rename(folder / "songs0.mid")
    assert main(["prepare", "--midi-root", str(folder), "--out", str(tmp_path), "--audit"]) == 0
    audit = json.loads((tmp_path / "data/manifests/audit.json").read_text())
    assert audit["songs"] == 9 and audit["unlabelled"] == 1


def test_a_shard_cannot_be_audited(pieces, tmp_path, capsys):
    arguments = ["prepare", "--midi-root", str(pieces), "--out", str(tmp_path), "--shard", "1/2", "--audit"]
    assert main(arguments) == 2
    assert "--merge" in capsys.readouterr().err
