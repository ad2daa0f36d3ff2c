"""The family as facts, for code that must not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from training.budget.ending import Ending, Line
from training.domain import FamilyFacts, Unit
from training.workspace import PROJECT

if TYPE_CHECKING:
    from training.data.encode import Encoder

HERE = Path(__file__).parent / "text_to_sql"
QUESTION = Unit("question", "questions")


def _databases() -> Mapping[str, Encoder]:
    from training.domains.sql.databases.sqlite import DATABASE as ENCODER

    return {"database_path": ENCODER}


TEXT_TO_SQL = FamilyFacts(
    name="text_to_sql",
    title="Text-to-SQL",
    recipe="training.domains.sql.text_to_sql.recipe:TextToSqlRecipe",
    config=PROJECT / "training" / "cuda_session" / "text_to_sql_training_config.yaml",
    presets={preset: HERE / f"{preset}.yaml" for preset in ("small", "demo", "debug")},
    manifest="text_to_sql",
    encoders=_databases,
    # the adapter of a model of 7 billion parameters with two moments of the optimizer, and that model merged
    checkpoint_bytes=500 << 20,
    export_bytes=16 << 30,
    millions={"demo": 139.4, "debug": 0.5},
    # The demo's evaluation took 246 s on a host half as fast as the reference; no larger base has been timed yet.
    ending=Ending(evaluate=Line(10.0, 1.0), export=Line(10.0, 0.4), verify=Line(8.0, 0.3)),
)
