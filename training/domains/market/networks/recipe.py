"""The families of networks. K fold networks and the final one are trained in one run; each is updated by the windows
of the fit set of that network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from training.domains.market import decisions as of_market
from training.domains.market.decisions import CLASSES
from training.domains.market.networks.scaling import fitted
from training.domains.market.networks.settings import NetworkSettings
from training.domains.market.networks.together import Final, Together
from training.domains.market.networks.windows import Windows
from training.domains.market.stacking.judging import judged
from training.errors import DataError
from training.graphs import Graph, TensorSpec
from training.recipe import Loss, Stepped

if TYPE_CHECKING:
    from training.data.rows import Row

MANIFEST = "market"


class Network(Stepped):
    """Networks of one kind on windows that end at the decision."""

    manifest = MANIFEST
    settings: NetworkSettings

    @abstractmethod
    def one(self, features: int) -> nn.Module:
        """A newly initialised network: windows [B, T, F] -> logits [B, C]."""

    def encoders(self):
        return of_market.encoders()

    # -- data ------------------------------------------------------------------------------------------------------

    def _fits(self, rows: Sequence[Row]) -> list[np.ndarray]:
        """Positions of the decisions of `rows` that each of the K+1 networks is fitted on."""
        decisions, index = of_market.of_rows(rows)
        fits = [fit for fit, _ in self.settings.folds.of(decisions, index)]
        return [*fits, np.arange(len(index))]

    def fit_constants(self, rows):
        decisions, index = of_market.of_rows(rows)
        both = [fitted(decisions.features[index[fit]]) for fit in self._fits(rows)]
        return {name: np.stack(part) for name, part in zip(("median", "scale"), zip(*both, strict=True), strict=True)}

    def dataset(self, rows, training):
        decisions, index = of_market.of_rows(rows)
        member = np.zeros((len(index), self.settings.folds.count + 1), bool)
        if training:
            for number, fit in enumerate(self._fits(rows)):
                member[fit, number] = True
        else:
            member[:, -1] = True  # the final network alone is validated
        windows = Windows(decisions, index, member, self.settings.model.window)
        if not len(windows):
            raise DataError(
                f"No stretch of bars without a gap has {self.settings.model.window} decisions (model.window). Take a "
                "shorter window, or bars with fewer gaps."
            )
        return windows

    # -- training --------------------------------------------------------------------------------------------------

    def build(self, constants):
        features = constants["median"].shape[1]
        return Together(lambda: self.one(features), self.settings.model.window, **constants)

    def counts(self, batch):
        return {f"network{number}": float(count) for number, count in enumerate(batch["weight"].sum(0))}

    def losses(self, model, batch, progress):
        loss_BM = cross_entropy(model(batch["window"]), batch["label"]) * batch["weight"]
        return {f"network{number}": Loss(total) for number, total in enumerate(loss_BM.sum(0))}

    def validate(self, model, batch):
        loss_BM = cross_entropy(model(batch["window"]), batch["label"]) * batch["weight"]
        return {"val_loss": (loss_BM.sum(), float(batch["weight"].sum()))}

    def evaluate(self, context):
        return judged(context, name=self.family, seed=self.settings.seed)

    # -- export ----------------------------------------------------------------------------------------------------

    def graphs(self, model):
        window, features = self.settings.model.window, model.networks[-1][0].median
        return [
            Graph(
                self.family, Final(model).eval(),
                (TensorSpec("window", "float32", ("batch", window, len(features)), "raw features, the newest last"),),
                (TensorSpec("proba", "float32", ("batch", len(CLASSES)), f"of {', '.join(CLASSES)}"),),
                {"batch": (1, 4096)}, self._example(model), ({"batch": 1}, {"batch": 7}), tolerance=1e-5,
            )
        ]  # fmt: skip

    def _example(self, model: Together):
        scaler = model.networks[-1][0]
        median, scale = scaler.median.cpu().numpy(), scaler.scale.cpu().numpy()

        def example(sizes, seed):
            shape = (sizes["batch"], self.settings.model.window, len(median))
            return ((median + scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32),)

        return example


def cross_entropy(logits_BMC: torch.Tensor, label_B: torch.Tensor) -> torch.Tensor:
    """-log p(label) of each network, float32 [B, M]."""
    logits_BCM = logits_BMC.float().transpose(1, 2)
    return functional.cross_entropy(logits_BCM, label_B[:, None].expand(-1, logits_BCM.shape[2]), reduction="none")
