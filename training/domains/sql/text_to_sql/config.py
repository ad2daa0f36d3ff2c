"""Settings of the family. The YAML file has the meaning of each key in a comment above it."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from training.config import Section
from training.domains.sql.bases.folder import Nf4
from training.settings import AtLeastOne, Count, Fraction, Positive, RunSettings

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Model(Section):
    base: str | None = None  # folder of the base model; --base sets it. "demo" and "tiny" are made here
    # Of the base's weights, and of the products; adapters are float32. float16: for GPUs without bfloat16 (T4, V100)
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    quantization: Literal["none", "nf4"] = "none"  # nf4: the base's linear layers in four bits, a third of the memory
    double_quantization: bool = True  # with nf4: the scales are quantised, too
    max_tokens: AtLeastOne = 2048  # of a question with its schema and answer; longer schemas are pruned
    attention: Literal["split", "dense", "flex"] = "split"  # dense: all pairs; flex: not run on a GPU yet
    gradient_checkpointing: bool = True  # less memory, a third more time; the same result
    parallel: Literal["ddp", "fsdp"] = "ddp"  # on several GPUs; "fsdp" shards the layers over them

    @model_validator(mode="after")
    def _shardable(self) -> Model:
        if self.parallel == "fsdp" and (self.quantization == "nf4" or self.attention == "flex"):
            # torch's gathered weights lose bitsandbytes' scales; flex attention is compared by separate passes.
            raise ValueError("consistent: parallel fsdp needs quantization none and attention split or dense")
        return self

    @property
    def nf4(self) -> Nf4 | None:
        """How the base is quantised; None: it is not."""
        return Nf4(self.double_quantization) if self.quantization == "nf4" else None


class Lora(Section):
    r: AtLeastOne = 16  # rank
    alpha: Positive = 32.0  # the update is scaled by alpha / r
    dropout: Fraction = 0.05
    targets: tuple[str, ...] = PROJECTIONS  # names of the modules that get an adapter
    rslora: bool = False  # scale by alpha / sqrt(r) (Kalajdzievski 2023)
    dora: bool = False  # decompose weights into magnitude and direction (Liu et al. 2024)


class Prompting(Section):
    samples: Count = 3  # values shown for each column
    bundle: AtLeastOne = 8  # questions of one database that share their schema in a training sample; 1: no sharing


class Generation(Section):
    max_new_tokens: AtLeastOne = 256
    batch_size: AtLeastOne = 32  # questions that are answered together
    shots: Count = 3  # solved examples of the baseline "base with examples"; 0: no such baseline


class Judging(Section):
    copies: Count = 5  # re-populated copies of each database on which an answer must be right too
    seconds: Positive = 5.0  # that a query may take
    most: AtLeastOne = 1000  # held-out questions that are judged; of more, evenly spaced ones


class Export(Section):
    formats: tuple[Literal["merged", "gguf", "onnx"], ...] = ("merged", "gguf", "onnx")  # beside the adapter


class TextToSqlConfig(RunSettings):
    # A base at another place is the same base if its weights are, which every checkpoint checks by their hash.
    resumable = (
        "model.base", "model.gradient_checkpointing", "model.attention", "model.parallel", "generation", "judging",
    )  # fmt: skip

    model: Model = Model()
    lora: Lora = Lora()
    prompt: Prompting = Prompting()
    generation: Generation = Generation()
    judging: Judging = Judging()
    export: Export = Export()
