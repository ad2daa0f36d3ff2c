"""A tiny fitted family: gradient-boosted stumps on eight features, whose subclasses inject faults.

As a program it trains the family: `python toy_fitted.py --out DIR [--set KEY=VALUE]`. A round takes TOY_SECONDS.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.engine.toy import rows
from training.config import Layer, Section, build, override_layer
from training.errors import AthanorError, Interrupted
from training.recipe import Fitted
from training.settings import RunSettings
from training.workspace import Workspace


class Trees(Section):
    shrinkage: float = 0.3


class BoostedSettings(RunSettings):
    model: Trees = Trees()


class Boosted:
    """The state: stumps [feature, threshold, left, right]; of each split the features, targets and predictions."""

    def __init__(self, stumps: list[list[float]], seed: int, splits: dict[str, tuple[np.ndarray, np.ndarray]]):
        self.stumps, self.seed, self.splits = [], seed, splits
        self.predicted = {name: np.zeros(len(y)) for name, (_, y) in splits.items()}
        for stump in stumps:
            self.grow(stump)

    def grow(self, stump: list[float]) -> None:
        feature, threshold, left, right = stump
        for name, (x, _) in self.splits.items():
            self.predicted[name] += np.where(x[:, int(feature)] < threshold, left, right)
        self.stumps.append(stump)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """[n, 8] -> [n]."""
        return sum((np.where(x[:, int(f)] < t, a, b) for f, t, a, b in self.stumps), np.zeros(len(x)))


def table(some: Any, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features [n, 8] and targets [n] of rows."""
    x = np.stack([np.random.default_rng(row.values["number"]).standard_normal(8) for row in some]) * scale
    return x, x.sum(1)


class BoostedRecipe(Fitted):
    family = "boosted"
    title = "Boosted"
    manifest = "toy"
    settings_type = BoostedSettings
    chunk = 5
    signal_at: ClassVar[int] = -1  # the round that sends SIGTERM
    nan_at: ClassVar[int] = -1  # the round from which on the validation loss is NaN
    grown: ClassVar[list[int]] = []  # numbers of the rounds that were done, in order

    def encoders(self) -> dict[str, Any]:
        return {}

    def fit_constants(self, some: Any) -> dict[str, np.ndarray]:
        return {"scale": np.full(8, 0.5, np.float32)}

    def begin(self, rows: Any, constants: Any, seed: int) -> Boosted:
        return Boosted([], seed, {name: table(part, constants["scale"]) for name, part in rows.items()})

    def advance(self, state: Boosted, rounds: int) -> Boosted:
        x, y = state.splits["train"]
        for _ in range(rounds):
            number = len(state.stumps)
            self.grown.append(number)
            if number == self.signal_at:
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(float(os.environ.get("TOY_SECONDS", 0)))
            random = np.random.default_rng([state.seed, number])
            feature, residual = int(random.integers(8)), y - state.predicted["train"]
            threshold = float(random.choice(x[:, feature]))
            under = x[:, feature] < threshold
            sides = [float(residual[side].mean()) if side.any() else 0.0 for side in (under, ~under)]
            state.grow([feature, threshold, *(self.settings.model.shrinkage * value for value in sides)])
        return state

    def score(self, state: Boosted, split: str) -> dict[str, float]:
        error = float(((state.predicted[split] - state.splits[split][1]) ** 2).mean())
        if len(state.stumps) >= self.nan_at >= 0:
            error = float("nan")
        return {"val_loss": error, "stumps": float(len(state.stumps))}

    def dump(self, state: Boosted) -> bytes:
        return json.dumps({"seed": state.seed, "stumps": state.stumps}).encode()

    def load(self, content: bytes, rows: Any, constants: Any) -> Boosted:
        saved = json.loads(content)
        parts = {name: table(part, constants["scale"]) for name, part in (rows or {}).items()}
        return Boosted(saved["stumps"], saved["seed"], parts)


BASE: dict[str, Any] = {
    "training": {"max_steps": 42, "log_every": 1, "early_stopping": {"enabled": False}},
    "logging": {"tensorboard": False},
}


def recipe(kind: type[BoostedRecipe] = BoostedRecipe, *layers: Layer, **sections: Any) -> BoostedRecipe:
    return kind(build(kind.settings_type, Layer(BASE), Layer(sections), *layers))


SPLITS = {"train": rows(22), "val": rows(9, 1000)}


def run(root: Path, kind: type[BoostedRecipe] = BoostedRecipe, **options: Any) -> Any:
    """Train it in `root`; the sections of settings are keyword arguments as in `recipe`."""
    from training.stages.train import train

    known = {name: options.pop(name) for name in ("resume", "left", "limit", "load") if name in options}
    known = {"load": SPLITS.__getitem__} | known
    return train(recipe(kind, **options), Workspace(root), device="cpu", **known)


def main() -> int:
    from training.stages.train import train

    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--set", action="append", default=[])
    options, _ = parser.parse_known_args()
    wanted = recipe(BoostedRecipe, override_layer(options.set))
    try:
        train(wanted, Workspace(options.out), device="cpu", load=SPLITS.__getitem__)
    except (AthanorError, Interrupted) as error:
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
