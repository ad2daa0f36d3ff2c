"""Loads a trained model from its checkpoint, for evaluate, for export, and for families that need another family's
model."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.config import Layer, build
from training.data.files import sha256
from training.domain import Job
from training.engine.checkpoints.checkpoint_file import read
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.engine.checkpoints.index import BEST, Index
from training.engine.checkpoints.partial import load_state
from training.engine.checkpoints.provenance import decisive_settings, plain
from training.engine.fit import fitted
from training.errors import HostError, UsageError
from training.recipe import Fitted, Recipe
from training.registry import domain_of, families, family_of, item_of, recipe_type
from training.settings import RunSettings
from training.workspace import Workspace


@dataclass(frozen=True)
class Trained:
    """A checkpoint, its recipe with the settings that it was trained under, and the model.

    `model` of a stepped family: the module in evaluation mode with averaged (EMA) weights where there are some,
    float32, on the CPU; of a fitted one: its state, which predicts and does not advance.
    """

    path: Path
    sha256: str
    content: dict[str, Any]  # the checkpoint as saved
    recipe: Recipe
    model: Any


def load_trained(
    run: str, workspace: Workspace, checkpoint: Path | None = None, options: Mapping[str, Any] | None = None
) -> Trained:
    """Read `checkpoint`, or the best of `run` ("family" or "family/item"). `options`: the domain's, by attribute, which
    may name another place of something that it needs. Raises UsageError, naming what to run, where there is none, and
    HostError where none is intact."""
    if checkpoint is None:
        checkpoints = CheckpointFolder(workspace.checkpoints(run))
        checkpoint = checkpoints.best()
        if checkpoint is None and checkpoints.all_damaged():
            raise HostError(
                f"{checkpoints.damage()}. Restore them from a replica (python -m training restore --persist "
                "DIR) or from a copy of your own. See docs/recovery.md."
            )
        if checkpoint is None:
            raise UsageError(
                f"There is no trained {run} in {workspace.checkpoints(run)}. Train it first: "
                f"python -m training train {run}"
            )
        if checkpoint.name != BEST and BEST in checkpoints.listed():
            print(
                f"{run}: {BEST} is damaged or missing; {checkpoint.name}, the best of the others, is used (see "
                "docs/recovery.md)",
                file=sys.stderr,
            )
    content = read(checkpoint)
    if content["family"] != run:
        raise UsageError(f"{checkpoint} is a checkpoint of {content['family']}, not of {run}.")
    kind = recipe_type(run)
    settings = build(kind.settings_type, Layer(content["settings"], name=str(checkpoint)))
    recipe = kind(_with_options(run, workspace, options or {}, settings))
    recipe.item = item_of(run)
    recipe.needed = needed_of(run, workspace, required=False)
    try:
        model = _model(recipe, content, str(checkpoint))
    except (RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[-1].strip()
        raise UsageError(
            f"{checkpoint} does not fit this version of {run} ({reason}). Use the version that trained it "
            f"({content['provenance'].get('code_version', 'not recorded')}), or train it again."
        ) from None
    return Trained(checkpoint, sha256(checkpoint), content, recipe, model)


def steps_of_training(trained: Trained, workspace: Workspace) -> int:
    """The steps of the complete training that `trained` is a checkpoint of. A limit of time shortens the plan while the
    model trains, so the newest checkpoint of the same training has the number, and an older one may have a larger."""
    folder = CheckpointFolder(workspace.checkpoints(trained.recipe.run))
    newest, index = folder.latest(), Index.read(folder.path)
    own = index.of_content(trained.sha256)
    progress = trained.content["progress"]
    if own and newest and (last := index.of_content(sha256(newest))) and last.run_id == own.run_id:
        progress = torch.load(newest, weights_only=True, mmap=True, map_location="cpu")["progress"]
    return progress["total_steps"]


def _with_options(run: str, workspace: Workspace, options: Mapping[str, Any], settings: RunSettings) -> RunSettings:
    """The settings of a checkpoint as the domain's options change them: where something is, or how results are measured
    (RunSettings.resumable). Raises UsageError for options that would change anything else."""
    if not options:
        return settings
    domain = domain_of(run)
    more = domain.settings(Job(workspace, options), family_of(run), settings)
    if not more:
        return settings
    kind = type(settings)
    changed = build(kind, Layer(plain(settings)), Layer(more, name=f"the options of {domain.word}"))
    old, new = (decisive_settings(plain(one), kind.resumable) for one in (settings, changed))
    differing = [f"{key}: {old.get(key)} -> {new.get(key)}" for key in new if old.get(key) != new[key]]
    if differing:
        raise UsageError(f"The options do not fit the checkpoint of {run}, which was trained with {differing[0]}.")
    return changed


def _model(recipe: Recipe, content: Mapping[str, Any], name: str) -> Any:
    if isinstance(recipe, Fitted):
        return fitted.loaded(recipe, content)
    constants = {name: tensor.numpy() for name, tensor in content["constants"].items()}
    model = recipe.build(constants)  # type: ignore[attr-defined]  it is Stepped
    load_state(recipe, model, content, name, averaged=True)
    return model.eval()


# -- families that need others -------------------------------------------------------------------------------------


def needed_runs(run: str) -> tuple[str, ...]:
    """The runs that `run` needs or uses: of the same item, where such a family has one model an item."""
    known = families()
    facts = known.get(family_of(run))  # None: no domain declares this family
    item = item_of(run)
    return tuple(
        f"{name}/{item}" if item and known[name].fan_out else name for name in (facts.after if facts else ())
    )  # fmt: skip


def needed_of(run: str, workspace: Workspace, *, required: bool = True) -> dict[str, Trained]:
    """Family -> its trained model, for every family that `run` needs or uses. Raises UsageError, naming what to run,
    for one that it needs and that is not trained; if not `required`, that is left out instead."""
    found = {}
    facts = families().get(family_of(run))
    for name in needed_runs(run):
        if CheckpointFolder(workspace.checkpoints(name)).best() is None:
            if not required or (facts and family_of(name) not in facts.needs):
                continue
            raise UsageError(
                f"{run} needs {name}, which is not trained in {workspace.checkpoints(name)}. Train it first: "
                f"python -m training train {name}"
            )
        found[family_of(name)] = load_trained(name, workspace)
    return found


def digest_with(data_digest: str, needed: Mapping[str, Trained]) -> str:
    """A digest of the data and of the needed models. If one of these is trained again, a new run begins."""
    if not needed:
        return data_digest
    models = {name: trained.sha256 for name, trained in sorted(needed.items())}
    return hashlib.sha256(json.dumps([data_digest, models]).encode()).hexdigest()
