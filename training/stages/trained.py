"""A trained model, read back from its checkpoint: what evaluate and export start from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.config import Layer, build
from training.data.files import sha256
from training.engine.checkpoints import checkpoint_folder as checkpoints
from training.errors import UsageError
from training.recipe import Recipe
from training.registry import item_of, recipe_type
from training.workspace import Workspace


@dataclass(frozen=True)
class Trained:
    """A checkpoint, its recipe with the settings that it was trained under, and the model in evaluation mode."""

    path: Path
    sha256: str
    content: dict[str, Any]  # the checkpoint as saved
    recipe: Recipe
    #: A module: averaged (EMA) weights where there are some, float32, on the CPU. Of a fitted family: its state.
    model: Any


def load_trained(family: str, workspace: Workspace, checkpoint: Path | None = None) -> Trained:
    """Read `checkpoint`, or the family's best. Raises UsageError, naming what to run, when there is none."""
    if checkpoint is None:
        checkpoint = checkpoints.best(workspace.checkpoints(family))
        if checkpoint is None:
            raise UsageError(
                f"There is no trained {family} in {workspace.checkpoints(family)}. Train it first: "
                f"python -m training train {family}"
            )
    content = checkpoints.read(checkpoint)
    if content["family"] != family:
        raise UsageError(f"{checkpoint} is a checkpoint of {content['family']}, not of {family}.")
    kind = recipe_type(family)
    recipe = kind(build(kind.settings_type, Layer(content["settings"], name=str(checkpoint))))
    recipe.item = item_of(family)
    model = recipe.build({name: tensor.numpy() for name, tensor in content["constants"].items()})
    try:
        model.load_state_dict(content["ema"] or content["model"])
    except RuntimeError as error:
        raise UsageError(
            f"{checkpoint} does not fit this version of {family} ({str(error).splitlines()[-1].strip()}). Use the "
            f"version that trained it ({content['provenance'].get('code_version', 'not recorded')}), or train anew."
        ) from None
    return Trained(checkpoint, sha256(checkpoint), content, recipe, model.eval())
