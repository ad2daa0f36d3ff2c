"""Every key of the family's own sections has an effect, shown key by key; a key without a case fails here."""

import numpy as np
import pytest
import torch

from tests.domains.music.spectocloud.corpus import make_settings
from training.config import Layer, build, dotted_keys, read_yaml
from training.domain import PRESETS
from training.domains.music.spectocloud.config import SpectocloudConfig
from training.domains.music.spectocloud.recipe import SpectocloudRecipe
from training.errors import UsageError
from training.recipe import TrainingProgress
from training.registry import load_recipe
from training.settings import RunSettings
from training.workspace import PROJECT

FULL = PROJECT / "training" / "cuda_session" / "spectocloud_training_config.yaml"
CONSTANTS = {"mean": np.zeros(128, np.float32), "std": np.ones(1, np.float32)}


def recipe_with(key: str, value) -> SpectocloudRecipe:
    section, name = key.split(".")
    return SpectocloudRecipe(make_settings(**{section: {name: value}}))


def built(recipe):
    torch.manual_seed(0)
    return recipe.build(CONSTANTS)


def shapes(recipe, rows):
    return {name: tuple(p.shape) for name, p in built(recipe).named_parameters()}


def output(recipe, rows):
    model = built(recipe).train()
    torch.manual_seed(0)
    inputs = torch.randn(1, 128, 64), torch.randn(1, 64), torch.randn(1, 32)
    return [part.detach().numpy().tolist() for part in model(*inputs)]


def items(recipe, rows):
    split = recipe.dataset(rows, training=True)
    return len(split), [float(v.sum()) for i in range(len(split)) for v in split.item(1, i).values()]


def held_out(recipe, rows):
    split = recipe.dataset(rows, training=False)
    return [split.fixed[i].tolist() for i in range(len(split))]


def coefficients(recipe, rows):
    split = recipe.dataset(rows, training=True)
    batch = split.collate([split.item(0, 0)])
    return {
        name: term.coefficient for name, term in recipe.losses(built(recipe), batch, TrainingProgress(60, 100)).items()
    }


def validation(recipe, rows):
    return recipe.summarise({"pos_loss": 1.0, "color_loss": 1.0, "prop_loss": 1.0})["val_loss"]


def graphs(recipe, rows):
    return [(graph.formats, graph.axes) for graph in recipe.graphs(built(recipe).eval())]


#: key -> (another value than that of the tests' settings, a function that shows the difference)
CASES = {
    "model.width": (64, shapes),
    "model.layers": (2, shapes),
    "model.heads": (4, output),
    "model.mlp_ratio": (3, shapes),
    "model.dropout": (0.5, output),
    "model.particle_width": (16, shapes),
    "windows.per_song": (5, items),
    "windows.validation_per_song": (3, held_out),
    "windows.min_sounding": (1.0, held_out),
    "augment.gain_db": (3.0, items),
    "augment.transpose": (7, items),
    "augment.emotion_noise": (0.4, items),
    "augment.no_score": (1.0, items),
    "loss.position": (2.0, coefficients),
    "loss.color": (0.7, coefficients),
    "loss.properties": (0.7, coefficients),
    "loss.lifeline": (0.7, coefficients),
    "loss.index_matched": (0.7, coefficients),
    "export.int8": (False, graphs),
    "export.coreml": (False, graphs),
    "export.max_batch": (8, graphs),
}


def own_keys() -> set[str]:
    shared = set(dotted_keys(RunSettings))
    return {key for key in dotted_keys(SpectocloudConfig) if key not in shared and "." in key}


def test_every_key_has_a_case():
    assert set(CASES) == own_keys()


@pytest.mark.parametrize("key", sorted(CASES))
def test_the_key_changes_something(key, rows):
    value, shown = CASES[key]
    assert shown(recipe_with(key, value), rows) != shown(SpectocloudRecipe(make_settings()), rows)


@pytest.mark.parametrize("key", ["loss.position", "loss.color", "loss.properties"])
def test_validation_uses_the_same_loss_weights(key, rows):
    assert validation(recipe_with(key, 0.9), rows) != validation(SpectocloudRecipe(make_settings()), rows)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_valid_configuration(preset):
    assert load_recipe("spectocloud", preset).settings.seed == 42


def test_the_yaml_file_has_every_key_with_a_comment_above():
    places, lines = read_yaml(FULL).places, FULL.read_text().splitlines()
    assert set(places) == set(dotted_keys(SpectocloudConfig))
    for key, place in places.items():
        above = lines[int(place.rpartition(":")[2]) - 2].strip()
        section = key in ("training", "data", "optim", "scheduler", "logging", *(k.split(".")[0] for k in CASES))
        assert above.startswith("#") or section or key == "training.early_stopping", key


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"model": {"width": 30, "heads": 4}}, "model.width must be a multiple of model.heads"),
        ({"loss": {"position": 0}}, "loss.position"),
        ({"augment": {"gain": 3}}, "Did you mean `augment.gain_db`"),
        ({"export": {"max_batch": 1}}, "export.max_batch"),
    ],
)
def test_invalid_settings_are_refused(section, words):
    with pytest.raises(UsageError, match=words.replace(".", r"\.")):
        build(SpectocloudConfig, Layer(section))
