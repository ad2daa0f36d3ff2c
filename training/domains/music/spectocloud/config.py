"""Spectocloud's own settings; the shared ones are in training/settings.py.

training/cuda_session/spectocloud_training_config.yaml explains each key.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from training.config import Section
from training.settings import AtLeastOne, Fraction, RunSettings

NotNegative = Annotated[float, Field(ge=0)]


class Model(Section):
    """An encoder of spectrogram patches, and a decoder that predicts the particles of each sub-frame."""

    width: AtLeastOne = 256  # of every token
    layers: AtLeastOne = 6
    heads: AtLeastOne = 8
    mlp_ratio: AtLeastOne = 4  # hidden width of a block's MLP, as a multiple of `width`
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    particle_width: AtLeastOne = 64  # hidden width of the small network that predicts each particle's glow

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Model:
        if self.width % self.heads:
            raise ValueError("consistent: model.width must be a multiple of model.heads")
        return self


class Windows(Section):
    """Which windows of 1.486 s of a song are used."""

    per_song: AtLeastOne = 16  # drawn from every song in every epoch
    validation_per_song: AtLeastOne = 8  # fixed, evenly spaced
    min_sounding: Fraction = 0.5  # share of a window's sub-frames in which a note must sound


class Augment(Section):
    """Augmentation of training windows; validation windows are not varied."""

    gain_db: NotNegative = 9.0  # the level changes by up to this much, up or down
    transpose: Annotated[int, Field(ge=0, le=12)] = 0  # semitones up or down, of sound and notes together
    emotion_noise: NotNegative = 0.1  # standard deviation added to valence, arousal and intensity, target included
    no_score: Fraction = 0.5  # share of samples whose midi_features are zeroed


class Loss(Section):
    """Weights of the terms, and when points are matched by index."""

    position: NotNegative = 1.0
    color: NotNegative = 0.5
    properties: NotNegative = 0.3
    lifeline: NotNegative = 0.0  # centres and spreads of the sub-frames
    index_matched: Fraction = 0.5  # share of training, from its start, in which point i is compared with point i

    @model_validator(mode="after")
    def _something_is_learnt(self) -> Loss:
        if self.position == 0:
            raise ValueError("above 0: without loss.position, positions are not trained")
        return self


class Export(Section):
    """Files in addition to spectocloud.onnx and spectocloud_frontend.onnx."""

    int8: bool = True  # spectocloud.int8.onnx
    coreml: bool = True  # spectocloud.mlpackage
    max_batch: Annotated[int, Field(ge=7)] = 256  # largest batch of an exported graph


class SpectocloudConfig(RunSettings):
    model: Model = Model()
    windows: Windows = Windows()
    augment: Augment = Augment()
    loss: Loss = Loss()
    export: Export = Export()
