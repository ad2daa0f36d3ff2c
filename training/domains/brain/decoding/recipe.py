"""The decoding family: voxels to features of the stimulus, from a warm start by ridge regression."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from training.domains.brain.decoding.judging import Decode, judge
from training.domains.brain.decoding.linear import constants_of, delays_of
from training.domains.brain.decoding.model import Decoding, Readout, SubjectMap
from training.domains.brain.decoding.settings import DecodingSettings
from training.domains.brain.decoding.windows import DecodingWindows
from training.domains.brain.encoding.recipe import LONGEST, meaning_of
from training.domains.brain.material import Fitted, encoders, seen
from training.domains.brain.moments import correlations_of, squared_errors, sums_of
from training.domains.brain.places import MANIFEST
from training.graphs import Graph, TensorSpec
from training.recipe import Loss, Stepped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.data.rows import Row


class DecodingRecipe(Stepped):
    """A network that begins as ridge from delayed voxels. The loss is relative to predicting the training mean, which
    has a mean squared error of 1."""

    family, title, manifest, settings_type = "decoding", "Decoding", MANIFEST, DecodingSettings
    starts_trained = True
    settings: DecodingSettings

    def __init__(self, settings: DecodingSettings):
        super().__init__(settings)
        self.fitted = Fitted()

    def encoders(self):
        return encoders()

    def fit_constants(self, rows):
        return constants_of(seen(rows), self.settings.model.rank)

    def dataset(self, rows, training):
        rows = seen(rows)
        delays = delays_of(float(rows[0].values["tr"]))
        return DecodingWindows(rows, self.settings.windows.volumes, delays, self.settings.seed, training)

    def build(self, constants):
        return Decoding(constants, self.settings.model)

    @property
    def parallel(self):
        return self.settings.model.parallel

    def blocks(self, model):
        return list(model.maps)

    # -- training ------------------------------------------------------------------------------------------------------

    def counts(self, batch):
        return {"mse": float(batch["valid"].sum())}

    def losses(self, model, batch, progress):
        decoded, true = model(batch)
        return {"mse": Loss(squared_errors(decoded, true, batch["valid"]).mean(-1).sum())}

    def validate(self, model, batch):
        decoded, true = (part.float() for part in model(batch))
        valid = batch["valid"]
        error = squared_errors(decoded, true, valid).mean(-1).sum()
        return {"val_loss": (error, float(valid.sum())), **sums_of(decoded, true, valid)}

    def summarise(self, means):
        return {"val_loss": float(means["val_loss"]), "val_r": float(correlations_of(means).mean())}

    # -- evaluation ----------------------------------------------------------------------------------------------------

    def evaluate(self, context):
        train, held_out = seen(context.train), seen(context.held_out)
        material = self.fitted.of(train)
        decode = self.decoder(context.model, [*train, *held_out])
        return judge(decode, material, held_out, self.settings.seed, self.fitted.models)

    def decoder(self, model: Decoding, rows: Sequence[Row]) -> Decode:
        """(subject, standardised BOLD float32 [T, V]) -> decoded features, float32 [T - last delay, F]."""
        number = {row.values["subject"]: int(row.values["subject_number"]) - 1 for row in rows}
        device = next(model.parameters()).device

        def decode(subject: str, bold_TV: np.ndarray) -> np.ndarray:
            place = number[subject]
            with torch.no_grad():
                z = torch.from_numpy(bold_TV).to(device)
                return model.read(model.maps[place](z)).cpu().numpy()

        return decode

    # -- export --------------------------------------------------------------------------------------------------------

    def graphs(self, model):
        bands, voxels = model.features.bands, model.drift.shape[-1]
        rank, count = model.readout.shape
        shared = TensorSpec("shared", "float32", ("time", rank), "the space that all subjects share")
        z = TensorSpec("z", "float32", ("time", voxels), "standardised BOLD, without drift")
        axes = {"time": (1, LONGEST)}
        trials = ({"time": 1}, {"time": 3}, {"time": 40}, {"time": 317})
        means = {band: getattr(model.features, f"mean_{band}") for band in bands}
        outputs = (
            TensorSpec("features", "float32", ("time", count), f"standardised, side by side: {', '.join(bands)}"),
            *(TensorSpec(band, "float32", ("time", len(means[band])), meaning_of(band)) for band in bands),
        )
        maps = [
            Graph(f"decoding_map_{number + 1:02}", SubjectMap(model, number).eval(), (z,), (shared,), axes,
                  _example(voxels), trials)
            for number in range(len(model.maps))
        ]  # fmt: skip
        readout = Readout(model).eval()
        features = Graph("decoding_features", readout, (shared,), outputs, axes, _example(rank), trials)
        return [replace(graph, formats=self.settings.export.formats) for graph in (*maps, features)]


def _example(width: int):
    def example(sizes, seed):
        return (np.random.default_rng(seed).standard_normal((sizes["time"], width)).astype(np.float32),)

    return example
