"""The two exported graphs: the complete sequence at once, and the next tokens with a key-value cache."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from training.domains.music.midi import rules, tokens
from training.domains.music.midi_generator.data import EMOTION
from training.domains.music.midi_generator.generate import CLOSING, DIRECT
from training.domains.music.midi_generator.model import FullGraph, StepGraph
from training.graphs import Graph, Recurrence, TensorSpec

if TYPE_CHECKING:
    from training.domains.music.midi_generator.config import Export, Generation
    from training.domains.music.midi_generator.model import MidiGenerator

EMOTION_MEANING = (
    "[valence in [-1, 1], arousal in [-1, 1], intensity in [0, 1], then 61 zeros], or the 64 numbers the model was "
    "trained on; 64 zeros: no emotion"
)
GUIDANCE = (
    "logits = unconditional + g * (conditional - unconditional), where `conditional` comes from the wanted emotion and "
    "`unconditional` from 64 zeros; g = 1 is the model as trained, up to about 1.5 strengthens the emotion"
)


def vocabulary() -> str:
    """The table of ids as JSON, for applications: kind -> [first id, number of ids]."""
    table = {
        "note": [tokens.NOTE, 128],
        "velocity": [tokens.VELOCITY, 32],
        "position": [tokens.POSITION, 128],
        "duration": [tokens.DURATION, 64],
        "instrument": [tokens.INSTRUMENT, 17],
        "tempo": [tokens.TEMPO, 15],
        "pad": [tokens.PAD, 1],
        "bos": [tokens.BOS, 1],
        "eos": [tokens.EOS, 1],
        "bar": [tokens.BAR, 1],
    }
    return json.dumps(table)


def _metadata(model: MidiGenerator, generation: Generation) -> dict[str, str]:
    kinds = tokens.kinds()
    direct = [str(kinds[low]) for low, _ in DIRECT]
    return rules.metadata(unisons=False, empty_bars=generation.max_empty_bars) | {
        "vocabulary": vocabulary(),
        "vocabulary_size": str(tokens.VOCABULARY),
        "grammar": "BOS (BAR [TEMPO TEMPO] (POSITION ([INSTRUMENT] NOTE VELOCITY DURATION)+)*)* EOS",
        "context": str(model.settings.context),
        "guidance": GUIDANCE,
        "generation": json.dumps(generation.model_dump() | {"closing": {"tokens": CLOSING, "direct": direct}}),
    }


def _random_input(sizes: Mapping[str, int], axis: str, seed: int) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    """Ids of every kind, and emotions within their ranges; with several rows, the last has no emotion."""
    random = np.random.default_rng(seed)
    ids = random.integers(0, tokens.VOCABULARY, (sizes["batch"], sizes[axis]), np.int64)
    emotion = np.zeros((sizes["batch"], EMOTION), np.float32)
    emotion[:, :3] = random.uniform((-1, -1, 0.1), 1, (sizes["batch"], 3))
    if sizes["batch"] > 1:
        emotion[-1] = 0
    return random, ids, emotion


def full_graph(model: MidiGenerator, export: Export, generation: Generation) -> Graph:
    context = model.settings.context

    def example(sizes: Mapping[str, int], seed: int) -> tuple[np.ndarray, ...]:
        return _random_input(sizes, "sequence", seed)[1:]

    return Graph(
        name="midi_generator",
        module=FullGraph(model.folded()).eval(),
        inputs=(
            TensorSpec("input_ids", "int64", ("batch", "sequence"), "token ids 0..387; see vocabulary"),
            TensorSpec("emotion", "float32", ("batch", EMOTION), EMOTION_MEANING),
        ),
        outputs=(
            TensorSpec("logits", "float32", ("batch", "sequence", tokens.VOCABULARY), "of the id after each position"),
        ),
        axes={"batch": (1, export.max_batch), "sequence": (1, context)},
        example=example,
        trials=(
            {"batch": 1, "sequence": min(64, context)},
            {"batch": 2, "sequence": 1},
            {"batch": 7, "sequence": 16},
            {"batch": 1, "sequence": context},
        ),
        tolerance=export.tolerance,
        formats=export.formats,
        metadata=_metadata(model, generation),
    )


def step_graph(model: MidiGenerator, export: Export, generation: Generation) -> Graph:
    settings = model.settings
    past = ("batch", settings.heads, "past", settings.width // settings.heads)
    present = (*past[:2], "past + tokens", past[3])
    names = [f"{kind}_{layer}" for layer in range(settings.layers) for kind in ("key", "value")]
    longest = settings.context - 1

    def example(sizes: Mapping[str, int], seed: int) -> tuple[np.ndarray, ...]:
        random, ids, emotion = _random_input(sizes, "tokens", seed)
        shape = (sizes["batch"], past[1], sizes["past"], past[3])
        return (ids, emotion, *(random.standard_normal(shape, np.float32) for _ in names))

    return Graph(
        name="midi_generator_step",
        module=StepGraph(model.folded()).eval(),
        inputs=(
            TensorSpec("input_ids", "int64", ("batch", "tokens"), "new token ids, 1 or more; see vocabulary"),
            TensorSpec("emotion", "float32", ("batch", EMOTION), EMOTION_MEANING),
            *(TensorSpec(f"past_{name}", "float32", past, "empty at first (past = 0)") for name in names),
        ),
        outputs=(
            TensorSpec("logits", "float32", ("batch", "tokens", tokens.VOCABULARY), "of the id after each new one"),
            *(TensorSpec(f"present_{name}", "float32", present, f"next call's past_{name}") for name in names),
        ),
        axes={"batch": (1, export.max_batch), "tokens": (1, settings.context), "past": (0, longest)},
        example=example,
        trials=(
            {"batch": 1, "tokens": 1, "past": 0},
            {"batch": 2, "tokens": 1, "past": longest},
            {"batch": 7, "tokens": 3, "past": min(40, longest - 3)},
            {"batch": 1, "tokens": settings.context, "past": 0},
        ),
        tolerance=export.tolerance,
        formats=tuple(form for form in export.formats if form != "coreml"),
        recurrence=Recurrence(
            full="midi_generator",
            stream=("input_ids",),
            state=tuple((f"past_{name}", f"present_{name}") for name in names),
            compare="logits",
            steps=min(200, settings.context),
        ),
        metadata=_metadata(model, generation) | {"limit": f"past + tokens must not exceed {settings.context}"},
    )
