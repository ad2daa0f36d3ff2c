"""The recipe of a model and a data set of one's own: any torch module and map-style data set, trained by the engine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset, default_collate

from giblet.training.losses import CombinedAutoEncoderLoss
from training.data.rows import Row
from training.domains.brain.moments import correlations_of, sums_of
from training.errors import UsageError
from training.recipe import Loss, Stepped
from training.settings import RunSettings

INPUTS = ("video", "audio", "text")
TARGET = "fmri"
PARTS = ("video_loss", "audio_loss", "text_loss", "fmri_loss")  # logged beside the loss
_DIGESTED = 64  # items of a data set that identify it


class Samples:
    """A map-style data set as the engine's: the items are dictionaries of tensors, arrays and numbers."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def item(self, epoch: int, index: int) -> dict[str, np.ndarray]:
        found = self.dataset[index]
        missing = [name for name in (*INPUTS, TARGET) if name not in found]
        if missing:
            raise UsageError(f"item {index} of {type(self.dataset).__name__} has no {', '.join(missing)}.")
        return {name: np.asarray(found[name]) for name in (*INPUTS, TARGET)}

    def collate(self, items: Sequence[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
        return default_collate([{name: torch.as_tensor(of) for name, of in item.items()} for item in items])


class ModuleRecipe(Stepped):
    """Trains `module`, called with video, audio and text [B, ...] each, which returns the outputs that
    CombinedAutoEncoderLoss takes. Loss and metrics are means over volumes."""

    family: ClassVar[str] = "module"
    title: ClassVar[str] = "Model"
    manifest: ClassVar[str] = "module"
    settings_type: ClassVar[type[RunSettings]] = RunSettings

    def __init__(self, settings: RunSettings, module: nn.Module, criterion: CombinedAutoEncoderLoss,
                 datasets: dict[str, Dataset]):  # fmt: skip
        super().__init__(settings)
        self.module, self.criterion, self.datasets = module, criterion, datasets

    def with_settings(self, settings):
        return type(self)(settings, self.module, self.criterion, self.datasets)

    def rows(self, split: str) -> list[Row]:
        """One row for the data set of a split, which names its content: other data are another run."""
        samples = Samples(self.datasets[split])
        total = hashlib.sha256(f"{type(samples.dataset).__qualname__} {len(samples)}".encode())
        for index in np.unique(np.linspace(0, len(samples) - 1, _DIGESTED).astype(int)) if len(samples) else ():
            for name, values in sorted(samples.item(0, int(index)).items()):
                total.update(name.encode() + np.ascontiguousarray(values).tobytes())
        return [Row({"id": f"{split} {total.hexdigest()}"}, f"the data set of {split}", {})]

    def encoders(self):
        return {}

    def fit_constants(self, rows):
        return {}

    def dataset(self, rows, training):
        return Samples(self.datasets["train" if training else "val"])

    def build(self, constants):
        return self.module

    def counts(self, batch):
        return dict.fromkeys(("loss", *PARTS), float(len(batch[TARGET])))

    def losses(self, model, batch, progress):
        total, parts = self._criterion(model(*(batch[name] for name in INPUTS)), batch)
        number = len(batch[TARGET])
        out = {"loss": Loss(total * number)}
        return out | {name: Loss(parts[name].detach() * number, 0.0) for name in PARTS}

    def validate(self, model, batch):
        outputs = model(*(batch[name] for name in INPUTS))
        total, _ = self._criterion(outputs, batch)
        number = len(batch[TARGET])
        predicted, measured = (of.float()[:, None, None] for of in (outputs["predicted_fmri"], batch[TARGET]))
        weight = measured.new_ones(measured.shape[:3])
        return {"val_loss": (total * number, float(number)), **sums_of(predicted, measured, weight)}

    def summarise(self, means: Any) -> dict[str, float]:
        return {"val_loss": float(means["val_loss"]), "val_r": float(correlations_of(means).mean())}

    def _criterion(self, outputs, batch):
        return self.criterion(outputs, *(batch[name] for name in (*INPUTS, TARGET)))
