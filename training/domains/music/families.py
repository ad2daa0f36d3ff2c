"""The two families as facts, for code that must not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from training.budget.ending import Ending, Line
from training.domain import FamilyFacts, Unit
from training.workspace import PROJECT

if TYPE_CHECKING:
    from training.data.encode import Encoder

HERE = Path(__file__).parent
CONFIGS = PROJECT / "training" / "cuda_session"
SONG = Unit("song", "songs")
BYTES_A_PARAMETER = 16  # in a checkpoint: weights, their EMA, two moments of the optimizer


def _presets(folder: str) -> dict[str, Path]:
    return {preset: HERE / folder / f"{preset}.yaml" for preset in ("small", "demo", "debug")}


def _sound_and_score() -> Mapping[str, Encoder]:
    from training.domains.music.audio import LOGMEL
    from training.domains.music.midi.reader import NOTES

    return {"audio_path": LOGMEL, "midi_path": NOTES}


def _score() -> Mapping[str, Encoder]:
    from training.domains.music.midi.tokens import TOKENS

    return {"midi_path": TOKENS}


SPECTOCLOUD = FamilyFacts(
    name="spectocloud",
    title="Spectocloud",
    recipe="training.domains.music.spectocloud.recipe:SpectocloudRecipe",
    config=CONFIGS / "spectocloud_training_config.yaml",
    presets=_presets("spectocloud"),
    manifest="spectocloud",
    encoders=_sound_and_score,
    checkpoint_bytes=BYTES_A_PARAMETER * 5_800_000,
    millions={"full": 5.788, "small": 1.453, "demo": 0.773, "debug": 0.044},
    # the demo corpus's 36 held-out songs, presets debug and demo
    ending=Ending(evaluate=Line(5.0, 4.0), export=Line(16.5, 3.5), verify=Line(2.4, 0.5)),
    export_bytes=200 << 20,
)
MIDI_GENERATOR = FamilyFacts(
    name="midi_generator",
    title="MIDI generator",
    recipe="training.domains.music.midi_generator.recipe:MidiGeneratorRecipe",
    config=CONFIGS / "midi_generator_training_config.yaml",
    presets=_presets("midi_generator"),
    manifest="midi",
    encoders=_score,
    short="midi",
    checkpoint_bytes=BYTES_A_PARAMETER * 16_320_000,
    millions={"full": 16.325, "small": 2.325, "demo": 1.129, "debug": 0.068},
    # the same; the transformer without the emotion trains for a fifth of the steps, on at most PLAIN_TOKENS
    ending=Ending(
        evaluate=Line(3.9, 17.2),
        export=Line(12.3, 14.2),
        verify=Line(2.4, 0.5),
        baseline_share=0.12,
        baseline_most=Line(8.0, 22.0),
    ),
    export_bytes=312 << 20,
)
