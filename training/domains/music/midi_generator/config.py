"""The MIDI generator's own settings, in addition to the shared ones (training/settings.py).

training/cuda_session/midi_generator_training_config.yaml explains each key.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from training.config import Section
from training.settings import AtLeastOne, Count, Fraction, Positive, RunSettings


class Model(Section):
    context: Annotated[int, Field(ge=16)] = 1024  # tokens the model sees at once
    width: AtLeastOne = 384  # of the residual stream
    layers: AtLeastOne = 8
    heads: AtLeastOne = 6
    feedforward: Literal["swiglu", "gelu"] = "swiglu"
    emotion_width: AtLeastOne = 128  # of each of the 8 emotion tokens
    emotion_every: AtLeastOne = 2  # every n-th layer attends to the emotion, from the first on: 0, 2, 4, 6
    tied_head: bool = False  # one matrix for the token embedding and the output layer
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # on the output of each residual branch

    @model_validator(mode="after")
    def _heads_fit(self) -> Model:
        if self.width % (2 * self.heads):
            raise ValueError("such that model.width / model.heads is an even number (rotary positions rotate pairs)")
        return self


class LossSettings(Section):
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.05  # training only; validation is never smoothed
    tempo: Positive = 1.0  # weight of TEMPO tokens; training only


class Augment(Section):
    transpose: Annotated[int, Field(ge=0, le=12)] = 5  # semitones up or down per song; not for drums
    velocity: Annotated[float, Field(ge=0, lt=1)] = 0.1  # share by which a song is louder or softer
    tempo: Annotated[float, Field(ge=0, lt=1)] = 0.1  # share by which a song is faster or slower
    emotion_noise: Annotated[float, Field(ge=0)] = 0.05  # standard deviation
    emotion_dropout: Fraction = 0.1  # share of the samples without their emotion


class Generation(Section):
    temperature: Annotated[float, Field(ge=0)] = 0.9  # 0: always the most probable token
    top_k: Count = 64  # only the k most probable tokens; 0: all
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95  # only the most probable tokens that together reach p
    guidance: Annotated[float, Field(ge=0)] = 1.2  # 1: as trained; above: towards the emotion
    max_tokens: Annotated[int, Field(ge=16)] = 1024  # a piece's length, BOS and EOS included
    min_bars: Count = 8  # a piece cannot end before this bar (unless max_tokens is reached)
    max_empty_bars: Count = 2  # in a row


class Export(Section):
    formats: tuple[Literal["onnx", "int8", "coreml"], ...] = ("onnx", "int8", "coreml")
    max_batch: Annotated[int, Field(ge=7)] = 64  # largest batch of an exported graph
    tolerance: Positive = 1e-4  # of the fp32 file against the model, relative to the largest output


class MidiGeneratorConfig(RunSettings):
    model: Model = Model()
    loss: LossSettings = LossSettings()
    augment: Augment = Augment()
    generation: Generation = Generation()
    export: Export = Export()
