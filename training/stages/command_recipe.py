"""The recipe that a command of the command line means."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from training.domain import Job
from training.flags import data_options
from training.registry import require_one_model
from training.stages.command_budget import preset_of
from training.workspace import Workspace

if TYPE_CHECKING:
    from training.recipe import Recipe


def recipe_of(options: argparse.Namespace, workspace: Workspace) -> Recipe:
    """The recipe with the settings of this command. `--epochs` replaces the length that a preset gives."""
    from training.registry import recipe_with, settings_layers

    require_one_model(options.family)
    preset = preset_of(options, workspace)
    if preset != options.preset:
        print(f"Preset: {preset}")
    layers = settings_layers(options.family, preset or "full", options.config)
    for note in [note for layer in layers for note in layer.notes if os.environ.get("RANK", "0") == "0"]:
        print(f"  {note}")
    overrides = list(options.set)
    if options.seed is not None:
        overrides.append(f"seed={options.seed}")
    if options.epochs is not None:
        least = recipe_with(options.family, layers, overrides).settings.training.min_epochs
        # a short run requested on the command line is not refused for a configuration's longer min_epochs
        overrides += [f"training.epochs={options.epochs}", f"training.min_epochs={min(least, options.epochs)}"]
        for limit in ("max_steps", "max_minutes"):  # of a preset: it must not end the training earlier
            if options.config is None and not any(word.startswith(f"training.{limit}=") for word in options.set):
                overrides.append(f"training.{limit}=null")
    job = Job(workspace, data_options(options))
    return recipe_with(options.family, layers, overrides, job)
