"""Base models: what is used, and what is refused with its remedy."""

from __future__ import annotations

import json
import shutil

import pytest

from training.domains.sql.bases import tiny
from training.domains.sql.bases.folder import base_at, tokenizer_of
from training.errors import UsageError

from .conftest import TEXTS


@pytest.fixture
def folder(tiny_base, tmp_path):
    return shutil.copytree(tiny_base, tmp_path / "base")


def test_a_folder_of_a_model_is_a_base(folder):
    base = base_at(folder)
    assert base.architecture == "llama" and tokenizer_of(base).eos_token == "<|im_end|>"


def test_what_is_no_base_is_refused_with_the_reason(folder, tmp_path):
    with pytest.raises(UsageError, match="--base is needed"):
        base_at(None)
    with pytest.raises(UsageError, match="There is no folder"):
        base_at(tmp_path / "nowhere")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UsageError, match=r"no \*\.safetensors.*pytorch_model\.bin may run code.*save_pretrained"):
        base_at(folder)


def test_code_in_a_base_is_never_run(folder):
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling.Evil"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling.py").write_text("raise SystemExit('run')")
    with pytest.raises(UsageError, match="auto_map"):
        base_at(folder)


def test_a_base_without_a_tokenizer_is_refused(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(UsageError, match="no tokenizer"):
        base_at(folder)


def test_the_small_base_is_the_same_every_time_and_another_for_other_texts(tmp_path):
    first, second = tiny.make(tmp_path / "a", TEXTS), tiny.make(tmp_path / "b", TEXTS)
    assert {f.name: f.read_bytes() for f in first.iterdir()} == {f.name: f.read_bytes() for f in second.iterdir()}
    assert tiny.make(tmp_path / "a", TEXTS) == first != tiny.make(tmp_path / "a", TEXTS[:2])
