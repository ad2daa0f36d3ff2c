"""The autoencoder family: the encoding model with a decoder from its bottleneck back to the film."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from training.domains.brain.autoencoder import pictures
from training.domains.brain.autoencoder.model import MODALITIES, Autoencoder, Bottleneck, Decoder
from training.domains.brain.autoencoder.objective import coefficients, fmri_count, fmri_total, shares
from training.domains.brain.autoencoder.reconstruction import judge_reconstruction
from training.domains.brain.autoencoder.settings import AutoencoderSettings
from training.domains.brain.encoding.recipe import MEANINGS, EncodingRecipe
from training.domains.brain.material import Material, Rows, seen
from training.domains.brain.moments import correlations_of, sums_of
from training.graphs import Graph, TensorSpec
from training.judgement import Judgement, Verdict
from training.recipe import Loss

if TYPE_CHECKING:
    from collections.abc import Mapping

LEAST_SHARE = 0.1  # of the bottleneck's gradient that the BOLD should have
PREFIX = "autoencoder_"  # of its files: those of the encoding family have the same names


class AutoencoderRecipe(EncodingRecipe):
    """It begins as ridge of reduced rank with a least-squares decoder. The loss is fmri_weight times that of the BOLD,
    and reconstruction_weight times the weighted mean of the modalities."""

    family, title, settings_type = "autoencoder", "Autoencoder", AutoencoderSettings
    settings: AutoencoderSettings

    def fit_constants(self, rows):
        rows = seen(rows)
        out = dict(super().fit_constants(rows))
        features = np.concatenate([
            Material.of(rows).features[name][begin:end] for name, begin, end in Rows.of(rows).spans()
        ]).astype(np.float64)  # fmt: skip
        bottleneck = features @ out["bottleneck"][0]
        out["decoder"] = np.linalg.lstsq(bottleneck, features, rcond=1e-6)[0].astype(np.float32)
        return out

    def build(self, constants):
        return Autoencoder(constants, self.settings.model)

    # -- training ------------------------------------------------------------------------------------------------------

    def counts(self, batch):
        volumes = float(batch["present"].amax(1).sum())
        fmri = fmri_count(self.settings.loss.fmri, batch["present"], batch["bold"].shape[-1])
        share = {} if self.parallel == "fsdp" else {"share_fmri": 1.0}
        return {"fmri": fmri, **dict.fromkeys(_modalities(batch), volumes), **share}

    def losses(self, model, batch, progress):
        out, bottleneck = self._terms(model, batch)
        if self.parallel == "fsdp":
            # A second backward pass over sharded heads gathers them in an order that can differ between ranks, which
            # then wait for each other for ever. The evaluation, in one process, reports the share.
            return out
        share = self._share(out, bottleneck, self.counts(batch))
        return out | {"share_fmri": Loss(bottleneck.new_tensor(share), 0.0)}

    def _terms(self, model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> tuple[dict[str, Loss], torch.Tensor]:
        """The terms of the loss, and the bottleneck [B, H + T, K]."""
        predicted, measured, bottleneck, errors = model(batch)
        present = batch["present"]
        totals = {"fmri": fmri_total(self.settings.loss.fmri, predicted, measured, present)}
        for modality in _modalities(batch):
            if modality in errors:
                totals[modality] = (errors[modality] * present.amax(1)).sum()
            else:  # its features are constant over the training rows
                totals[modality] = predicted.new_zeros(())
        weights = coefficients(self.settings.loss, list(errors))
        return {name: Loss(total, weights.get(name, 0.0)) for name, total in totals.items()}, bottleneck

    @staticmethod
    def _share(losses: Mapping[str, Loss], bottleneck: torch.Tensor, counts: Mapping[str, float]) -> float:
        """The share of the BOLD in the gradient at the bottleneck; 0 where there are no gradients."""
        if not bottleneck.requires_grad:
            return 0.0
        terms = {name: loss.total * (loss.coefficient / max(counts[name], 1)) for name, loss in losses.items()}
        return shares(terms, bottleneck)["fmri"]

    def validate(self, model, batch):
        predicted, measured, _, errors = model(batch)
        present = batch["present"]
        kind = self.settings.loss.fmri
        out = {"fmri": (fmri_total(kind, predicted, measured, present),
                        fmri_count(kind, present, measured.shape[-1]))}  # fmt: skip
        weight = present.amax(1)
        out |= {name: ((of * weight).sum(), float(weight.sum())) for name, of in errors.items()}
        return out | sums_of(predicted.float(), measured.float(), present)

    def summarise(self, means):
        modalities = [name for name in MODALITIES if name in means]
        weights = coefficients(self.settings.loss, modalities)
        parts = {name: float(means[name]) for name in weights if name in means}
        loss = sum(weights[name] * value for name, value in parts.items())
        return {"val_loss": loss, "val_r": float(correlations_of(means).mean())} | {
            f"val_{name}": value for name, value in parts.items()
        }

    # -- evaluation ----------------------------------------------------------------------------------------------------

    def evaluate(self, context):
        found = super().evaluate(context)
        kept = judge_reconstruction(context.model, Rows.of(seen(context.held_out)))
        share = self.share(context.model, context.train)
        sentences = [f"The bottleneck gives back {_listed(kept)} of the variance on held-out time."]
        if share < LEAST_SHARE:
            sentences.append(
                f"The BOLD has {100 * share:.1f} % of the gradient at the bottleneck: reconstruction decides what it "
                "learns. Lower loss.reconstruction_weight."
            )
        verdict = Verdict(found.verdict.word, [*found.verdict.why, *sentences])
        more = {**found.more, "brain": {**found.more["brain"], "share_fmri": share}}
        return Judgement({**found.metrics, **kept}, verdict, more)

    def share(self, model, rows) -> float:
        """The share of the BOLD in the gradient at the bottleneck, over the first windows of the training rows."""
        dataset, device = self.dataset(rows, training=False), next(model.parameters()).device
        found = []
        for number in range(min(8, len(dataset))):
            batch = {name: of.to(device) for name, of in dataset.collate([dataset.item(0, number)]).items()}
            with torch.enable_grad():
                found.append(self._share(*self._terms(model, batch), counts=self.counts(batch)))
        return float(np.mean(found))

    def samples(self, model, held_out, folder, seed):
        """The maps of the encoding model, and pictures that the bottleneck gives back."""
        out = super().samples(model, held_out, folder, seed)
        return [*out, pictures.draw(model, Rows.of(seen(held_out)), folder)] if "video" in model.modalities else out

    # -- export --------------------------------------------------------------------------------------------------------

    def graphs(self, model):
        encoder, *heads = super().graphs(model)
        rank, axes, trials = model.decoder.shape[0], encoder.axes, encoder.trials
        u = TensorSpec("inner", "float32", ("time", rank), "the bottleneck at the time of the film")
        outputs = tuple(
            TensorSpec(modality, "float32", ("time", len(getattr(model.features, f"mean_{band}"))), MEANINGS[band])
            for modality, band in MODALITIES.items() if modality in model.modalities
        )  # fmt: skip
        bottleneck = Graph("bottleneck", Bottleneck(model).eval(), encoder.inputs, (u,), axes, encoder.example, trials)
        decoder = Graph("decoder", Decoder(model).eval(), (u,), outputs, axes, heads[0].example, trials)
        every = (encoder, bottleneck, decoder, *heads)
        return [replace(graph, name=PREFIX + graph.name, formats=encoder.formats) for graph in every]


def _modalities(batch: Mapping[str, torch.Tensor]) -> list[str]:
    return [modality for modality, band in MODALITIES.items() if f"band_{band}" in batch]


def _listed(kept) -> str:
    return ", ".join(f"{100 * metric.model.value:.0f} % of {name.removesuffix('_r2')}" for name, metric in kept.items())
