"""The families as facts, for code that must not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from training.budget.ending import Ending, Line
from training.domain import FamilyFacts, Unit
from training.workspace import PROJECT

if TYPE_CHECKING:
    from training.data.encode import Encoder

HERE = Path(__file__).parent
BLOCK = Unit("time block", "time blocks")


def _presets(family: str) -> dict[str, Path]:
    return {preset: HERE / family / "presets" / f"{preset}.yaml" for preset in ("small", "demo", "debug")}


def _encoders() -> Mapping[str, Encoder]:
    from training.domains.brain.material import encoders

    return encoders()


ENCODING = FamilyFacts(
    name="encoding",
    title="Encoding",
    recipe="training.domains.brain.encoding.recipe:EncodingRecipe",
    config=PROJECT / "training" / "cuda_session" / "encoding_training_config.yaml",
    presets=_presets("encoding"),
    manifest="brain",
    encoders=_encoders,
    # 17 subjects of 86,000 voxels at rank 64: 94 million parameters with two moments of the optimizer
    checkpoint_bytes=5 << 28,
    export_bytes=3 << 29,
    # assumed, not measured: baselines are fitted again for the evaluation
    ending=Ending(evaluate=Line(60.0, 20.0), export=Line(20.0, 10.0), verify=Line(10.0, 2.0)),
)
DECODING = FamilyFacts(
    name="decoding",
    title="Decoding",
    recipe="training.domains.brain.decoding.recipe:DecodingRecipe",
    config=PROJECT / "training" / "cuda_session" / "decoding_training_config.yaml",
    presets=_presets("decoding"),
    manifest="brain",
    encoders=_encoders,
    # 17 subjects of 86,000 voxels, four delays, rank 64: 374 million parameters with two moments of the optimizer
    checkpoint_bytes=5 << 30,
    export_bytes=6 << 30,
    # assumed, not measured: ridge is fitted again for the evaluation, twice
    ending=Ending(evaluate=Line(40.0, 20.0), export=Line(20.0, 10.0), verify=Line(10.0, 2.0)),
)
AUTOENCODER = replace(
    ENCODING,
    name="autoencoder",
    title="Autoencoder",
    recipe="training.domains.brain.autoencoder.recipe:AutoencoderRecipe",
    config=PROJECT / "training" / "cuda_session" / "autoencoder_training_config.yaml",
    presets=_presets("autoencoder"),
)
FAMILIES = (ENCODING, DECODING, AUTOENCODER)
