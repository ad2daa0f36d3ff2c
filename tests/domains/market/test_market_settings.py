"""The settings files: each key of a family is there with a comment above it, and every preset is valid."""

from __future__ import annotations

import pytest
import yaml

from training.config import build, dotted_keys, read_yaml
from training.domains.market.families import FAMILIES, PRESETS
from training.registry import recipe_type
from training.settings import RunSettings

EVERY = pytest.mark.parametrize("facts", FAMILIES, ids=lambda facts: facts.name)


def keys_of(content: dict, before: str = "") -> set[str]:
    return {
        key for name, value in content.items()
        for key in (keys_of(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}"})
    }  # fmt: skip


@EVERY
def test_the_full_settings_name_every_key_of_the_family_and_explain_it(facts):
    text = facts.config.read_text(encoding="utf-8")
    own = set(dotted_keys(recipe_type(facts.name).settings_type)) - set(dotted_keys(RunSettings))
    assert {key for key in own if "." in key} <= keys_of(yaml.safe_load(text))
    explained = False
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped:
            explained = False
        elif stripped.startswith("#"):
            explained = True
        elif not stripped.endswith(":"):  # a value; a comment may explain several
            assert explained, f"{facts.config.name}: `{stripped}` has no comment"


@EVERY
def test_every_preset_is_valid_and_smaller_than_the_full_settings(facts):
    kind = recipe_type(facts.name).settings_type
    full = build(kind, read_yaml(facts.config))
    assert set(facts.presets) == set(PRESETS)
    for path in facts.presets.values():
        assert path.read_text(encoding="utf-8").startswith("# "), f"{path} does not state what it is for"
        assert build(kind, read_yaml(facts.config), read_yaml(path)).training.epochs <= full.training.epochs
