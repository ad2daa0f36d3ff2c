"""The settings files: each key is there with a comment above it, and every preset is valid; every key acts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml

from tests.domains.brain import test_autoencoder, test_decoding
from tests.domains.brain.conftest import SETTINGS
from training.config import build, dotted_keys, read_yaml
from training.domains.brain.autoencoder.recipe import AutoencoderRecipe
from training.domains.brain.decoding.recipe import DecodingRecipe
from training.domains.brain.encoding.recipe import EncodingRecipe
from training.domains.brain.families import FAMILIES
from training.recipe import Stepped, TrainingProgress
from training.settings import RunSettings

RECIPES = {"encoding": EncodingRecipe(SETTINGS), "decoding": DecodingRecipe(test_decoding.SETTINGS),
           "autoencoder": AutoencoderRecipe(test_autoencoder.SETTINGS)}  # fmt: skip
#: Family -> key -> another value than that of the tests.
VALUES = {
    "encoding": {"model.rank": 3, "model.width": 5, "warm_start.searches": 1, "windows.volumes": 16},
    "decoding": {"model.rank": 3, "model.width": 5, "windows.volumes": 16},
    "autoencoder": {"model.rank": 3, "model.width": 5, "warm_start.searches": 1, "windows.volumes": 16},
}
#: Keys that change the loss, not what it is of.
LOSSES = {
    "loss.fmri_weight": 0.5, "loss.reconstruction_weight": 0.5, "loss.video_weight": 0.5, "loss.audio_weight": 0.5,
    "loss.text_weight": 0.5, "loss.fmri": "mae",
}  # fmt: skip


def own(family: str) -> set[str]:
    """The keys that only this family has."""
    kind = RECIPES[family].settings_type
    return {key for key in set(dotted_keys(kind)) - set(dotted_keys(RunSettings)) if "." in key}


def changed(family: str, key: str, value) -> Stepped:
    section, name = key.split(".")
    recipe = RECIPES[family]
    part = getattr(recipe.settings, section).model_copy(update={name: value})
    return recipe.with_settings(recipe.settings.model_copy(update={section: part}))


def keys_of(content: dict, before: str = "") -> set[str]:
    return {
        key for name, value in content.items()
        for key in (keys_of(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}"})
    }  # fmt: skip


@pytest.mark.parametrize("facts", FAMILIES, ids=lambda facts: facts.name)
def test_the_full_settings_name_every_key_and_explain_it(facts):
    text = facts.config.read_text(encoding="utf-8")
    assert own(facts.name) <= keys_of(yaml.safe_load(text))
    explained = False
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped:
            explained = False
        elif stripped.startswith("#"):
            explained = True
        elif not stripped.endswith(":"):
            assert explained, f"`{stripped}` has no comment"


@pytest.mark.parametrize("facts", FAMILIES, ids=lambda facts: facts.name)
def test_every_preset_is_valid_and_smaller_than_the_full_settings(facts):
    kind = RECIPES[facts.name].settings_type
    full = build(kind, read_yaml(facts.config))
    for path in facts.presets.values():
        assert path.read_text(encoding="utf-8").startswith("# "), f"{path} does not state what it is for"
        assert build(kind, read_yaml(facts.config), read_yaml(path)).training.epochs <= full.training.epochs


@pytest.mark.parametrize(("family", "key"), [(family, key) for family, keys in VALUES.items() for key in keys])
def test_every_key_changes_the_constants_the_weights_or_the_windows(splits, family, key):
    after = outcome(changed(family, key, VALUES[family][key]), splits["train"])
    before = outcome(RECIPES[family], splits["train"])
    assert any(before[part] != after[part] for part in before)


def outcome(recipe: Stepped, rows) -> dict[str, bytes]:
    constants = recipe.fit_constants(rows)
    torch.manual_seed(0)
    weights = recipe.build(constants).state_dict()
    item = recipe.dataset(rows, training=True).item(0, 0)
    return {
        "constants": b"".join(np.ascontiguousarray(constants[name]).tobytes() for name in sorted(constants)),
        "weights": b"".join(weights[name].numpy().tobytes() for name in sorted(weights)),
        "item": b"".join(item[name].tobytes() for name in sorted(item)),
    }


@pytest.mark.parametrize("family", RECIPES)
def test_dropout_acts_once_the_residual_is_not_zero(splits, family):
    losses = set()
    for dropout in (0.0, 0.9):
        recipe = changed(family, "model.dropout", dropout)
        torch.manual_seed(0)
        model = recipe.build(recipe.fit_constants(splits["train"])).train()
        torch.nn.init.ones_(model.residual[-1].weight)
        dataset = recipe.dataset(splits["train"], training=True)
        batch = dataset.collate([dataset.item(0, 0)])
        losses.add(next(iter(recipe.losses(model, batch, TrainingProgress(0, 1)).values())).total.item())
    assert len(losses) == 2


@pytest.mark.parametrize("key", LOSSES)
def test_every_key_of_the_loss_changes_the_gradient(splits, key):
    gradients = []
    for recipe in (RECIPES["autoencoder"], changed("autoencoder", key, LOSSES[key])):
        torch.manual_seed(0)
        model = recipe.build(recipe.fit_constants(splits["train"]))
        dataset = recipe.dataset(splits["train"], training=True)
        batch = dataset.collate([dataset.item(0, 0)])
        terms, counts = recipe.losses(model, batch, TrainingProgress(0, 1)), recipe.counts(batch)
        sum(loss.total * loss.coefficient / counts[name] for name, loss in terms.items()).backward()
        gradients.append(model.bottleneck.grad)
    assert not torch.allclose(*gradients)


@pytest.mark.parametrize("family", RECIPES)
def test_coreml_is_a_format_of_every_graph_or_of_none(splits, family):
    for wanted in (True, False):
        recipe = changed(family, "export.coreml", wanted)
        model = recipe.build(recipe.fit_constants(splits["train"]))
        assert {"coreml" in graph.formats for graph in recipe.graphs(model)} == {wanted}


def test_every_own_key_is_proved_here():
    elsewhere = {"model.dropout", "model.parallel", "export.coreml"}  # above, and in test_killed_brain.py
    proved = {family: elsewhere | set(keys) for family, keys in VALUES.items()}
    proved["autoencoder"] |= set(LOSSES)
    assert {family: own(family) for family in RECIPES} == proved
