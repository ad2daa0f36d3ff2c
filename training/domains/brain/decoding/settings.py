"""Settings of the decoding model."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from training.config import Section
from training.domains.brain.encoding import settings as encoding
from training.settings import AtLeastOne, RunSettings


class Model(encoding.Model):
    rank: AtLeastOne = 64  # width of the space that all subjects share


class Windows(Section):
    volumes: Annotated[int, Field(ge=16)] = 64  # of a sample


class DecodingSettings(RunSettings):
    resumable: ClassVar[tuple[str, ...]] = ("model.parallel",)

    model: Model = Model()
    windows: Windows = Windows()
    export: encoding.Export = encoding.Export()
