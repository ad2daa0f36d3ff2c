"""Settings of the training of a capture."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from training.config import Section
from training.domains.amp.signal.tones import TRAINING_LENGTH, next_prime
from training.settings import AtLeastOne, Fraction, Positive, RunSettings

Weight = Annotated[float, Field(ge=0)]
Note = Annotated[float, Field(ge=0, le=135)]
Level = Annotated[float, Field(le=0)]


class Student(Section):
    """The network that is trained."""

    size: Literal["same", "nano"] = "same"  # the original's architecture, or a smaller one. See smaller.py


class Material(Section):
    """What the network is trained with: tones, made as they are needed, and parts of the guitar recordings."""

    length: Annotated[int, Field(ge=2_203)] = TRAINING_LENGTH  # samples of a tone (a prime) and of a part of guitar
    samples: AtLeastOne = 1_600  # in an epoch, tones and parts of recordings together
    mix_di: Fraction = 0.3  # share of parts of recordings
    lowest: Note = 21.0  # MIDI notes
    highest: Note = 127.0
    favour_high: Weight = 0.0  # their density rises as this power from lowest to highest; 0: uniform
    quietest: Level = -50.0  # dB of full scale
    loudest: Level = 0.0
    level: Literal["db", "amplitude"] = "db"  # what is uniform between quietest and loudest
    oversampling: Annotated[int, Field(ge=2, le=64)] = 8  # of the teacher whose answer to a recording is the target

    @field_validator("length")
    @classmethod
    def _prime(cls, length: int) -> int:
        if next_prime(length) != length:
            raise ValueError(f"a prime number, so that aliases meet no harmonic; the next one is {next_prime(length)}")
        return length

    @model_validator(mode="after")
    def _ordered(self) -> Material:
        if self.lowest >= self.highest or self.quietest > self.loudest:
            raise ValueError("consistent: material.lowest is below highest, and quietest at most loudest")
        return self


class Objective(Section):
    """The loss: weights of its terms. See objective.py."""

    space: Literal["db", "linear"] = "db"  # of the term of the NMR
    esr: Weight = 1.0
    nmr: Weight = 0.02  # for each dB; with `linear` 0.5 is usual
    dc: Weight = 1.0
    floor_db: float = -15.0  # `db` only: a lower NMR is not heard, and not trained for


class Recurrent(Section):
    """Networks without a finite receptive field: LSTM."""

    warmup: AtLeastOne = 8_192  # samples in front of each one, in which the network settles; without gradients
    window: Annotated[int, Field(ge=2_200)] = 4_104  # samples of truncated back-propagation, an update each


class Rates(Section):
    """Factors on optim.lr for groups of parameters."""

    input: Positive = 1.0  # of those that multiply the sound itself: an input gain is folded into them
    relative: Fraction = 0.0  # how much the rate of a tensor follows the size of its values: 0 not, 1 in proportion


class Judging(Section):
    """The evaluation."""

    length: Annotated[int, Field(ge=2_049)] | None = None  # samples of a tone, a prime; None: about a second
    notes: Annotated[int, Field(ge=2, le=88)] = 88  # of a piano, evenly taken
    clips: AtLeastOne = 30  # of the held-out recordings


class AmpSettings(RunSettings):
    resumable = ("judging",)
    student: Student = Student()
    material: Material = Material()
    loss: Objective = Objective()
    lstm: Recurrent = Recurrent()
    rates: Rates = Rates()
    judging: Judging = Judging()
