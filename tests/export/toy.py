"""Two tiny families with graphs like those of real ones: an encoder with several inputs and outputs, and a decoder with
a full graph and a cached one-step graph."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from training.config import Section
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.engine.checkpoints.index import BEST, FORMAT
from training.graphs import Graph, Int8Check, Recurrence, TensorSpec
from training.recipe import Stepped
from training.settings import RunSettings
from training.workspace import Workspace

POINTS = 5
VOCABULARY = 11


class Size(Section):
    """Settings of the toy's model."""

    width: int = 16


class ToySettings(RunSettings):
    """The shared settings, and the model's."""

    model: Size = Size()


class Norm(nn.Module):
    """RMSNorm by hand (CoreML refuses the fused operator)."""

    def __init__(self, width: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.scale


def split_heads(qkv: torch.Tensor, heads: int) -> list[torch.Tensor]:
    """[B, S, 3 * width] -> queries, keys and values, each [B, heads, S, width / heads]."""
    return [t.view(t.shape[0], t.shape[1], heads, -1).transpose(1, 2) for t in qkv.chunk(3, -1)]


class Block(nn.Module):
    """x [B, S, width] -> the same shape: attention and a feed-forward part. By hand, because torch 2.11 cannot export
    nn.TransformerEncoderLayer with a dynamic batch."""

    def __init__(self, width: int, heads: int = 2):
        super().__init__()
        self.heads = heads
        self.before, self.between = Norm(width), Norm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = split_heads(self.qkv(self.before(x)), self.heads)
        weights = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1)
        x = x + self.dropout(self.out((weights @ v).transpose(1, 2).flatten(2)))
        return x + self.dropout(self.narrow(torch.relu(self.wide(self.between(x)))))


class Encoder(nn.Module):
    """sound [B, 8, 4] and mood [B, 3] -> places [B, POINTS, 3], loudness [B, POINTS]."""

    def __init__(self, width: int):
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.mood = nn.Linear(3, width)
        self.block = Block(width)
        self.norm = Norm(width)
        self.places = nn.Linear(width, POINTS * 3)
        self.loudness = nn.Linear(width, POINTS)
        self.register_buffer("centre", torch.zeros(8))

    def forward(self, sound: torch.Tensor, mood: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.cat([self.embed(sound.transpose(1, 2) - self.centre), self.mood(mood)[:, None]], 1)
        x = self.norm(self.block(x)).mean(1)
        return self.places(x).view(-1, POINTS, 3), torch.sigmoid(self.loudness(x))


class Decoder(nn.Module):
    """ids [B, S] and mood [B, 3] -> logits [B, S, VOCABULARY]; two attention layers, positions learnt."""

    def __init__(self, width: int, context: int = 256, layers: int = 2, heads: int = 2):
        super().__init__()
        self.heads = heads
        self.token = nn.Embedding(VOCABULARY, width)
        self.place = nn.Embedding(context, width)
        self.mood = nn.Linear(3, width)
        self.norms = nn.ModuleList(Norm(width) for _ in range(layers))
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(layers))
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.head = nn.Linear(width, VOCABULARY)

    def run(self, ids: torch.Tensor, mood: torch.Tensor, past: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """past: a key and a value per layer, each [B, heads, P, width / heads] -> logits, keys and values of P + S."""
        before = past[0].shape[2]
        at = torch.arange(before, before + ids.shape[1])
        x = self.token(ids) + self.place(at) + self.mood(mood)[:, None]
        kept = []
        for i, (norm, qkv, out) in enumerate(zip(self.norms, self.qkv, self.out, strict=True)):
            q, k, v = split_heads(qkv(norm(x)), self.heads)
            k, v = torch.cat([past[2 * i], k], 2), torch.cat([past[2 * i + 1], v], 2)
            kept += [k, v]
            mask = torch.where(torch.arange(k.shape[2])[None] > at[:, None], -1e9, 0.0)
            weights = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + mask, -1)
            x = x + out((weights @ v).transpose(1, 2).flatten(2))
        return self.head(x), *kept

    def forward(self, ids: torch.Tensor, mood: torch.Tensor) -> torch.Tensor:
        width = self.token.weight.shape[1]
        empty = torch.zeros(ids.shape[0], self.heads, 0, width // self.heads)
        return self.run(ids, mood, (empty,) * (2 * len(self.qkv)))[0]


class Step(nn.Module):
    """A decoder as a one-step graph."""

    def __init__(self, decoder: Decoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, ids, mood, key_0, value_0, key_1, value_1):
        return self.decoder.run(ids, mood, (key_0, value_0, key_1, value_1))


def encoder_graph(model: Encoder, **changes: object) -> Graph:
    """The only graph of the toy encoder."""

    def example(sizes, seed):
        random = np.random.default_rng(seed)
        n = sizes["batch"]
        return random.normal(size=(n, 8, 4)).astype(np.float32), random.uniform(-1, 1, (n, 3)).astype(np.float32)

    graph = {
        "name": "toy",
        "module": model,
        "inputs": (
            TensorSpec("sound", "float32", ("batch", 8, 4), "log energy"),
            TensorSpec("mood", "float32", ("batch", 3), "in [-1, 1]"),
        ),
        "outputs": (
            TensorSpec("places", "float32", ("batch", POINTS, 3), "x, y, z"),
            TensorSpec("loudness", "float32", ("batch", POINTS), "in [0, 1]"),
        ),
        "axes": {"batch": (1, 64)},
        "example": example,
        "trials": ({"batch": 1}, {"batch": 2}, {"batch": 7}),
        "formats": ("onnx", "int8", "coreml"),
        "metadata": {"points": str(POINTS)},
    }
    return Graph(**{**graph, **changes})


def decoder_graphs(model: Decoder) -> list[Graph]:
    """The full graph, and the cached one that must agree with it."""
    width = model.token.weight.shape[1]
    head = width // model.heads

    def full_example(sizes, seed):
        random = np.random.default_rng(seed)
        ids = random.integers(0, VOCABULARY, (sizes["batch"], sizes["length"]))
        return ids, random.uniform(-1, 1, (sizes["batch"], 3)).astype(np.float32)

    def step_example(sizes, seed):
        random = np.random.default_rng(seed)
        n = sizes["batch"]
        past = [random.normal(size=(n, model.heads, sizes["past"], head)).astype(np.float32) for _ in range(4)]
        return random.integers(0, VOCABULARY, (n, 1)), random.uniform(-1, 1, (n, 3)).astype(np.float32), *past

    kept = ("key_0", "value_0", "key_1", "value_1")
    full = Graph(
        "toy_decoder",
        model,
        (TensorSpec("ids", "int64", ("batch", "length")), TensorSpec("mood", "float32", ("batch", 3))),
        (TensorSpec("logits", "float32", ("batch", "length", VOCABULARY)),),
        {"batch": (1, 16), "length": (1, 256)},
        full_example,
        ({"batch": 1, "length": 1}, {"batch": 2, "length": 33}, {"batch": 7, "length": 12}),
        formats=("onnx", "int8", "coreml"),
    )
    step = Graph(
        "toy_decoder_step",
        Step(model),
        (
            TensorSpec("ids", "int64", ("batch", 1)),
            TensorSpec("mood", "float32", ("batch", 3)),
            *(TensorSpec(name, "float32", ("batch", model.heads, "past", head)) for name in kept),
        ),
        (
            TensorSpec("logits", "float32", ("batch", 1, VOCABULARY)),
            *(TensorSpec(f"new_{name}", "float32", ("batch", model.heads, "grown", head)) for name in kept),
        ),
        {"batch": (1, 16), "past": (0, 255)},
        step_example,
        ({"batch": 1, "past": 0}, {"batch": 2, "past": 5}, {"batch": 7, "past": 40}),
        formats=("onnx", "int8"),
        recurrence=Recurrence("toy_decoder", ("ids",), tuple((k, f"new_{k}") for k in kept), "logits"),
    )
    return [full, step]


class _ToyRecipe(Stepped):
    """The methods that an export needs; it is never trained."""

    settings_type = ToySettings
    settings: ToySettings

    def encoders(self):
        raise NotImplementedError

    def dataset(self, rows, training):
        raise NotImplementedError

    def counts(self, batch):
        raise NotImplementedError

    def losses(self, model, batch, progress):
        raise NotImplementedError

    def validate(self, model, batch):
        raise NotImplementedError

    def samples(self, model, held_out, folder, seed):
        (folder / "note.txt").write_text(f"{len(held_out)} rows, seed {seed}")
        return [folder / "note.txt"]


class EncoderRecipe(_ToyRecipe):
    """One graph; its int8 check compares places with references."""

    family, title, manifest = "toy_encoder", "Toy encoder", "toy_encoder"

    def build(self, constants):
        model = Encoder(self.settings.model.width)
        if constants:
            model.centre.copy_(torch.from_numpy(constants["centre"]))
        return model

    def graphs(self, model):
        return [encoder_graph(model)]

    def int8_check(self, held_out):
        sound, mood = encoder_graph(None).example({"batch": 6}, 5)
        places = np.random.default_rng(6).normal(size=(6, POINTS, 3)).astype(np.float32)
        return Int8Check("toy", {"sound": sound, "mood": mood}, {"places": places})

    @staticmethod
    def grade(outputs, references):
        return {"distance": float(np.square(outputs["places"] - references["places"]).mean())}


class DecoderRecipe(_ToyRecipe):
    """A full graph and a cached one-step graph; the int8 check has inputs for the full one."""

    family, title, manifest = "toy_decoder", "Toy decoder", "toy_decoder"

    def build(self, constants):
        return Decoder(self.settings.model.width)

    def graphs(self, model):
        return decoder_graphs(model)

    def int8_check(self, held_out):
        random = np.random.default_rng(5)
        inputs = {"ids": random.integers(0, VOCABULARY, (4, 20)), "mood": np.zeros((4, 3), np.float32)}
        return Int8Check("toy_decoder", inputs, {"targets": random.integers(0, VOCABULARY, (4, 20))})

    @staticmethod
    def grade(outputs, references):
        logits = outputs["logits"] - outputs["logits"].max(-1, keepdims=True)
        logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        return {"loss": -float(np.take_along_axis(logs, references["targets"][..., None], -1).mean())}


def save_checkpoint(workspace: Workspace, kind: type[Stepped], seed: int = 0, ema: bool = False, **changes: object):
    """Save a checkpoint of an untrained toy as the engine does; with `ema`, its averaged weights have another seed."""
    settings = ToySettings()
    torch.manual_seed(seed)
    model = kind(settings).build({})
    torch.manual_seed(seed + 100)
    averaged = kind(settings).build({})
    state = {
        "format": FORMAT,
        "family": kind.family,
        "settings": settings.model_dump(mode="json"),
        "model": model.state_dict(),
        "ema": averaged.state_dict() if ema else None,
        "constants": {},
        "optimizer": {},
        "scaler": None,
        "progress": {"step": 7, "epoch": 2, "position": 0},
        "early_stopping": {},
        "metrics": {"val_loss": 1.5},
        "provenance": {
            "synthetic": True,
            "seconds": 12.0,
            "data_digest": "d" * 64,
            "settings_digest": "e" * 64,
            "seed": 42,
            "code_version": "0.1.0+abc",
            "libraries": {},
            "hardware": {},
        },
        **changes,
    }
    entry = {"step": 7, "epoch": 2, "value": 1.5, "run_id": "toy"}
    CheckpointFolder(workspace.checkpoints(kind.family)).save(state, entry, names=[BEST])
