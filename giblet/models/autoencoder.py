"""The autoencoder before its data are known. Its weights begin as ridge regression of the training rows, so it has none
before `Trainer.train`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from training.domains.brain.stimulus.film import HEIGHT, WIDTH
from training.errors import UsageError

MELS = 32
_SAME = "It would change nothing here: "


class SherlockAutoencoder(nn.Module):
    """The arguments of `create_autoencoder`. `network`: the trained network (Autoencoder of
    training/domains/brain/autoencoder/model.py) after `Trainer.train`; None before."""

    def __init__(self, settings: dict[str, Any], expected: dict[str, int]):
        super().__init__()
        self.settings, self.expected = settings, expected
        self.network: nn.Module | None = None

    def require(self, voxels: int, words: int) -> None:
        """Raise UsageError if the data have another number of voxels or words than was named."""
        found = {"n_voxels": voxels, "text_dim": words}
        for name, value in self.expected.items():
            if value != found[name]:
                raise UsageError(f"{name}={value}, and the data have {found[name]}: leave {name} out, or correct it.")

    def forward(self, batch: dict[str, torch.Tensor]) -> Any:
        """See Autoencoder.forward. Raises UsageError before training."""
        return self._trained()(batch)

    def get_parameter_count(self) -> dict[str, int]:
        """Parameters of encoder (up to the voxels), decoder and both. Raises UsageError before training."""
        counts = {"encoder": 0, "decoder": 0}
        for name, parameter in self._trained().named_parameters():
            counts["decoder" if name.startswith("decoder") else "encoder"] += parameter.numel()
        return {"total": sum(counts.values()), **counts}

    def _trained(self) -> nn.Module:
        if self.network is None:
            raise UsageError(
                "The autoencoder has no weights yet: they begin as ridge regression of the training rows, in "
                "Trainer(model, train_dataset, val_dataset, config).train()."
            )
        return self.network


def create_autoencoder(
    video_height: int | None = None,
    video_width: int | None = None,
    audio_mels: int | None = None,
    text_dim: int | None = None,
    n_voxels: int | None = None,
    bottleneck_dim: int = 64,
    video_features: int | None = None,
    audio_features: int | None = None,
    text_features: int | None = None,
    decoder_hidden_dim: int = 512,
    decoder_dropout: float = 0.2,
    reconstruction_weight: float | None = None,
    fmri_weight: float | None = None,
    use_encodec: bool = False,
    audio_frames_per_tr: int | None = None,
) -> SherlockAutoencoder:
    """The autoencoder of the brain domain.

    Args:
        video_height, video_width, audio_mels: pictures of 24 x 32 and 32 mel levels are what the domain makes of a
            film; another number is refused.
        text_dim, n_voxels: words of the vocabulary and voxels of the mask; checked against the data before training.
        bottleneck_dim: width of the bottleneck that all subjects share.
        decoder_hidden_dim, decoder_dropout: of the learned residuals, of the encoder and of the decoder.
        reconstruction_weight, fmri_weight: of the loss, in place of those of TrainingConfig.

    Raises UsageError for what this model has no counterpart of: video_features, audio_features, text_features (there
    are no encoders of single modalities; features are fitted on training rows), use_encodec, audio_frames_per_tr
    (integers of a codec are no targets of a squared error).
    """
    for name, value, own in (("video_height", video_height, HEIGHT), ("video_width", video_width, WIDTH),
                             ("audio_mels", audio_mels, MELS)):  # fmt: skip
        if value not in (None, own):
            raise UsageError(f"{name}={value}: the domain's pictures are {HEIGHT} x {WIDTH}, with {MELS} mel levels. "
                             f"Leave {name} out.")  # fmt: skip
    for name, value in (("video_features", video_features), ("audio_features", audio_features),
                        ("text_features", text_features)):  # fmt: skip
        if value is not None:
            raise UsageError(f"{name}={value}: {_SAME}features of each modality are fitted on the training rows. "
                             f"Leave {name} out; bottleneck_dim is the width that is learned.")  # fmt: skip
    if use_encodec or audio_frames_per_tr is not None:
        name = "use_encodec" if use_encodec else "audio_frames_per_tr"
        raise UsageError(f"{name}: codes of a codec are numbers of a table's entries, and a squared error between them "
                         f"means nothing. Sound is log-mel levels here: leave {name} out.")  # fmt: skip
    model = {"rank": bottleneck_dim, "width": decoder_hidden_dim, "dropout": decoder_dropout}
    weights = {"reconstruction_weight": reconstruction_weight, "fmri_weight": fmri_weight}
    expected = {"n_voxels": n_voxels, "text_dim": text_dim}
    return SherlockAutoencoder(
        {"model": model, "loss": {name: value for name, value in weights.items() if value is not None}},
        {name: value for name, value in expected.items() if value is not None},
    )
