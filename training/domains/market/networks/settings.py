"""Settings of the networks. A window ends at the decision and is `window` decisions long."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from training.config import Section
from training.domains.market.stacking.settings import Folds
from training.settings import AtLeastOne, RunSettings

Dropout = Annotated[float, Field(ge=0, lt=1)]
Window = Annotated[int, Field(ge=2, le=1000)]


class Recurrent(Section):
    window: Window = 60
    width: AtLeastOne = 256
    layers: AtLeastOne = 2
    dropout: Dropout = 0.2


class Convolutional(Section):
    window: Window = 120
    width: AtLeastOne = 64  # channels
    layers: AtLeastOne = 4  # blocks; block i has the dilation 2^i
    kernel: Annotated[int, Field(ge=2)] = 5  # 4 blocks see 121 decisions back
    dropout: Dropout = 0.2


class _Attention(Section):
    """Networks with attention: each head has width / heads channels."""

    width: AtLeastOne = 256
    heads: AtLeastOne = 8
    dropout: Dropout = 0.2

    @model_validator(mode="after")
    def _divides(self) -> _Attention:
        if self.width % self.heads:
            raise ValueError(f"consistent: model.width {self.width} is no multiple of model.heads {self.heads}")
        return self


class Patches(_Attention):
    window: Window = 120
    patch: AtLeastOne = 16  # decisions in a patch
    stride: AtLeastOne = 8  # from patch to patch
    layers: AtLeastOne = 3

    @model_validator(mode="after")
    def _fits(self) -> Patches:
        if self.patch > self.window:
            raise ValueError(f"consistent: model.patch {self.patch} is longer than model.window {self.window}")
        return self


class Fusion(_Attention):
    window: Window = 60
    width: AtLeastOne = 64
    heads: AtLeastOne = 4


class Variates(_Attention):
    window: Window = 60
    width: AtLeastOne = 128
    layers: AtLeastOne = 3


class NetworkSettings(RunSettings):
    folds: Folds = Folds(count=3)


class RecurrentSettings(NetworkSettings):
    model: Recurrent = Recurrent()


class ConvolutionalSettings(NetworkSettings):
    model: Convolutional = Convolutional()


class PatchesSettings(NetworkSettings):
    model: Patches = Patches()


class FusionSettings(NetworkSettings):
    model: Fusion = Fusion()


class VariatesSettings(NetworkSettings):
    model: Variates = Variates()
