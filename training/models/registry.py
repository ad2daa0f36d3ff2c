"""The families there are. A new one is a folder beside this file and a line here."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from training.config import Layer, build, override_layer, read_yaml
from training.errors import UsageError
from training.workspace import PROJECT

if TYPE_CHECKING:
    from training.recipe import Recipe  # the command line asks for names alone: no numpy, a third of `--help`'s time

#: family -> (its recipe, its full config). Imported only when asked for: torch takes seconds.
FAMILIES = {
    "spectocloud": ("training.models.spectocloud.recipe:SpectocloudRecipe", "spectocloud_training_config.yaml"),
    "midi_generator": (
        "training.models.midi_generator.recipe:MidiGeneratorRecipe",
        "midi_generator_training_config.yaml",
    ),
}

#: `full` is the YAML file of the user's guide; the others are overlays that lie in the family's folder.
PRESETS = ("full", "small", "demo", "debug")


def recipe_type(family: str) -> type[Recipe]:
    """The Recipe class of a family. Raises UsageError for an unknown name."""
    if family not in FAMILIES:
        raise UsageError(f"There is no model family `{family}`; there are {', '.join(FAMILIES)}.")
    module, _, name = FAMILIES[family][0].partition(":")
    return getattr(importlib.import_module(module), name)


def settings_layers(family: str, preset: str = "full", config: Path | None = None) -> list[Layer]:
    """The layers that a run's settings are built from: the full file, then the preset's overlay; or `config` alone."""
    if config is not None:
        return [read_yaml(config)]
    layers = [read_yaml(PROJECT / "training" / "cuda_session" / FAMILIES[family][1])]
    if preset != "full":
        layers.append(read_yaml(PROJECT / "training" / "models" / family / f"{preset}.yaml"))
    return layers


def load_recipe(
    family: str, preset: str = "full", config: Path | None = None, overrides: tuple[str, ...] | list[str] = ()
) -> Recipe:
    """A family's recipe with its settings: preset or file, then `section.key=value` overrides on top."""
    kind = recipe_type(family)
    layers = [*settings_layers(family, preset, config), override_layer(overrides)]
    return kind(build(kind.settings_type, *layers))
