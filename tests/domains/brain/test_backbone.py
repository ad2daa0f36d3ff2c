"""--backbone: a pre-trained image model, saved by transformers itself, looks at a film; and what is refused."""

from __future__ import annotations

import json

import av
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, ConvNextImageProcessor, ViTImageProcessor

from tests.domains.brain.conftest import job_of
from training.domains.brain.presenting import source
from training.domains.brain.stimulus import backbone
from training.errors import UsageError

WIDTH = 8
TINY = {"hidden_size": WIDTH, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}
CONFIGS = {
    "dinov2": {**TINY, "image_size": 28, "patch_size": 14},
    "clip": {"vision_config": {**TINY, "image_size": 28, "patch_size": 14}, "text_config": {**TINY, "vocab_size": 99}},
    "convnext": {"hidden_sizes": [4, 8], "depths": [1, 1], "num_stages": 2},
    "videomae": {**TINY, "image_size": 28, "patch_size": 14, "num_frames": 4},
    "gpt2": {"n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 99},
}


def saved(folder, kind: str = "dinov2"):
    """A model with random weights, and its image processor, as their save_pretrained writes them."""
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(kind, **CONFIGS[kind])).save_pretrained(folder)
    processor = ConvNextImageProcessor if kind == "convnext" else ViTImageProcessor
    size = {"shortest_edge": 32} if kind == "convnext" else {"height": 28, "width": 28}
    processor(size=size).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Tiny\n")
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("models") / "tiny-dinov2")


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Two seconds of dark pictures and two of bright ones, 10 a second."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=10)
        stream.width, stream.height = 48, 32
        for number in range(40):
            picture = np.full((32, 48, 3), 40 if number < 20 else 220, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("kind", "layers"), [("dinov2", 3), ("clip", 3), ("convnext", 2)])
def test_a_model_sees_two_pictures_a_second(kind, layers, film, tmp_path):
    model = backbone.backbone_at(saved(tmp_path / "m", kind))
    assert (model.layers, model.layer) == (layers, round(2 / 3 * layers))
    found = backbone.features(film, folder=str(model.folder), layer=model.layer, threads=1)
    assert found["times"].tolist() == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5])
    values = found["values"]
    assert values.dtype == np.float32 and len(values) == 8 and np.isfinite(values).all()
    assert np.abs(values[3] - values[4]).max() > 10 * np.abs(values[0] - values[3]).max()  # dark, then bright


def test_the_features_are_those_that_transformers_itself_computes(tiny, film):
    found = backbone.features(film, folder=str(tiny), layer=2, threads=1)
    with av.open(str(film)) as container:
        first = next(container.decode(video=0)).to_ndarray(format="rgb24")
    model = AutoModel.from_pretrained(tiny).eval()
    with torch.no_grad():
        pixels = ViTImageProcessor.from_pretrained(tiny)(images=first, return_tensors="pt")["pixel_values"]
        expected = model(pixel_values=pixels, output_hidden_states=True).hidden_states[2][0].mean(0)
    assert found["values"][0] == pytest.approx(expected.numpy(), abs=1e-5)


def test_its_band_is_computed_once_and_its_licence_is_stated(tiny, film, tmp_path, monkeypatch):
    options = {"movie": film, "backbone": tiny}
    shown = source(job_of(tmp_path, **options)[0])
    (band,) = shown.own
    assert "--backbone tiny-dinov2; licence: apache-2.0 (README.md); layer 2 of 3" in shown.notes
    assert band.band == "video" and band.binned(2, 1.5, 0.0, 0, "1").shape == (2, WIDTH)
    expected = backbone.features(film, folder=str(tiny), layer=2, threads=1)
    assert band.values == pytest.approx(expected["values"], abs=1e-5)

    def computed(*_, **__):
        raise AssertionError("it is read from the store")

    monkeypatch.setattr("training.data.sandbox.run", computed)
    assert np.array_equal(source(job_of(tmp_path, **options)[0]).own[0].values, band.values)
    with pytest.raises(AssertionError):  # another layer is another result
        source(job_of(tmp_path, **options, backbone_layer=1)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "holds no preprocessor_config.json"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), r"no \*.safetensors"),
        (lambda folder: _configure(folder, auto_map={"AutoModel": "x.Y"}), "names Python code"),
        (lambda folder: _configure(folder, model_type="mine"), "'mine', which transformers does not have"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(tiny, tmp_path, change, message):
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in tiny.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    change(folder)
    with pytest.raises(UsageError, match=message):
        backbone.backbone_at(folder)


def _configure(folder, **more):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | more))


def test_a_layer_that_is_not_there_and_a_command_without_a_film_are_refused(tiny, tmp_path):
    with pytest.raises(UsageError, match=r"--backbone-layer 9: .* has the layers 0 to 3"):
        backbone.backbone_at(tiny, 9)
    with pytest.raises(UsageError, match=r"--backbone needs --movie"):
        source(job_of(tmp_path, backbone=tiny, annotations=tmp_path / "words.tsv")[0])


@pytest.mark.parametrize("kind", ["videomae", "gpt2"])
def test_a_model_of_no_single_pictures_is_refused_by_the_command(kind, film, tmp_path):
    model = backbone.backbone_at(saved(tmp_path / "m", kind))
    with pytest.raises(ValueError, match="takes no single pictures"):
        backbone.features(film, folder=str(model.folder), layer=1, threads=1)
