"""Every key of the family's own sections has an effect, shown key by key."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.config import dotted_keys, read_yaml
from training.domains.music.midi import tokens
from training.domains.music.midi_generator.config import MidiGeneratorConfig
from training.domains.music.midi_generator.generate import draw, generate
from training.domains.music.midi_generator.recipe import MidiGeneratorRecipe
from training.errors import UsageError
from training.recipe import TrainingProgress
from training.settings import RunSettings
from training.workspace import PROJECT

FULL = PROJECT / "training" / "cuda_session" / "midi_generator_training_config.yaml"


def weights(recipe, rows):
    return {name: tuple(p.shape) for name, p in recipe.build({}).named_parameters()}


def samples(recipe, rows):
    examples = recipe.dataset(rows, True)
    items = [examples.item(epoch, index) for epoch in range(4) for index in range(len(examples))]
    return {key: [item[key].tolist() for item in items] for key in ("input_ids", "emotion")}


def trained_output(recipe, rows):
    torch.manual_seed(0)
    model = recipe.build({}).train()
    examples = recipe.dataset(rows, False)
    batch = examples.collate([examples.item(0, 0)])
    return recipe.losses(model, batch, TrainingProgress(0, 1))["loss"].total.item()


def drawn(recipe, rows):
    logits = np.log(np.arange(1.0, 389.0) ** 3)
    random = np.random.default_rng(0)
    return [draw(logits, random, recipe.settings.generation) for _ in range(300)]


def pieces(recipe, rows):
    def step(ids, emotion, state):
        logits = np.zeros((*ids.shape, 388), np.float32)
        logits[..., tokens.BAR] = 5
        logits[..., tokens.VELOCITY + 3] = 3 * emotion[:, :1]
        logits[..., tokens.EOS] = -9
        return logits, None

    emotion = np.ones((2, 64), np.float32)
    return [ids.tolist() for ids in generate(step, emotion, recipe.settings.generation, 100, 0)]


def pieces_that_want_to_end(recipe, rows):
    def step(ids, emotion, state):
        logits = np.zeros((*ids.shape, 388), np.float32)
        logits[..., tokens.EOS] = 9
        return logits, None

    emotion = np.ones((2, 64), np.float32)
    return [ids.tolist() for ids in generate(step, emotion, recipe.settings.generation, 100, 0)]


def exported(recipe, rows):
    return [(graph.formats, dict(graph.axes), graph.tolerance) for graph in recipe.graphs(recipe.build({}))]


#: key -> (another value, a function that shows the difference)
KEYS = {
    "model.context": (48, samples),
    "model.width": (64, weights),
    "model.layers": (3, weights),
    "model.heads": (1, trained_output),
    "model.feedforward": ("gelu", weights),
    "model.emotion_width": (24, weights),
    "model.emotion_every": (1, weights),
    "model.tied_head": (True, weights),
    "model.dropout": (0.3, trained_output),
    "loss.label_smoothing": (0.2, trained_output),
    "loss.tempo": (8.0, trained_output),
    "augment.transpose": (0, samples),
    "augment.velocity": (0.0, samples),
    "augment.tempo": (0.0, samples),
    "augment.emotion_noise": (0.0, samples),
    "augment.emotion_dropout": (0.6, samples),
    "generation.temperature": (0.5, drawn),
    "generation.top_k": (5, drawn),
    "generation.top_p": (0.5, drawn),
    "generation.guidance": (2.0, pieces),
    "generation.max_tokens": (40, pieces),
    "generation.min_bars": (0, pieces_that_want_to_end),
    "generation.max_empty_bars": (0, pieces),
    "export.formats": (["onnx"], exported),
    "export.max_batch": (8, exported),
    "export.tolerance": (1e-3, exported),
}


def own_keys() -> set[str]:
    shared = set(dotted_keys(RunSettings))
    return {key for key in dotted_keys(MidiGeneratorConfig) if key not in shared and "." in key}


def test_every_key_has_a_case():
    assert set(KEYS) == own_keys()


@pytest.mark.parametrize("key", KEYS)
def test_the_key_changes_something(key, settings, rows):
    value, look = KEYS[key]
    section, _, name = key.partition(".")
    before, after = MidiGeneratorRecipe(settings()), MidiGeneratorRecipe(settings({section: {name: value}}))
    assert look(before, rows) == look(before, rows)
    assert look(before, rows) != look(after, rows)


def test_the_yaml_file_has_every_key_with_a_comment_above():
    places = read_yaml(FULL).places
    lines = FULL.read_text(encoding="utf-8").splitlines()
    assert set(places) == set(dotted_keys(MidiGeneratorConfig))
    sections = {key for key in places if any(other.startswith(key + ".") for other in places)}
    for key, place in places.items():
        if key not in sections:
            above = lines[int(place.rpartition(":")[2]) - 2].strip()
            assert above.startswith("#"), f"{key} has no comment above it"


def test_heads_that_do_not_divide_the_width_are_refused(settings):
    with pytest.raises(UsageError, match="even number"):
        settings({"model": {"heads": 3}})
