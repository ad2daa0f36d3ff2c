"""The trainer: the engine of Athanor, on an autoencoder of the brain domain or on a module of one's own."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from giblet.data.dataset import SherlockDataset
from giblet.models.autoencoder import SherlockAutoencoder
from giblet.training.adapter import ModuleRecipe
from giblet.training.config import VOLUMES, TrainingConfig
from giblet.training.losses import CombinedAutoEncoderLoss
from giblet.training.processes import require_world
from training.config import Layer, build
from training.data.rows import Row
from training.domains.brain.autoencoder.recipe import AutoencoderRecipe
from training.engine.checkpoints.checkpoint_file import read
from training.engine.checkpoints.partial import load_state
from training.errors import UsageError
from training.recipe import Stepped
from training.settings import RunSettings
from training.stages.train import Trained, train
from training.workspace import Workspace

BEST_CHECKPOINT, FINAL_CHECKPOINT = "best_checkpoint.pt", "final_checkpoint.pt"


@dataclass(frozen=True)
class Folders(Workspace):
    """A workspace whose checkpoints and logs are in the folders of a TrainingConfig."""

    checkpoint_dir: Path = Path("checkpoints")
    log_dir: Path = Path("logs")

    def checkpoints(self, family: str) -> Path:
        return self.checkpoint_dir

    def runs(self, family: str) -> Path:
        return self.log_dir


class Trainer:
    """Trains `model` on `train_dataset`, and evaluates it on `val_dataset`.

    With a model of `create_autoencoder` and two SherlockDatasets, the autoencoder of the brain domain is trained, in
    windows of 64 volumes that are encoded once for all subjects. Any other module is called with video, audio and text
    of a batch of items, and returns video_recon, audio_recon, text_recon and predicted_fmri.

    Args:
        distributed, local_rank, world_size: of processes that torchrun started, or that called setup_distributed.

    Raises UsageError.
    """

    def __init__(
        self, model: nn.Module, train_dataset: Dataset, val_dataset: Dataset, config: TrainingConfig,
        distributed: bool = False, local_rank: int = 0, world_size: int = 1,
    ):  # fmt: skip
        require_world(distributed, world_size)
        self.model, self.config = model, config
        self.datasets = {"train": train_dataset, "val": val_dataset}
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        if isinstance(model, SherlockAutoencoder):
            self.recipe: Stepped = self._autoencoder(model)
            self.load = self._rows
        else:
            settings = build(RunSettings, Layer(config.settings(self.device, windows=False), name="TrainingConfig"))
            self.recipe = ModuleRecipe(settings, model, self._criterion(), self.datasets)
            self.load = self.recipe.rows
        folder = Path(config.checkpoint_dir)
        self.workspace = Folders(folder / "work", folder, Path(config.log_dir))

    def _autoencoder(self, model: SherlockAutoencoder) -> AutoencoderRecipe:
        train_set = self.datasets["train"]
        if not all(isinstance(one, SherlockDataset) for one in self.datasets.values()):
            raise UsageError("A model of create_autoencoder needs SherlockDatasets: its weights begin as their ridge.")
        wrong = [name for name, one in self.datasets.items() if one.split != name]
        if wrong:
            raise UsageError(f"{wrong[0]}_dataset is of the split {self.datasets[wrong[0]].split}.")
        if not train_set.apply_hrf or train_set.mode != "per_subject":
            raise UsageError(
                "The autoencoder has a causal response and a head for each subject: it needs apply_hrf=True and "
                'mode="per_subject". Use a module of your own for others.'
            )
        stimulus = next(iter(train_set.rows.runs.values())).stimulus
        model.require(len(train_set.rows.voxels), len(stimulus.vocabulary))
        own = {"model": model.settings["model"], "loss": self.config.objective() | model.settings["loss"],
               "windows": {"volumes": VOLUMES}}  # fmt: skip
        engine = self.config.settings(self.device, windows=True)
        return AutoencoderRecipe(
            build(AutoencoderRecipe.settings_type, Layer({**engine, **own}, name="TrainingConfig"))
        )

    def _rows(self, split: str) -> Sequence[Row]:
        return self.datasets[split].splits[split]

    def _criterion(self) -> CombinedAutoEncoderLoss:
        names = ("reconstruction_weight", "fmri_weight", "video_weight", "audio_weight", "text_weight",
                 "fmri_loss_type")  # fmt: skip
        return CombinedAutoEncoderLoss(**{name: getattr(self.config, name) for name in names})

    def train(self) -> dict[str, Any]:
        """Train to the end, or until early stopping; a run of the same settings and data in `checkpoint_dir` is
        continued. Returns best_val_loss, and train_history and val_history: dictionaries by epoch and by evaluation.

        `model` then has the best weights, in the mode of evaluation. Raises TrainingError, Interrupted (everything is
        saved) and others of training/stages/train.py.
        """
        done = train(self.recipe, self.workspace, device=self.device, load=self.load)
        if int(os.environ.get("RANK", 0)) == 0:
            for name, source in ((BEST_CHECKPOINT, done.best), (FINAL_CHECKPOINT, done.last)):
                _copy(source, Path(self.config.checkpoint_dir) / name)
        content = read(done.best)
        trained = self.recipe.build({name: of.numpy() for name, of in content["constants"].items()})
        load_state(self.recipe, trained, content, str(done.best), averaged=True)
        trained.eval()
        if isinstance(self.model, SherlockAutoencoder):
            self.model.network = trained
        train_history, val_history = history(done)
        return {
            "best_val_loss": float(done.metrics["val_loss"]), "train_history": train_history,
            "val_history": val_history,
        }  # fmt: skip


def _copy(source: Path, target: Path) -> None:
    """A second name of a checkpoint, or a copy where the file system has no links."""
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def history(done: Trained) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """The means of each epoch's steps, and the evaluations, from the log of a run."""
    steps: dict[int, list[dict[str, float]]] = {}
    evaluations = []
    for line in (done.run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        kind = record.pop("kind")
        if kind == "train":
            steps.setdefault(int(record["epoch"]), []).append(record)
        elif kind == "validation":
            evaluations.append(record)
    means = [
        {name: float(np.mean([one[name] for one in of if name in one])) for name in of[-1]}
        for _, of in sorted(steps.items())
    ]  # fmt: skip
    return means, evaluations
