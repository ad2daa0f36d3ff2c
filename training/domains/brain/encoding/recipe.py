"""The encoding family: stimulus to voxels, from a warm start by ridge regression."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from training.domains.brain.encoding import maps
from training.domains.brain.encoding.model import Encoder, Encoding, Head
from training.domains.brain.encoding.settings import EncodingSettings
from training.domains.brain.encoding.warm_start import constants_of
from training.domains.brain.encoding.windows import BoldWindows
from training.domains.brain.evaluation.judging import Fitting, judge
from training.domains.brain.evaluation.unseen import judge_unseen, sentence
from training.domains.brain.features.haemodynamics import kernel
from training.domains.brain.material import Fitted, Material, Rows, encoders, seen, unseen
from training.domains.brain.moments import correlations_of, squared_errors, sums_of
from training.domains.brain.places import MANIFEST
from training.domains.brain.stimulus.bins import Stimulus
from training.graphs import Graph, TensorSpec
from training.judgement import Judgement, Verdict
from training.recipe import Loss, Stepped

if TYPE_CHECKING:
    from training.data.rows import Row

LONGEST = 4_096  # volumes that an exported graph takes


class EncodingRecipe(Stepped):
    """A network that begins as reduced-rank ridge. All losses are relative to predicting the training mean, which has
    a mean squared error of about 1."""

    family, title, manifest, settings_type = "encoding", "Encoding", MANIFEST, EncodingSettings
    starts_trained = True
    settings: EncodingSettings

    def __init__(self, settings: EncodingSettings):
        super().__init__(settings)
        self.fitted = Fitted()

    def encoders(self):
        return encoders()

    def fit_constants(self, rows):
        settings = self.settings
        return constants_of(seen(rows), settings.model.rank, settings.warm_start.searches, settings.seed)

    def dataset(self, rows, training):
        rows = seen(rows)
        history = len(kernel(float(rows[0].values["tr"]))) - 1
        return BoldWindows(rows, self.settings.windows.volumes, history, self.settings.seed, training)

    def build(self, constants):
        return Encoding(constants, self.settings.model)

    @property
    def parallel(self):
        return self.settings.model.parallel

    def blocks(self, model):
        return list(model.heads)

    # -- training ------------------------------------------------------------------------------------------------------

    def counts(self, batch):
        return {"mse": float(batch["present"].sum()) * batch["bold"].shape[-1]}

    def losses(self, model, batch, progress):
        predicted, measured = model(batch)
        return {"mse": Loss(squared_errors(predicted, measured, batch["present"]).sum())}

    def validate(self, model, batch):
        predicted, measured = (part.float() for part in model(batch))
        present = batch["present"]
        count = float(present.sum()) * measured.shape[-1]
        error = squared_errors(predicted, measured, present).sum()
        return {"val_loss": (error, count), **sums_of(predicted, measured, present)}

    def summarise(self, means):
        return {"val_loss": float(means["val_loss"]), "val_r": float(correlations_of(means).mean())}

    # -- evaluation ----------------------------------------------------------------------------------------------------

    def evaluate(self, context):
        train, held_out = seen(context.train), seen(context.held_out)
        material = self.fitted.of(train)
        predict = self.predictor(context.model, [*train, *held_out])
        device = next(context.model.parameters()).device.type
        settings = self.settings
        fitting = Fitting(settings.seed, settings.warm_start.searches, settings.model.rank, device)
        found = judge(predict, material, held_out, fitting, self.fitted.models)
        return self._with_unseen(found, context, material)

    def _with_unseen(self, found: Judgement, context, material: Material) -> Judgement:
        """Adds the subjects who are left out of training."""
        train = unseen(context.train)
        if not train:
            return found
        runs = Rows.of(train).runs

        def latent(run: str) -> np.ndarray:
            with torch.no_grad():
                return latent_of(context.model, runs[run].stimulus).float().cpu().numpy()

        entries = judge_unseen(latent, material, train, unseen(context.held_out))
        verdict = Verdict(found.verdict.word, [*found.verdict.why, *(sentence(entry) for entry in entries)])
        return Judgement(found.metrics, verdict, {**found.more, "brain": {**found.more["brain"], "unseen": entries}})

    def predictor(self, model: Encoding, rows: Sequence[Row]) -> Callable[[str, str, int, int], np.ndarray]:
        """(subject, run, begin, end) -> predicted BOLD of the rows' runs, standardised: float32 [t, V]."""
        number = {row.values["subject"]: int(row.values["subject_number"]) - 1 for row in rows}
        runs = Rows.of(rows).runs
        known: dict[str, torch.Tensor] = {}

        def predict(subject: str, run: str, begin: int, end: int) -> np.ndarray:
            with torch.no_grad():
                if run not in known:
                    known[run] = latent_of(model, runs[run].stimulus)
                return model.heads[number[subject]](known[run][begin:end]).float().cpu().numpy()

        return predict

    def samples(self, model, held_out, folder, seed):
        """Maps of the subjects' voxels on the held-out rows, as NIfTI on the grid of the BOLD; results by region."""
        held_out = seen(held_out)
        return maps.write(self.predictor(model, held_out), model, held_out, folder)

    # -- export --------------------------------------------------------------------------------------------------------

    def graphs(self, model):
        bands = model.features.bands
        widths = {band: getattr(model.features, f"mean_{band}").shape[0] for band in bands}
        rank, voxels = model.heads[0].weight.shape
        inputs = tuple(TensorSpec(band, "float32", ("time", widths[band]), meaning_of(band)) for band in bands)
        latent = TensorSpec("bottleneck", "float32", ("time", rank), "shared by all subjects")
        axes = {"time": (1, LONGEST)}
        trials = ({"time": 1}, {"time": 3}, {"time": 40}, {"time": 317})
        encoder = Graph(
            "encoder", Encoder(model).eval(), inputs, (latent,), axes, _example(model, widths), trials,
        )  # fmt: skip
        heads = [
            Graph(
                f"bold_{number + 1:02}", Head(model, number).eval(), (latent,),
                (TensorSpec("z", "float32", ("time", voxels), "standardised BOLD, without drift"),
                 TensorSpec("bold", "float32", ("time", voxels), "in the units of the subject's first run")),
                axes, _latent_example(rank), trials,
            )
            for number in range(len(model.heads))
        ]  # fmt: skip
        return [replace(graph, formats=self.settings.export.formats) for graph in (encoder, *heads)]


LEAST = {"pixels": 0.0, "motion": 0.0, "sound": -8.0, "words": 0.0}  # value of each band
MEANINGS = {
    "pixels": "mean picture of the volume, 24 x 32 RGB, 0 to 255", "motion": "log of 1 + mean change of 3 x 4 cells",
    "sound": "log10 of the power in 32 mel bands", "words": "how often each word of the vocabulary begins",
}  # fmt: skip


def meaning_of(band: str) -> str:
    """The content of a band, for the users of an exported file."""
    return MEANINGS.get(band, f"features {band} of the user's own, mean of the volume")


def latent_of(model: Encoding, stimulus: Stimulus) -> torch.Tensor:
    """The bottleneck of a complete run, float32 [T, K], on the model's device."""
    device = next(model.parameters()).device
    bands = [torch.from_numpy(np.array(stimulus.bands[band], np.float32)).to(device) for band in model.features.bands]
    return Encoder(model)(*bands)


def _example(model: Encoding, widths: Mapping[str, int]):
    """Stimuli around the training mean, with the spread that its features have."""
    mean = {band: getattr(model.features, f"mean_{band}").cpu().numpy() for band in widths}

    def example(sizes, seed):
        random = np.random.default_rng(seed)
        return tuple(
            np.maximum(
                mean[band] + random.standard_normal((sizes["time"], width)), LEAST.get(band, -np.inf)
            ).astype(np.float32)
            for band, width in widths.items()
        )

    return example


def _latent_example(rank: int):
    def example(sizes, seed):
        return (np.random.default_rng(seed).standard_normal((sizes["time"], rank)).astype(np.float32),)

    return example
