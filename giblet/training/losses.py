"""Losses of a batch of volumes, for models of one's own. The autoencoder's are in
training/domains/brain/autoencoder/objective.py."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from training.errors import UsageError

KINDS = ("mse", "mae", "correlation")
_EPS = 1e-6


class ReconstructionLoss(nn.Module):
    """The weighted sum of the mean squared errors of video, audio and text."""

    def __init__(self, video_weight: float = 1.0, audio_weight: float = 1.0, text_weight: float = 1.0):
        super().__init__()
        self.weights = {"video": video_weight, "audio": audio_weight, "text": text_weight}

    def forward(
        self, video_recon: torch.Tensor, video_target: torch.Tensor, audio_recon: torch.Tensor,
        audio_target: torch.Tensor, text_recon: torch.Tensor, text_target: torch.Tensor,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:  # fmt: skip
        """Tensors [B, F] each -> the loss, and video_loss, audio_loss, text_loss, reconstruction_loss."""
        given = {"video": (video_recon, video_target), "audio": (audio_recon, audio_target),
                 "text": (text_recon, text_target)}  # fmt: skip
        parts = {name: functional.mse_loss(recon.float(), target.float()) for name, (recon, target) in given.items()}
        total = sum(self.weights[name] * part for name, part in parts.items())
        return total, {**{f"{name}_loss": part for name, part in parts.items()}, "reconstruction_loss": total}


class FMRIMatchingLoss(nn.Module):
    """mse, mae, or correlation: 1 - r of each voxel over the volumes of the batch, both centred.

    Over the voxels of a volume, a prediction that never changes would correlate with raw BOLD, as the mean of a voxel
    is hundreds of times its response. So the correlation is over time.
    """

    def __init__(self, loss_type: str = "mse"):
        super().__init__()
        if loss_type not in KINDS:
            raise UsageError(f"loss_type should be one of {', '.join(KINDS)}; it is {loss_type!r}.")
        self.loss_type = loss_type

    def forward(self, predicted_fmri: torch.Tensor, target_fmri: torch.Tensor) -> torch.Tensor:
        """Tensors [B, V] -> a scalar. Raises UsageError for a correlation of fewer than two volumes."""
        predicted, target = predicted_fmri.float(), target_fmri.float()
        if self.loss_type == "mse":
            return functional.mse_loss(predicted, target)
        if self.loss_type == "mae":
            return functional.l1_loss(predicted, target)
        if len(target) < 2:
            raise UsageError(
                "fmri_loss_type: correlation needs two volumes and more in each batch: choose a batch_size of which "
                "the last batch is no single volume, better of 32 and more."
            )
        p, y = predicted - predicted.mean(0), target - target.mean(0)
        r = (p * y).sum(0) / torch.sqrt((p * p).sum(0) * (y * y).sum(0) + _EPS**2)
        return (1 - r).mean()


class CombinedAutoEncoderLoss(nn.Module):
    """reconstruction_weight times the reconstruction, plus fmri_weight times the BOLD."""

    def __init__(
        self, reconstruction_weight: float = 1.0, fmri_weight: float = 1.0, video_weight: float = 1.0,
        audio_weight: float = 1.0, text_weight: float = 1.0, fmri_loss_type: str = "mse",
    ):  # fmt: skip
        super().__init__()
        self.reconstruction_weight, self.fmri_weight = reconstruction_weight, fmri_weight
        self.reconstruction_loss = ReconstructionLoss(video_weight, audio_weight, text_weight)
        self.fmri_loss = FMRIMatchingLoss(fmri_loss_type)

    def forward(
        self, outputs: Mapping[str, torch.Tensor], video_target: torch.Tensor, audio_target: torch.Tensor,
        text_target: torch.Tensor, fmri_target: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:  # fmt: skip
        """`outputs`: video_recon, audio_recon, text_recon, and predicted_fmri where there is `fmri_target`. Returns the
        loss, and the parts of ReconstructionLoss, fmri_loss and total_loss."""
        total, parts = self.reconstruction_loss(
            outputs["video_recon"], video_target, outputs["audio_recon"], audio_target, outputs["text_recon"],
            text_target,
        )  # fmt: skip
        total = self.reconstruction_weight * total
        if fmri_target is not None:
            parts["fmri_loss"] = self.fmri_loss(outputs["predicted_fmri"], fmri_target)
            total = total + self.fmri_weight * parts["fmri_loss"]
        return total, {**parts, "total_loss": total}
