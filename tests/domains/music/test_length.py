"""How long a training is: `--epochs` is what the user wants, whatever a preset says."""

from pathlib import Path

import pytest

from training.cli import VERBS
from training.flags import parser_of
from training.stages.command_recipe import recipe_of
from training.workspace import Workspace


def settings_of(*words: str):
    command = ["train", *words]
    options = parser_of(VERBS, command).parse_args(command)
    return recipe_of(options, Workspace(Path("nowhere"))).settings.training


@pytest.mark.parametrize("family", ["spectocloud", "midi_generator"])
def test_epochs_of_the_command_are_not_cut_short_by_a_presets_steps(family):
    assert settings_of(family, "--preset", "debug").max_steps == 4
    chosen = settings_of(family, "--preset", "debug", "--epochs", "7")
    assert (chosen.epochs, chosen.max_steps) == (7, None)


def test_steps_that_the_command_sets_end_it_all_the_same():
    chosen = settings_of("spectocloud", "--preset", "debug", "--epochs", "7", "--set", "training.max_steps=3")
    assert (chosen.epochs, chosen.max_steps) == (7, 3)
