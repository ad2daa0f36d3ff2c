"""Settings of the encoding model."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from training.config import Section
from training.settings import AtLeastOne, RunSettings


class Model(Section):
    rank: AtLeastOne = 32  # width of the bottleneck that all subjects share
    width: AtLeastOne = 256  # of the hidden layer of the learned residual
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2  # of the residual
    parallel: Literal["ddp", "fsdp"] = "ddp"  # on several GPUs; "fsdp" shards what belongs to each subject over them


class WarmStart(Section):
    searches: AtLeastOne = 24  # weightings of the bands that banded ridge tries


class Windows(Section):
    volumes: Annotated[int, Field(ge=8)] = 64  # of a sample


class Export(Section):
    coreml: bool = True  # an .mlpackage beside each .onnx

    @property
    def formats(self) -> tuple[str, ...]:
        """Those of Graph.formats."""
        return ("onnx", "coreml") if self.coreml else ("onnx",)


class EncodingSettings(RunSettings):
    resumable: ClassVar[tuple[str, ...]] = ("model.parallel",)

    model: Model = Model()
    warm_start: WarmStart = WarmStart()
    windows: Windows = Windows()
    export: Export = Export()
