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

HERE = Path(__file__).parent / "student"
SIDES = ("before", "after", "difference")  # of a sound through a capture: attributes of sounds.Heard
TONE = Unit("tone", "tones")


def encoders() -> Mapping[str, Encoder]:
    """Path key of a manifest row -> the encoder of the file under it."""
    from training.domains.amp.formats.checking import CAPTURE
    from training.domains.amp.guitar import DI
    from training.domains.amp.rows import CAPTURE_PATH, DI_PATH

    return {CAPTURE_PATH: CAPTURE, DI_PATH: DI}


AMP = FamilyFacts(
    name="amp",
    title="Amp",
    recipe="training.domains.amp.student.recipe:AmpRecipe",
    config=PROJECT / "training" / "cuda_session" / "amp_training_config.yaml",
    presets={preset: HERE / f"{preset}.yaml" for preset in ("small", "demo", "debug")},
    manifest="amp",
    encoders=encoders,
    checkpoint_bytes=1 << 20,
    export_bytes=16 << 20,
    fan_out=True,
    # of a capture, with tones of 0.2 s and 30 clips, as in `demo` and `small`; `full`, with tones of a second, takes
    # several times as long on a CPU. The network that is trained for the error alone takes a fifth of the steps.
    ending=Ending(evaluate=Line(35.0, 6000.0), baseline_share=0.2, baseline_most=Line(600.0, 0.0)),
)
