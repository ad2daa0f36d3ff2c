"""Prepared data is loaded for training, on this host or another, or refused."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.domains.music.corpora import (
    ScoreRecipe,
    rows,
    run,
    split,
)
from training.data import encode
from training.domains.music.midi.notes import NOTE
from training.errors import DataError
from training.workspace import PROJECT


def test_a_prepared_split_is_loaded_with_its_arrays(root, monkeypatch):
    run(root)
    monkeypatch.setattr(encode.sandbox, "run", lambda *a, **k: pytest.fail("decoded again"))
    train, _ = split(root)
    val, _ = split(root, "val")
    assert (len(train), len(val)) == (7, 2)
    assert train[0].records["audio_path"]["logmel"].dtype == np.float16
    assert train[0].records["audio_path"]["logmel"].shape[1] == 128
    assert train[0].records["midi_path"]["notes"].dtype == NOTE
    scores, _ = split(root, kind=ScoreRecipe)
    assert scores[0].records["midi_path"]["ids"].dtype == np.uint16


def test_a_handwritten_manifest_trains_without_prepare(root):
    shutil.rmtree(root / "out/cache")
    lines = [
        {"audio_path": f"audio/happy/t{n}.WAV", "midi_path": f"midi/happy/t{n}.Mid", "emotion": [0.5, 0.5, 0.5]}
        for n in (0, 3)
    ]
    (root / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    got, messages = split(root, data={"train_manifest": str(root / "mine.jsonl"), "cache_dir": str(root / "my cache")})
    assert len(got) == 2
    assert "decoded" in messages
    assert (root / "my cache/logmel").is_dir()


def test_a_missing_manifest_is_an_error(root):
    with pytest.raises(DataError, match=r"build_manifests\.py"):
        split(root)


def test_manifests_of_another_host_find_their_files(root):
    run(root)
    shutil.move(root / "audio", root / "elsewhere")
    with pytest.raises(DataError, match="--audio-root"):
        split(root)
    moved, _ = split(root, audio_root=root / "elsewhere")
    assert len(moved) == 7
    assert Path(moved[0].values["audio_path"]).is_relative_to(root / "elsewhere")


def test_invalid_rows_are_refused_before_any_file_is_decoded(root, monkeypatch):
    run(root)
    path = root / "out/data/manifests/spectocloud_train.jsonl"
    lines = path.read_text().splitlines()
    bad = json.loads(lines[1]) | {"emotion": [0.123, 0, 0]}
    path.write_text("\n".join([lines[0], json.dumps(bad), lines[2].replace("audio_path", "audio_paht")]))
    monkeypatch.setattr(encode, "encode_files", lambda *a, **k: pytest.fail("decoded"))
    with pytest.raises(DataError) as error:
        split(root)
    assert "spectocloud_train.jsonl:2: refused by the family" in str(error.value)
    misspelt = "`audio_paht` is not a manifest key: did you mean `audio_path`?"
    assert f"spectocloud_train.jsonl:3: {misspelt}" in str(error.value)


def test_a_song_damaged_after_prepare_is_left_out_and_reported(root):
    run(root)
    victim = Path(rows(root, "spectocloud_train")[0]["audio_path"])
    victim.write_bytes(b"broken now")
    kept, messages = split(root)
    assert len(kept) == 6
    assert "1 of 7 rows" in messages
    assert victim.name in messages
    assert (root / "out/cache/quarantine/spectocloud_train.jsonl").read_text().count("\n") == 1


def test_prepare_does_not_import_torch_and_is_fast_on_a_known_corpus(root):
    """Importing torch takes seconds."""
    run(root, no_align=False)
    code = (
        "import sys, time; from pathlib import Path; from training.domain import Job\n"
        "from training.registry import domain; from training.stages.prepare import prepare\n"
        "from training.workspace import Workspace\n"
        "root = Path(sys.argv[1]); begin = time.process_time()\n"
        "options = {'audio_root': root / 'audio', 'midi_root': root / 'midi', 'val_split': 0.2}\n"
        "prepare(domain('music'), Job(Workspace(root / 'out'), options))\n"
        "print('torch' in sys.modules, time.process_time() - begin)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(root)], env=environment, capture_output=True, text=True, check=True
    )
    torch, seconds = done.stdout.splitlines()[-1].split()
    assert torch == "False"
    assert float(seconds) < 2.0  # CPU time, so that other work on the host does not matter
    assert "up to date" in done.stdout


def test_a_fifo_in_the_folders_does_not_hang_the_run(root):
    """Also with a cycle of links."""
    os.mkfifo(root / "audio/happy/p.wav")
    (root / "midi/happy/loop").symlink_to(root / "midi")
    begin = time.monotonic()
    assert run(root).pairs == 9
    assert time.monotonic() - begin < 20
