"""Samples and files of an export are added to the TensorBoard and W&B run of its training."""

from __future__ import annotations

import io
import json
import wave
from pathlib import Path

import numpy as np
import pytest

from tests.export import toy
from training.domains.music.composing.synth import read_preview, write_preview
from training.engine.tracking import wandb_process
from training.settings import Logging
from training.stages import gallery
from training.stages.gallery import show_exports
from training.workspace import Workspace

FAKE_WANDB = """
import json, os
calls = open(os.environ["FAKE_WANDB"], "a", buffering=1)
tell = lambda what, **values: calls.write(json.dumps({"what": what, **values}) + chr(10))
class Media:
    def __init__(self, path, caption): self.calls = [type(self).__name__, open(path, "rb").read(4).hex(), caption]
class Image(Media): pass
class Audio(Media): pass
class Artifact:
    def __init__(self, name, type, metadata): self.about = [name, type, metadata]; self.files, self.folders = [], []
    def add_file(self, path, name): open(path).close(); self.files.append(name)
    def add_dir(self, path, name): os.listdir(path); self.folders.append(name)
class Run:
    url = None
    def log(self, values, step=None): tell("log", step=step, media={k: v.calls for k, v in values.items()})
    def log_artifact(self, a): tell("artifact", about=a.about, files=a.files, folders=a.folders)
    def finish(self): tell("finish")
def init(**options): tell("init", options=options); return Run()
"""


@pytest.fixture
def exported(tmp_path):
    """(workspace, recipe, the receipt's entry, the run's folder) of a family with a picture, a sound and a package."""
    from PIL import Image

    workspace = Workspace(tmp_path)
    recipe = toy.DecoderRecipe(toy.ToySettings())
    recipe.preview = read_preview  # as the MIDI generator's
    run = workspace.runs(recipe.family) / "20260101-000000-aaaa"
    run.mkdir(parents=True)
    samples = workspace.exports / "samples"
    samples.mkdir(parents=True)
    Image.new("RGB", (200, 100)).save(samples / "happy.png")
    write_preview(samples / "happy.mp3", np.sin(np.arange(3 * 44100) / 30).astype(np.float32))
    (samples / "happy.mid").write_bytes(b"MThd")
    (workspace.exports / "toy.mlpackage").mkdir()
    (workspace.exports / "receipt.json").write_text("{}")
    entry = {
        "title": "Toy", "synthetic": True, "metrics": {}, "checkpoint": {"step": 7}, "trained": {"run_id": run.name},
        "files": {"toy.mlpackage": {"kind": "coreml"},
                  **{f"samples/happy.{end}": {"kind": "sample"} for end in ("png", "mp3", "mid")}},
    }  # fmt: skip
    return workspace, recipe, entry, run


def with_logging(recipe, **changes):
    recipe.settings = recipe.settings.model_copy(update={"logging": Logging(**changes)})
    return recipe


def test_tensorboard_shows_pictures_and_plays_sounds(exported):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    workspace, recipe, entry, run = exported
    show_exports(with_logging(recipe, tensorboard=True), entry, workspace, workspace.exports)
    events = EventAccumulator(str(run), size_guidance={"images": 0, "audio": 0})
    events.Reload()
    (image,) = events.Images("samples/happy")
    assert (image.step, image.width, image.height) == (7, 200, 100) and image.encoded_image_string[1:4] == b"PNG"
    (sound,) = events.Audio("samples/happy (sound)")
    assert sound.content_type == "audio/wav" and sound.encoded_audio_string[:4] == b"RIFF"
    assert sound.sample_rate == 22050 and sound.length_frames / 22050 == pytest.approx(3.0, abs=0.2)


def test_wandb_gets_samples_and_exports_in_the_trainings_own_run(exported, tmp_path, monkeypatch):
    (tmp_path / "wandb.py").write_text(FAKE_WANDB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("FAKE_WANDB", str(tmp_path / "calls.jsonl"))
    workspace, recipe, entry, run = exported
    show_exports(with_logging(recipe, tensorboard=False, wandb="offline"), entry, workspace, workspace.exports)
    begin, media, artifact, end = (json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines())
    assert begin["options"]["id"] == run.name and begin["options"]["resume"] == "allow"
    assert media["step"] is None and media["media"]["samples/happy"] == ["Image", "89504e47", "step 7"]
    assert media["media"]["samples/happy (sound)"][0] == "Audio"
    assert artifact["about"][:2] == [f"{recipe.family}-{run.name}", "model"] and artifact["about"][2]["synthetic"]
    assert artifact["folders"] == ["toy.mlpackage"]
    assert set(artifact["files"]) == {"receipt.json", "samples/happy.png", "samples/happy.mp3", "samples/happy.mid"}
    assert end["what"] == "finish"


def test_a_tracker_that_fails_fails_no_export(exported, tmp_path, monkeypatch, capsys):
    (tmp_path / "wandb.py").write_text("raise ConnectionError('unreachable')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    workspace, recipe, entry, _ = exported
    show_exports(with_logging(recipe, tensorboard=False, wandb="online"), entry, workspace, workspace.exports)
    assert "unreachable" in capsys.readouterr().out


def test_an_export_on_another_host_than_the_trainings_shows_nothing(exported, monkeypatch):
    workspace, recipe, entry, run = exported
    monkeypatch.setattr(wandb_process, "WandbProcess", None)
    for named in ("20990101-000000-ffff", None, "../../exports"):
        show_exports(with_logging(recipe, wandb="online"), {**entry, "trained": {"run_id": named}}, workspace, Path())
    assert list(run.iterdir()) == []


def wav(path, width: int, seconds: float = 30.0) -> None:
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(width)
        sound.setframerate(1000)
        sound.writeframes(b"\1" * int(seconds * 1000) * width)


def test_a_wav_is_shown_as_it_is_up_to_its_longest_and_others_by_the_recipes_preview(tmp_path):
    recipe = toy.DecoderRecipe(toy.ToySettings())
    for name, width in (("plain.wav", 2), ("deep.wav", 3)):
        wav(tmp_path / name, width)
    with wave.open(io.BytesIO(gallery.beginning(recipe, tmp_path / "plain.wav"))) as sound:
        assert sound.getframerate() == 1000 and sound.getnframes() == gallery.LONGEST * 1000
    (tmp_path / "damaged.wav").write_bytes(b"RIFF")
    (tmp_path / "other.mp3").write_bytes(b"ID3")
    others = [tmp_path / name for name in ("deep.wav", "damaged.wav", "other.mp3")]
    assert [gallery.beginning(recipe, path) for path in others] == [None, None, None]
    recipe.preview = lambda path, seconds: f"{path.name} {seconds}".encode()
    assert [gallery.beginning(recipe, path) for path in others] == [f"{p.name} 20.0".encode() for p in others]


def test_a_sound_that_cannot_be_read_is_left_out_of_tensorboard(exported):
    workspace, recipe, entry, run = exported
    del recipe.preview  # the contract's own: no sound
    entry["files"].pop("samples/happy.png")
    show_exports(with_logging(recipe, tensorboard=True), entry, workspace, workspace.exports)
    assert list(run.iterdir()) == []


def test_exports_of_an_item_are_shown_in_the_items_own_run(exported):
    workspace, recipe, entry, run = exported
    recipe.item = "left"
    own = workspace.runs("toy_decoder/left") / run.name
    own.mkdir(parents=True)
    show_exports(with_logging(recipe, tensorboard=True), entry, workspace, workspace.exports)
    assert list(run.iterdir()) == [] and len(list(own.iterdir())) == 1
