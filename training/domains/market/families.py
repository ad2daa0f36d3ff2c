"""The families as facts, for code that must not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.domain import FamilyFacts, Unit
from training.workspace import PROJECT

if TYPE_CHECKING:
    from training.data.encode import Encoder

HERE = Path(__file__).parent
PRESETS = ("small", "demo", "debug")
DAY = Unit("trading day", "trading days")
#: Family -> its title, and the class of its recipe.
TREES = {"xgboost": ("XGBoost", "XGBoost"), "lightgbm": ("LightGBM", "LightGBM"), "catboost": ("CatBoost", "CatBoost")}
NETWORKS = {
    "lstm": ("LSTM", "Lstm"), "gru": ("GRU", "Gru"), "tcn": ("TCN", "Tcn"), "patchtst": ("PatchTST", "PatchTst"),
    "tft": ("TFT", "Tft"), "itransformer": ("iTransformer", "ITransformer"),
}  # fmt: skip


def _encoders() -> Mapping[str, Encoder]:
    from training.domains.market.decisions import encoders

    return encoders()


#: What every evaluation imports late.
EVALUATION = ("scipy.optimize", "scipy.stats", "safetensors.numpy")


def _facts(
    name: str, title: str, kind: str, folder: str, module: str = "families", library: tuple[str, ...] = (), **more: Any
) -> FamilyFacts:
    presets = HERE / folder / "presets"
    files = {preset: presets / f"{name}_{preset}.yaml" for preset in PRESETS}
    if folder != "networks":  # their presets are the same for all families
        files = {preset: presets / f"{preset}.yaml" for preset in PRESETS}
    return FamilyFacts(
        name=name,
        title=title,
        recipe=f"training.domains.market.{folder}.{module}:{kind}",
        config=PROJECT / "training" / "cuda_session" / f"{name}_training_config.yaml",
        presets=files,
        manifest="market",
        encoders=_encoders,
        checkpoint_bytes=200 << 20,
        export_bytes=200 << 20,
        fan_out=True,
        imports={"train": library, "evaluate": EVALUATION},
        **more,
    )


SINGLE = (
    *(_facts(name, *about, "trees", library=(f"training.domains.market.trees.with_{name}",))
      for name, about in TREES.items()),
    *(_facts(name, *about, "networks") for name, about in NETWORKS.items()),
)  # fmt: skip
ENSEMBLE = _facts(
    "ensemble", "Ensemble", "Ensemble", "stacking", "recipe", uses=tuple(facts.name for facts in SINGLE)
)  # fmt: skip
FAMILIES = (*SINGLE, ENSEMBLE)
