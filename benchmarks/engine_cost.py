"""Bar 4, second half: the engine's overhead per step over a bare loop that trains the same model on the same batches;
and the share of a real training (bar 5) outside of steps and input.

The model is so small (3,000 parameters) that nearly all of a step is overhead. Both loops make their batches with the
same functions, clip gradients, follow a schedule, and log the loss every ten steps. The engine does everything that it
does in a real training on one CPU: it agrees on what is due, seeds, checks for numbers that are not finite, averages
terms exactly, measures throughput, writes metrics.jsonl, log and TensorBoard, and updates the heartbeat.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import Row, timed
from benchmarks.reference_loops import Shape
from benchmarks.running import quiet, running
from benchmarks.training_step import midi_generator
from training.recipe import Batch, Loss, Stepped, TrainingProgress
from training.settings import Data, Logging, Optim, RunSettings, Scheduler, Training

SAMPLES, ROWS, WIDTH = 1_000_000, 8, 32
STEPS, ROUNDS = 500, 24  # steps per block, blocks per side
MOST = 0.1  # ms


class Dataset:
    """Rows of random x; the target y is their sum."""

    def __init__(self, count: int):
        self.x = np.random.default_rng(0).standard_normal((4096, WIDTH)).astype(np.float32)
        self.count = count

    def __len__(self) -> int:
        return self.count

    def item(self, epoch: int, index: int) -> dict[str, np.ndarray]:
        x = self.x[(index + epoch) % len(self.x)]
        return {"x": x, "y": x.sum()}

    def collate(self, items: Sequence[dict[str, np.ndarray]]) -> Batch:
        return {key: torch.from_numpy(np.stack([item[key] for item in items])) for key in items[0]}


class Small(Stepped):
    """A network of three layers, trained on the squared error."""

    family = "small"
    title = "Small"
    manifest = "small"
    settings_type = RunSettings

    def encoders(self) -> dict[str, Any]:
        return {}

    def dataset(self, rows: Sequence[Any], training: bool) -> Dataset:
        return Dataset(len(rows))

    def build(self, constants: Any) -> torch.nn.Module:
        torch.manual_seed(0)
        return network()

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"loss": float(len(batch["y"]))}

    def losses(self, model: torch.nn.Module, batch: Batch, progress: TrainingProgress) -> dict[str, Loss]:
        return {"loss": Loss((model(batch["x"]).squeeze(-1) - batch["y"]).square().sum())}

    def validate(self, model: torch.nn.Module, batch: Batch) -> dict[str, tuple[torch.Tensor, float]]:
        return {"val_loss": (self.losses(model, batch, TrainingProgress(0, 1))["loss"].total, float(len(batch["y"])))}

    def graphs(self, model: torch.nn.Module) -> list[Any]:
        return []


def network() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Linear(WIDTH, 48), torch.nn.ReLU(), torch.nn.Linear(48, 24), torch.nn.ReLU(), torch.nn.Linear(24, 1)
    )


def settings() -> RunSettings:
    return RunSettings(
        training=Training(epochs=1), data=Data(batch_size=ROWS, num_workers=0), optim=Optim(lr=1e-3),
        scheduler=Scheduler(warmup_steps=100), logging=Logging(),
    )  # fmt: skip


class Bare:
    """A plain hand-written training loop."""

    def __init__(self, dataset: Dataset):
        torch.manual_seed(0)
        self.model, self.dataset, self.step = network(), dataset, 0
        parameters = list(self.model.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": 0.01},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)
        self.batches = self._batches()

    def _batches(self) -> Iterator[Batch]:
        order = np.random.default_rng(0).permutation(len(self.dataset))
        for start in range(0, len(order), ROWS):
            yield self.dataset.collate([self.dataset.item(0, i) for i in order[start : start + ROWS].tolist()])

    def __call__(self, steps: int) -> None:
        total = len(self.dataset) // ROWS
        for _ in range(steps):
            batch = next(self.batches)
            rate = 1e-3 * min(1, (self.step + 1) / 100) * (0.55 + 0.45 * math.cos(math.pi * self.step / total))
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            loss = torch.nn.functional.mse_loss(self.model(batch["x"]).squeeze(-1), batch["y"])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.step += 1
            if self.step % 10 == 0:
                print(f"step {self.step} loss {loss.item():.4f} lr {rate:.2e}", flush=True)


def measure(small: bool) -> list[Row]:
    """Rows 4f and 5a."""
    return [_cost(small), _between(small)]


def _cost(small: bool) -> Row:
    steps, rounds = (20, 3) if small else (STEPS, ROUNDS)
    ours, reference = [], []
    dataset = Dataset(SAMPLES)
    with (
        tempfile.TemporaryDirectory() as folder, quiet(),
        running(Small(settings()), dataset, Dataset(64), Path(folder)) as engine,
    ):  # fmt: skip
        bare = Bare(dataset)
        for number in range(rounds + 1):
            sides = ((engine, ours), (bare, reference))
            for side, times in sides if number % 2 else reversed(sides):
                seconds = timed(lambda: side(steps))  # noqa: B023
                if number:  # the first block warms up
                    times.append(1e3 * seconds / steps)
    cost = statistics.median(a - b for a, b in zip(ours, reference, strict=True))
    spread = {name: [min(t), statistics.median(t), max(t)] for name, t in (("ours", ours), ("reference", reference))}
    note = (
        f"median over {rounds} blocks of {steps} steps of the additional time per step, log lines included; "
        f"{torch.get_num_threads()} threads. Against the plain loop; no EMA on either side"
    )
    return Row(
        "4f", "what the engine adds to a step", spread["ours"][1], spread["reference"][1], "ms", cost,
        f"<= {MOST:g} ms", cost <= MOST, note, spread,
    )  # fmt: skip


def _between(small: bool) -> Row:
    """The share of a training, from one evaluation to the next, that is neither a step (gradients, update) nor waiting
    for input: logs, checks of what is due, agreement between ranks, heartbeat. Evaluations, samples and exports are
    excluded: they run between epochs, and after the training."""
    shape = Shape(64, 32, 2, 2) if small else Shape(256, 128, 4, 4)  # else the `demo` preset's
    sizes = [f"model.{name}={getattr(shape, name)}" for name in ("width", "layers", "heads")]
    steps = 5 if small else 150
    inside = [0.0]
    with (
        tempfile.TemporaryDirectory() as folder, quiet(),
        midi_generator(Path(folder), shape, 16, *sizes, "training.amp=true") as engine,
    ):  # fmt: skip
        context = engine.run.step_context
        step = context.step

        def timed_step(*arguments: Any) -> Any:
            began = time.perf_counter()
            out = step(*arguments)
            inside[0] += time.perf_counter() - began
            return out

        context.step = timed_step  # type: ignore[method-assign]
        engine(3)
        inside[0], engine.waited = 0.0, 0.0
        seconds = timed(lambda: engine(steps))
        between = seconds - inside[0] - engine.waited
    share = 100 * between / seconds
    note = f"{steps} steps of {1e3 * inside[0] / steps:.1f} ms; EMA included"
    return Row("5a", "between steps, in a training on a CPU", 1e3 * between / steps, None, "ms", share, "<= 1 %",
               share <= 1, note)  # fmt: skip
