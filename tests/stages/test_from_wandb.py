"""A trained family from a run of Weights & Biases: logged at its export, restored elsewhere, and used there. The
stand-in for wandb keeps artifacts in a folder; the calls of it are compared with the real package's signatures."""

from __future__ import annotations

import importlib
import inspect
import json
import shutil
import sys

import pytest

from tests.engine import toy
from training.domains.music.domain import MUSIC
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.engine.checkpoints.index import BEST, Index
from training.errors import DataError, HostError, UsageError
from training.persist import wandb_artifact
from training.runner.options import parse
from training.runner.plan import plan_of
from training.settings import Logging
from training.stages.from_wandb import restore_from_wandb
from training.stages.gallery import show_exports
from training.wandb_address import WandbRun
from training.workspace import Workspace

STANDIN = """
import json, os, shutil
from pathlib import Path
PLACE = Path(os.environ["STANDIN_WANDB"])
class Artifact:
    def __init__(self, name, type, metadata): self.name, self.type, self.metadata, self.files = name, type, metadata, {}
    def add_file(self, path, name): self.files[name] = path
    def download(self, root=None, skip_cache=None):
        shutil.copytree(self.folder / "files", root)
class Run:
    url = None
    def __init__(self, path): self.path = path
    def log(self, values, step=None): pass
    def finish(self): pass
    def log_artifact(self, a):
        versions = [f for f in (PLACE / self.path).glob("*") if json.loads((f / "about").read_text())["name"] == a.name]
        folder = PLACE / self.path / f"{a.name}.v{len(versions)}"
        for name, path in a.files.items():
            (folder / "files" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / "files" / name)
        folder.mkdir(parents=True, exist_ok=True)
        about = {"name": a.name, "type": a.type, "metadata": a.metadata, "version": f"v{len(versions)}"}
        (folder / "about").write_text(json.dumps(about))
    def logged_artifacts(self):
        if not (PLACE / self.path).is_dir(): raise ValueError(f"Could not find run <Run {self.path} (not found)>")
        for folder in (PLACE / self.path).glob("*"):
            about = json.loads((folder / "about").read_text())
            made = Artifact(about["name"], about["type"], about["metadata"])
            made.version, made.folder = about["version"], folder
            yield made
class Api:
    def run(self, path): return Run(path)
def init(**options): return Run(f"me/{options['project']}/{options['id']}")
"""


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    """The folder of the stand-in's artifacts."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/wandb.py").write_text(STANDIN)
    monkeypatch.setenv("STANDIN_WANDB", str(tmp_path / "service"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    importlib.invalidate_caches()
    yield tmp_path / "service"
    sys.modules.pop("wandb", None)


@pytest.fixture
def logged(tmp_path, wandb, capsys):
    """(the address of a run that was trained and exported, what training returned)"""
    trained = toy.run(tmp_path / "there")
    return log(tmp_path / "there", trained), trained


def log(root, trained):
    """What the export of a run does for W&B."""
    recipe = toy.ToyRecipe(toy.ToySettings(logging=Logging(wandb="online", wandb_project="p", tensorboard=False)))
    entry = {"title": "Toy", "synthetic": True, "metrics": {}, "checkpoint": {}, "files": {},
             "trained": {"run_id": trained.run.name}}  # fmt: skip
    show_exports(recipe, entry, Workspace(root), root)
    return WandbRun.parse(f"me/p/{trained.run.name}")


def the_artifact(wandb):
    (folder,) = [
        path for path in wandb.glob("me/p/*/*") if json.loads((path / "about").read_text())["type"] == "checkpoint"
    ]
    return folder


def edit(wandb, change):
    about = json.loads((the_artifact(wandb) / "about").read_text())
    change(about["metadata"])
    (the_artifact(wandb) / "about").write_text(json.dumps(about))


def test_a_base_model_is_restored_elsewhere_and_not_trained_again(logged, tmp_path, capsys):
    address, trained = logged
    restore_from_wandb(Workspace(tmp_path / "here"), address)
    assert f"toy: restored step {trained.step} of run {trained.run.name}" in capsys.readouterr().out
    here = toy.run(tmp_path / "here")
    assert here.already and here.best.read_bytes() == trained.best.read_bytes()
    assert (here.run / "metrics.jsonl").read_bytes() == (trained.run / "metrics.jsonl").read_bytes()
    assert list((tmp_path / "here/cache").iterdir()) == [], "nothing of the download is left"
    assert set(Index.read(tmp_path / "here/checkpoints/toy").files) == {"last.pt", "best.pt"}


def test_the_newest_version_is_used(logged, tmp_path, capsys):
    address, trained = logged
    longer = toy.run(tmp_path / "there", training={"epochs": 4})
    assert longer.run == trained.run and longer.step > trained.step
    log(tmp_path / "there", longer)
    restore_from_wandb(Workspace(tmp_path / "here"), address)
    assert f"restored step {longer.step} of" in capsys.readouterr().out


def test_a_required_sha256_is_compared(logged, tmp_path):
    address, trained = logged
    digest = CheckpointFolder(trained.best.parent).listed()[BEST].sha256
    with pytest.raises(
        DataError, match=f"is another model: its checkpoint has the SHA-256 {digest}, and {'0' * 12} is"
    ):
        restore_from_wandb(Workspace(tmp_path / "here"), WandbRun(address.path, "0" * 12))
    assert not (tmp_path / "here/checkpoints/toy").exists()
    restore_from_wandb(Workspace(tmp_path / "here"), WandbRun(address.path, digest[:12]))


def test_what_is_newer_here_is_kept(logged, tmp_path, capsys):
    address, _ = logged
    own = toy.run(tmp_path / "here")
    restore_from_wandb(Workspace(tmp_path / "here"), address)
    assert "nothing newer is there" in capsys.readouterr().out
    assert toy.run(tmp_path / "here").run == own.run


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: (folder / "files/checkpoints/toy/best.pt").write_bytes(b"other"),
            "damaged: checkpoints/toy/best.pt",
        ),
        (lambda folder: (folder / "files/checkpoints/toy/last.pt").unlink(), "incomplete: checkpoints/toy/last.pt is"),
        (lambda folder: (folder / "files/runs/planted").write_text(""), "its metadata do not list: runs/planted"),
    ],
    ids=["damaged", "incomplete", "more"],
)
def test_an_artifact_that_differs_from_its_list_is_refused(logged, wandb, tmp_path, damage, message):
    damage(the_artifact(wandb))
    with pytest.raises(DataError, match=message):
        restore_from_wandb(Workspace(tmp_path / "here"), logged[0])
    assert not (tmp_path / "here/checkpoints/toy").exists() and list((tmp_path / "here/cache").iterdir()) == []


@pytest.mark.parametrize("run", ["../../x", "/etc", "toy/..", "Toy", "a/b/c", ""])
def test_a_name_that_leads_elsewhere_is_refused(logged, wandb, tmp_path, run):
    edit(wandb, lambda about: about.update(run=run))
    with pytest.raises(DataError, match=r"was not made by this program|is no file of the run"):
        restore_from_wandb(Workspace(tmp_path / "here"), logged[0])


def test_a_listed_file_that_leads_elsewhere_is_refused(logged, wandb, tmp_path):
    edit(wandb, lambda about: about["files"].update({"checkpoints/toy/../../../x": "0" * 64}))
    with pytest.raises(DataError, match=r"lists 'checkpoints/toy/../../../x', which is no file of the run toy"):
        restore_from_wandb(Workspace(tmp_path / "here"), logged[0])


def test_a_run_that_does_not_exist_or_has_no_checkpoints_is_named(logged, wandb, tmp_path):
    with pytest.raises(HostError, match=r"me/p/other cannot be read: Could not find run .* WANDB_API_KEY"):
        restore_from_wandb(Workspace(tmp_path), WandbRun("me/p/other"))
    shutil.rmtree(the_artifact(wandb))
    with pytest.raises(DataError, match="has no artifact of type checkpoint"):
        restore_from_wandb(Workspace(tmp_path), logged[0])


def test_the_runner_restores_base_models_before_it_trains():
    words = ["music", "--from-wandb", "me/p/a", "--from-wandb", "https://wandb.ai/me/p/runs/b@0123456789"]
    steps = plan_of(parse(words, {"music": MUSIC})).steps
    named = [step.name for step in steps]
    assert named.index("restore me/p/a") < named.index("restore me/p/b") < named.index("prepare")
    assert steps[named.index("restore me/p/b")].command[-2:] == ("--from-wandb", "me/p/b@0123456789")
    first = next(step for step in steps if step.name.startswith("train "))
    assert {"restore me/p/a", "restore me/p/b"} <= set(first.needs)
    for text in ("me/p", "me/p/a@12", "me/p/../x", "s3://bucket/a"):
        with pytest.raises(UsageError, match=r"it takes ENTITY/PROJECT/RUN"):
            WandbRun.parse(text)


def test_the_real_client_takes_the_calls_that_are_made():
    wandb = pytest.importorskip("wandb")
    from wandb.apis.public import Run

    inspect.signature(wandb.Api.run).bind(None, "me/p/run")
    inspect.signature(Run.logged_artifacts).bind(None)
    inspect.signature(wandb.Artifact.download).bind(None, root="folder", skip_cache=True)
    made = wandb.Artifact("toy-1-checkpoint", type=wandb_artifact.TYPE, metadata={"files": {"a/b": "0" * 64}})
    assert made.metadata == {"files": {"a/b": "0" * 64}} and isinstance(wandb.Artifact.version, property)
