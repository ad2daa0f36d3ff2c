"""The settings files: each key is there with a comment above it, and every preset is valid; every key acts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml

from tests.domains.brain.conftest import SETTINGS
from training.config import build, dotted_keys, read_yaml
from training.domains.brain.encoding.recipe import EncodingRecipe
from training.domains.brain.encoding.settings import EncodingSettings
from training.domains.brain.families import ENCODING
from training.recipe import TrainingProgress
from training.settings import RunSettings

OWN = sorted(key for key in set(dotted_keys(EncodingSettings)) - set(dotted_keys(RunSettings)) if "." in key)


def keys_of(content: dict, before: str = "") -> set[str]:
    return {
        key for name, value in content.items()
        for key in (keys_of(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}"})
    }  # fmt: skip


def test_the_full_settings_name_every_key_and_explain_it():
    text = ENCODING.config.read_text(encoding="utf-8")
    assert set(OWN) <= keys_of(yaml.safe_load(text))
    explained = False
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped:
            explained = False
        elif stripped.startswith("#"):
            explained = True
        elif not stripped.endswith(":"):
            assert explained, f"`{stripped}` has no comment"


def test_every_preset_is_valid_and_smaller_than_the_full_settings():
    full = build(EncodingSettings, read_yaml(ENCODING.config))
    for path in ENCODING.presets.values():
        assert path.read_text(encoding="utf-8").startswith("# "), f"{path} does not state what it is for"
        assert (
            build(EncodingSettings, read_yaml(ENCODING.config), read_yaml(path)).training.epochs <= full.training.epochs
        )


@pytest.mark.parametrize(
    ("key", "value"), [("model.rank", 3), ("model.width", 5), ("warm_start.searches", 1), ("windows.volumes", 16)]
)
def test_every_key_changes_the_constants_the_weights_or_the_windows(splits, key, value):
    section, name = key.split(".")
    changed = SETTINGS.model_copy(update={section: getattr(SETTINGS, section).model_copy(update={name: value})})
    before, after = (outcome(settings, splits["train"]) for settings in (SETTINGS, changed))
    assert any(before[part] != after[part] for part in before)


def outcome(settings: EncodingSettings, rows) -> dict[str, bytes]:
    recipe = EncodingRecipe(settings)
    constants = recipe.fit_constants(rows)
    torch.manual_seed(0)
    weights = recipe.build(constants).state_dict()
    item = recipe.dataset(rows, training=True).item(0, 0)
    return {
        "constants": b"".join(np.ascontiguousarray(constants[name]).tobytes() for name in sorted(constants)),
        "weights": b"".join(weights[name].numpy().tobytes() for name in sorted(weights)),
        "item": b"".join(item[name].tobytes() for name in sorted(item)),
    }


def test_dropout_acts_once_the_residual_is_not_zero(splits):
    losses = set()
    for dropout in (0.0, 0.9):
        recipe = EncodingRecipe(
            SETTINGS.model_copy(update={"model": SETTINGS.model.model_copy(update={"dropout": dropout})})
        )
        torch.manual_seed(0)
        model = recipe.build(recipe.fit_constants(splits["train"])).train()
        torch.nn.init.ones_(model.residual[-1].weight)
        dataset = recipe.dataset(splits["train"], training=True)
        batch = dataset.collate([dataset.item(0, 0)])
        losses.add(float(recipe.losses(model, batch, TrainingProgress(0, 1))["mse"].total.detach()))
    assert len(losses) == 2


def test_every_own_key_is_proved_here():
    assert OWN == ["model.dropout", "model.rank", "model.width", "warm_start.searches", "windows.volumes"]
