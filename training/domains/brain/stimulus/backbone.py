"""Features of a film by a pre-trained image model: a folder of Hugging Face's format, whose weights stay as they are.

The model looks at two pictures a second. Film and model are read in the sandbox, by the CPU; the result is stored by
the content of the film, the model's files and the layer, so that it is computed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from training.data.encode import Encoder
from training.data.files import printable
from training.domains.brain.stimulus.film import invalid_data, is_cover
from training.errors import UsageError
from training.pretrained import Base, licence_of, refuse_code

BAND = "video"
OPTION = "--backbone"
RATE = 2  # pictures a second
DEPTH = 2 / 3  # of the layers, at which the default layer is: middle ones predict visual cortex best
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
_BATCH = 16  # pictures
_MEGABYTES = 8192  # beside the weights
_CODE = "backbone 1"


@dataclass(frozen=True)
class Backbone:
    """A model that can be used. `layer` counts from 0, the embeddings, to `layers`."""

    folder: Path
    layer: int
    layers: int
    base: Base

    @property
    def files(self) -> list[Path]:
        """What its features depend on."""
        return [self.folder / CONFIG, self.folder / PREPROCESSOR, *sorted(self.folder.glob("*.safetensors"))]

    @property
    def remark(self) -> str:
        """For the user."""
        return f"{OPTION} {self.base.words}; layer {self.layer} of {self.layers}"

    def encoder(self, digest: str, threads: int) -> Encoder:
        """Of a film, to the arrays of `features`. `digest`: of its files."""
        weights = sum(path.stat().st_size for path in self.files) >> 20
        return Encoder(
            "backbone", f"{_CODE} {digest} layer {self.layer}",
            partial(features, folder=str(self.folder), layer=self.layer, threads=threads),
            seconds=3600.0, processor=3600.0, bytes_per_second=500.0, megabytes=_MEGABYTES + 4 * weights,
        )  # fmt: skip


def backbone_at(folder: Path, layer: int | None = None) -> Backbone:
    """The model in a folder. `layer`: None for the default. Raises UsageError, with what to do, for one that cannot be
    used."""
    for name in (CONFIG, PREPROCESSOR):
        if not (folder / name).is_file():
            raise UsageError(
                f"{OPTION}: {printable(folder)} holds no {name}. Name the folder of an image model in Hugging Face's "
                "format, as save_pretrained of the model and of its image processor write it."
            )
    config, _ = (refuse_code(folder / name, OPTION) for name in (CONFIG, PREPROCESSOR))
    if not any(folder.glob("*.safetensors")):
        raise UsageError(
            f"{OPTION}: {printable(folder)} holds no *.safetensors; other files of weights may run code when they are "
            "read, and are not. Save the model by save_pretrained."
        )
    layers = _layers(folder, config)
    chosen = round(DEPTH * layers) if layer is None else layer
    if not 0 <= chosen <= layers:
        raise UsageError(f"{OPTION}-layer {chosen}: {printable(folder)} has the layers 0 to {layers}.")
    return Backbone(folder, chosen, layers, Base(printable(folder.name), *licence_of(folder)))


def _layers(folder: Path, config: Mapping[str, Any]) -> int:
    """The number of its layers. Raises UsageError for an architecture that transformers does not have, and for one
    without layers that can be counted."""
    from transformers import CONFIG_MAPPING

    kind = config.get("model_type")
    if kind not in CONFIG_MAPPING:
        raise UsageError(
            f"{OPTION}: {printable(folder)} is a model of the type {kind!r}, which transformers does not have. Extract "
            "its features with its own program, and give them by --features."
        )
    known = CONFIG_MAPPING[kind].from_dict(dict(config))
    known = getattr(known, "vision_config", known)
    count = getattr(known, "num_hidden_layers", None)
    if not isinstance(count, int):
        stages = getattr(known, "depths", None)  # of convolutional and hierarchical models
        count = len(stages) if isinstance(stages, list | tuple) else 0
    if not count:
        raise UsageError(
            f"{OPTION}: {printable(folder)} ({kind}) does not state its number of layers: it is no image model. Give "
            "its features by --features."
        )
    return count


# -- in the sandbox ----------------------------------------------------------------------------------------------------


def features(path: Path, *, folder: str, layer: int, threads: int) -> dict[str, np.ndarray]:
    """The hidden states of a layer for RATE pictures a second of a film, averaged over the picture.

    times: float64 [N], seconds of the film; values: float32 [N, F]. Raises ValueError, with the reason, for a model or
    a film that cannot be used.
    """
    import torch

    torch.set_num_threads(threads)
    model, processor = _loaded(folder)
    times, values, waiting = [], [], []

    def compute() -> None:
        if waiting:
            values.append(_hidden(model, processor, waiting, layer))
            waiting.clear()

    for at, picture in _shown(path):
        times.append(at)
        waiting.append(picture)
        if len(waiting) == _BATCH:
            compute()
    compute()
    if not values:
        raise ValueError("holds no picture that can be decoded")
    return {"times": np.array(times), "values": np.concatenate(values)}


def _loaded(folder: str) -> tuple[Any, Any]:
    """The model, or the part of it that sees, and its image processor."""
    import torch
    from transformers import AutoImageProcessor, AutoModel

    try:
        model = AutoModel.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
        processor = AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, backend="pil"
        )
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(f"the model in {folder} cannot be read: {error}") from None
    return getattr(model, "vision_model", model).eval(), processor


def _hidden(model: Any, processor: Any, pictures: list[np.ndarray], layer: int) -> np.ndarray:
    """float32 [n, F] of uint8 pictures [height, width, 3]."""
    import torch

    inputs = processor(images=pictures, return_tensors="pt")
    try:
        with torch.no_grad():
            out = model(pixel_values=inputs["pixel_values"], output_hidden_states=True)
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(f"the model takes no single pictures (give its features by --features): {error}") from None
    states = getattr(out, "hidden_states", None)
    if states is None or layer >= len(states):
        raise ValueError(f"the model gives {len(states or ())} hidden states, and layer {layer} is wanted")
    state = states[layer]
    # [n, tokens, F] of transformers, [n, F, height, width] of convolutional models
    state = state.mean((2, 3)) if state.ndim == 4 else state.mean(1)
    return state.float().numpy()


def _shown(path: Path) -> Iterator[tuple[float, np.ndarray]]:
    """(seconds, uint8 [height, width, 3]) of the first picture in each 1 / RATE seconds."""
    import av

    try:
        with av.open(str(path), metadata_errors="replace") as container:
            video = next((stream for stream in container.streams.video if not is_cover(stream)), None)
            if video is None:
                raise ValueError("holds no pictures: a backbone needs a film")
            video.thread_count = 1
            before = -1
            for packet in container.demux(video):
                try:
                    frames = packet.decode()
                except invalid_data():
                    continue
                for frame in frames:
                    place = -1 if frame.time is None else int(frame.time * RATE + 1e-6)
                    if place > before:
                        before = place
                        yield float(frame.time), frame.to_ndarray(format="rgb24")
    except av.FFmpegError as error:
        raise ValueError(f"cannot be decoded by FFmpeg: {error.strerror}") from None
