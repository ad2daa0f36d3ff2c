"""The samples of a training: parameters of tones, and parts of guitar recordings. All have the same length."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from training.domains.amp.guitar import clip
from training.domains.amp.signal.tones import TRAINING_LENGTH, cycles, frequency, tone
from training.domains.amp.student.config import AmpSettings

if TYPE_CHECKING:
    from training.data.rows import Row

EDGE = 256  # samples on both sides of a part of a recording, for the filters of oversampling
QUIET = 1e-3  # parts of recordings whose root mean square is below are left out: -60 dB
VALIDATED = tuple(range(21, 109)), (-20.0, 0.0)  # notes of a piano; dB


@dataclass(frozen=True)
class Shape:
    """The length of a sample: `before` samples in which the network settles, and `length` that count."""

    rate: int  # Hz
    before: int
    length: int = TRAINING_LENGTH

    @property
    def lead(self) -> int:
        """Samples in front of those that count."""
        return self.before + EDGE

    @property
    def complete(self) -> int:
        return self.lead + self.length + EDGE


class Parts:
    """The parts of recordings that can be used: those of every clip, side by side."""

    def __init__(self, rows: Sequence[Row], shape: Shape):
        self.rows, self.shape = rows, shape
        self._clip = functools.lru_cache(maxsize=512)(lambda row: clip(self.rows[row], shape.rate))
        self.begins = [
            (row, begin)
            for row in range(len(rows))
            for begin in range(0, max(1, len(self._clip(row)) - shape.length + 1), shape.length)
            if self._loud(row, begin)
        ]

    def _loud(self, row: int, begin: int) -> bool:
        part = self._clip(row)[begin : begin + self.shape.length]
        return len(part) > 0 and float((part.astype(np.float64) ** 2).mean()) > QUIET**2

    def __len__(self) -> int:
        return len(self.begins)

    def part(self, number: int) -> np.ndarray:
        """float32 [Shape.complete], with silence where the clip does not reach."""
        row, begin = self.begins[number]
        sound, shape = self._clip(row), self.shape
        out = np.zeros(shape.complete, np.float32)
        first, last = max(0, begin - shape.lead), min(len(sound), begin + shape.length + EDGE)
        out[first - begin + shape.lead : last - begin + shape.lead] = sound[first:last]
        return out


class Samples:
    """The dataset of a split. A batch has the tones' parameters, and the parts of recordings with their numbers."""

    def __init__(self, rows: Sequence[Row], shape: Shape, settings: AmpSettings, training: bool):
        self.shape, self.settings, self.training = shape, settings, training
        self.rows = rows
        self.parts = Parts(rows, shape)
        notes, levels = VALIDATED
        self.fixed = [(float(note), level) for level in levels for note in notes]
        if training:
            self.guitar = round(settings.material.samples * settings.material.mix_di) if len(self.parts) else 0
            self.tones = settings.material.samples - self.guitar
        else:
            # the middle part of each clip
            last = {row: number for number, (row, _) in enumerate(self.parts.begins)}
            first = {row: number for number, (row, _) in reversed(list(enumerate(self.parts.begins)))}
            self.chosen = [(first[row] + last[row]) // 2 for row in sorted(first)]
            self.guitar, self.tones = len(self.chosen), len(self.fixed)

    def __len__(self) -> int:
        return self.tones + self.guitar

    def __getstate__(self) -> dict:
        return {"made": (self.rows, self.shape, self.settings, self.training)}

    def __setstate__(self, state: dict) -> None:
        self.__init__(*state["made"])

    def item(self, epoch: int, index: int) -> dict[str, np.ndarray]:
        random = np.random.default_rng([self.settings.seed, epoch if self.training else 0, index])
        if index >= self.tones:
            number = int(random.integers(len(self.parts))) if self.training else self.chosen[index - self.tones]
            return {"number": np.int64(number), "sound": self.parts.part(number)}
        if not self.training:
            note, level = self.fixed[index]
            return self._tone(note, 10 ** (level / 20), 0.0)
        material = self.settings.material
        place = random.uniform() ** (1 / (1 + material.favour_high))
        note = material.lowest + (material.highest - material.lowest) * place
        ends = np.array([material.quietest, material.loudest])
        if material.level == "db":
            amplitude = 10 ** (random.uniform(*ends) / 20)
        else:
            amplitude = random.uniform(*10 ** (ends / 20))
        return self._tone(note, amplitude, random.uniform(0, 2 * np.pi))

    def _tone(self, note: float, amplitude: float, phase: float) -> dict[str, np.ndarray]:
        k = cycles(frequency(note), self.shape.length, self.shape.rate)
        return {"tone": np.array([float(k), amplitude, phase])}

    def collate(self, items: Sequence[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
        tones = [item["tone"] for item in items if "tone" in item]
        parts = [item for item in items if "sound" in item]
        return {
            "tone": torch.from_numpy(np.array(tones, np.float64).reshape(len(tones), 3)),
            "number": torch.tensor([int(item["number"]) for item in parts], dtype=torch.int64),
            "sound": torch.from_numpy(
                np.array([item["sound"] for item in parts], np.float32).reshape(len(parts), self.shape.complete)
            ),
        }


def heard(batch: dict[str, torch.Tensor], shape: Shape) -> torch.Tensor:
    """What the network gets of a batch, tones first: float32 [B, before + length]."""
    cycles_B, amplitude_B, phase_B = batch["tone"].T
    tones = tone(cycles_B.long(), amplitude_B, phase_B, shape.length, -shape.before, shape.length)
    return torch.cat([tones.float(), batch["sound"][:, EDGE : shape.complete - EDGE]])
