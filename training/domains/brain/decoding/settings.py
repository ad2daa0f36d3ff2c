"""Settings of the decoding model."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from training.config import Section
from training.domains.brain.encoding.settings import Export
from training.settings import AtLeastOne, RunSettings


class Model(Section):
    rank: AtLeastOne = 64  # width of the space that all subjects share
    width: AtLeastOne = 256  # of the hidden layer of the learned residual
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2  # of the residual


class Windows(Section):
    volumes: Annotated[int, Field(ge=16)] = 64  # of a sample


class DecodingSettings(RunSettings):
    model: Model = Model()
    windows: Windows = Windows()
    export: Export = Export()
