"""Settings of the autoencoder."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from training.config import Section
from training.domains.brain.encoding.settings import EncodingSettings

Weight = Annotated[float, Field(ge=0)]
LEAST_VOLUMES = 32  # of a subject's window whose correlation is trained


class Objective(Section):
    fmri_weight: Weight = 1.0
    reconstruction_weight: Weight = 0.2  # of the weighted mean of the modalities
    video_weight: Weight = 1.0
    audio_weight: Weight = 1.0
    text_weight: Weight = 1.0
    fmri: Literal["mse", "mae", "correlation"] = "mse"

    @model_validator(mode="after")
    def _some(self) -> Objective:
        if not self.fmri_weight and not self.reconstruction_weight:
            raise ValueError("fmri_weight and reconstruction_weight are both 0: nothing would be trained")
        return self


class AutoencoderSettings(EncodingSettings):
    loss: Objective = Objective()
