"""Fixtures: the toy families, exported once; each test gets a copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.export import toy, toy_fitted
from tests.toys import register
from training.data.manifest import Row
from training.export import receipt
from training.stages import export as stage
from training.workspace import Workspace

ROWS = [Row({"id": str(n)}, f"toy.jsonl:{n}") for n in range(3)]


def _register(patch: pytest.MonkeyPatch) -> None:
    register(patch, toy.EncoderRecipe, toy.DecoderRecipe, toy_fitted.FittedRecipe)
    real = stage.load_trained
    fitted = toy_fitted.FittedRecipe.family

    def load(run, *arguments):
        return (toy_fitted.load_fitted if run.partition("/")[0] == fitted else real)(run, *arguments)

    patch.setattr(stage, "load_trained", load)
    patch.setattr(stage, "load_split", lambda *_, **__: ROWS)
    patch.setattr(receipt, "code_version", lambda *folders: f"code of {folders}")  # sources may change under a test


@pytest.fixture(autouse=True)
def toy_families(monkeypatch):
    """Registered only during the tests of this folder."""
    _register(monkeypatch)


def toy_workspace(root: Path) -> Workspace:
    """A workspace with a checkpoint and a held-out manifest of each toy family."""
    workspace = Workspace(root)
    workspace.manifests.mkdir(parents=True)
    for kind in (toy.EncoderRecipe, toy.DecoderRecipe):
        workspace.manifest(kind.manifest, "val").write_text('{"id": "0"}\n')
        toy.save_checkpoint(workspace, kind, ema=kind is toy.DecoderRecipe)
    return workspace


@pytest.fixture(scope="session")
def exported_once(tmp_path_factory) -> Workspace:
    workspace = toy_workspace(tmp_path_factory.mktemp("toy") / "out")
    with pytest.MonkeyPatch.context() as patch:
        _register(patch)
        stage.export({"toy_encoder": None}, workspace)
        stage.export({"toy_decoder": None}, workspace)
    return workspace


@pytest.fixture
def exported(exported_once, tmp_path) -> Workspace:
    shutil.copytree(exported_once.root, tmp_path / "out")
    return Workspace(tmp_path / "out")


def fitted_workspace(root: Path, *runs: str) -> Workspace:
    """A workspace with a checkpoint and a held-out manifest of each run of the fitted toy."""
    workspace = Workspace(root)
    for run in runs:
        manifest = workspace.manifest(run, "val")
        checkpoint = workspace.checkpoints(run) / "best.pt"
        for path in (manifest, checkpoint):
            path.parent.mkdir(parents=True, exist_ok=True)
        manifest.write_text('{"id": "0"}\n')
        checkpoint.write_text(f"the fitted model of {run}")
    return workspace


@pytest.fixture(scope="session")
def fitted_once(tmp_path_factory) -> Workspace:
    workspace = fitted_workspace(tmp_path_factory.mktemp("fitted") / "out", "toy_fitted")
    with pytest.MonkeyPatch.context() as patch:
        _register(patch)
        stage.export({"toy_fitted": None}, workspace)
    return workspace
