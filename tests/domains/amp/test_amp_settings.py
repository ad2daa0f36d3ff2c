"""The settings files, and that each key of the family changes something."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.domains.amp import small
from training.config import build, dotted_keys, read_yaml
from training.domains.amp.families import AMP
from training.domains.amp.student.objective import Criterion
from training.domains.amp.student.recipe import AmpRecipe
from training.domains.amp.student.recurrent import windows_of
from training.registry import domains
from training.runner.options import parse
from training.runner.plan import plan_of
from training.settings import RunSettings

OWN = sorted(set(dotted_keys(AmpRecipe.settings_type)) - set(dotted_keys(RunSettings)))
LEAVES = [key for key in OWN if "." in key]


def keys_of(content: dict, before: str = "") -> set[str]:
    return {
        key for name, value in content.items()
        for key in (keys_of(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}"})
    }  # fmt: skip


def test_the_full_settings_name_every_key_and_explain_it():
    text = AMP.config.read_text(encoding="utf-8")
    assert set(LEAVES) <= keys_of(yaml.safe_load(text))
    explained = False
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped:
            explained = False
        elif stripped.startswith("#"):
            explained = True
        elif not stripped.endswith(":"):
            assert explained, f"{AMP.config.name}: `{stripped}` has no comment"


@pytest.mark.parametrize("preset", ["small", "demo", "debug"])
def test_every_preset_is_valid_and_not_longer_than_the_full_settings(preset):
    kind, path = AmpRecipe.settings_type, AMP.presets[preset]
    full = build(kind, read_yaml(AMP.config))
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert build(kind, read_yaml(AMP.config), read_yaml(path)).training.max_steps < full.training.max_steps


#: Key -> another value, which must change what `effects` gives.
CHANGED: dict[str, Any] = {
    "student.size": "nano",
    "material.length": 4099, "material.samples": 12, "material.mix_di": 0.6, "material.lowest": 60.0,
    "material.highest": 70.0, "material.favour_high": 1.0, "material.quietest": -20.0, "material.loudest": -10.0,
    "material.level": "amplitude",
    "material.oversampling": 2,
    "loss.space": "linear", "loss.esr": 0.5, "loss.nmr": 0.5, "loss.dc": 2.0, "loss.floor_db": 3.0,
    "lstm.warmup": 2048, "lstm.window": 2200, "rates.input": 3.0, "rates.relative": 0.5,
}  # fmt: skip


def effects(**sections: Any) -> list[Any]:
    """What the settings decide: the samples, the loss of a fixed answer, rates, windows."""
    made, model, data = small.built(small.lstm(), **sections)
    samples = [data.item(1, index) for index in range(len(data))]
    random = torch.Generator().manual_seed(0)
    target = 0.1 * torch.randn(2, 8209, generator=random)
    criterion = Criterion(small.RATE, made.settings.loss)
    losses = criterion(0.9 * target, criterion.reference(target))
    return [
        [(sorted(item), *(np.asarray(item[key]).tolist() for key in sorted(item))) for item in samples],
        {name: (float(loss.total), loss.coefficient) for name, loss in losses.items()},
        [(group["lr"], group["params"][0].numel()) for group in made.parameter_groups(model)],
        windows_of(data.shape.length, made.settings.lstm.window),
        made._prepared(torch.device("cpu"))[2].factor,
    ]


@pytest.fixture(scope="module")
def plain() -> list[Any]:
    return effects()


@pytest.mark.parametrize("key", LEAVES)
def test_every_key_changes_something(key, plain):
    if key.startswith("judging."):
        return  # of the evaluation: test_judging.py
    section, name = key.split(".")
    assert effects(**{section: {name: CHANGED[key]}}) != plain


def test_settings_that_do_not_fit_together_are_refused():
    for material in ({"lowest": 90.0, "highest": 80.0}, {"quietest": -5.0, "loudest": -10.0}):
        with pytest.raises(Exception, match="lowest is below highest"):
            small.recipe(material=material)
    with pytest.raises(Exception, match=r"prime number.*the next one is 4099"):
        small.recipe(material={"length": 4096})


def test_the_guides_command_in_the_words_of_this_program(tmp_path):
    """`train.py --config 3 --wandb --max_epochs 100`, where 3 was the number of one capture."""
    words = ["amp", "--captures", str(tmp_path), "--only", "JCM800*", "--wandb", "caps", "--epochs", "100"]
    steps = {step.name: " ".join(step.command) for step in plan_of(parse(words, domains())).steps}
    assert "--only JCM800*" in steps["prepare"] and "--epochs 100" in steps["train amp"]
    assert "--set=logging.wandb=online --set=logging.wandb_project=caps" in steps["train amp"]
    assert "--only" not in steps["train amp"], "the manifests have the chosen captures alone"
