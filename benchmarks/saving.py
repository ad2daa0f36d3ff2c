"""The time for which a save blocks the training: while its state is copied, against until the checkpoint is on disk.

Both sides save the same run of the MIDI generator (its `full` preset: weights, EMA, AdamW's moments) to the same disk,
in turn. The synchronous side is a usual training loop, with the same file, hash and fsync.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.harness import Paired, Row, timed
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.engine.checkpoints.index import LAST
from training.engine.checkpoints.saver import Saver
from training.engine.loading.batches import BatchPlan
from training.engine.loop.state import State
from training.engine.process.distributed import Ranks
from training.recipe import TrainingProgress
from training.registry import load_recipe

EVERY = 50  # steps, for the run that saves often
TOKENS = 512  # of a step; few, so that the share of saving is overestimated


def measure(small: bool) -> list[Row]:
    """Rows 5b to 5d."""
    recipe = load_recipe("midi_generator", "debug" if small else "full", None, [])
    state = State(recipe, BatchPlan(64, 1, 1, 1, recipe.settings.seed), Ranks(0, 1, torch.device("cpu")), {})
    step, every = _Steps(state), 2 if small else EVERY
    step()  # AdamW allocates its moments in the first step
    with tempfile.TemporaryDirectory() as place:
        held = _held(state, Path(place), rounds=3 if small else 12)
        size = (Path(place) / "background" / LAST).stat().st_size
        often = _often(state, step, Path(place) / "often", every, saves=2)
    hold, plain = statistics.median(held.ours), statistics.median(held.reference)
    minutes = recipe.settings.training.save_minutes
    parameters = sum(p.numel() for p in state.model.parameters())
    about = f"{parameters / 1e6:.1f} M parameters with AdamW and EMA, {size / 1e6:.0f} MB"
    return [
        Row(
            "5b", "training blocked by one save, background against synchronous", hold, plain, "s",
            held.ratio, ">= 5x", held.ratio >= 5, about, held.spread,
        ),
        _share("5c", f"blocked by saving every {minutes:g} minutes (the default)", hold, minutes * 60, about),
        _share("5d", f"blocked by saving every {every} steps of {TOKENS} tokens", often.held, often.seconds,
               f"{often.saves} saves in {often.seconds:.1f} s; a step took {often.during / often.alone:.2f} times as "
               f"long during a save as without one ({torch.get_num_threads()} threads train)"),
    ]  # fmt: skip


def _share(bar: str, what: str, held: float, total: float, note: str) -> Row:
    share = 100 * held / total
    return Row(bar, what, held, None, "s", share, "<= 1 %", share <= 1, note)


class _Steps:
    """Training steps of `state` on random tokens, including the EMA."""

    def __init__(self, state: State):
        self.state, self.done = state, 0
        settings = state.recipe.settings
        length = min(settings.model.context, TOKENS)
        self.batch = {
            "input_ids": torch.randint(0, 384, (TOKENS // length, length)),
            "targets": torch.randint(0, 384, (TOKENS // length, length)),
            "emotion": torch.zeros(TOKENS // length, 1, 64),
            "documents": torch.zeros(TOKENS // length, length, dtype=torch.int64),
        }

    def __call__(self) -> None:
        state = self.state
        state.optimizer.zero_grad()
        with state.precision.autocast():
            loss = state.recipe.losses(state.model, self.batch, TrainingProgress(self.done, 1000))["loss"]
        (loss.total / TOKENS).backward()
        state.optimizer.step()
        if state.ema:
            state.ema.update(self.done)
        self.done += 1


def _content(state: State) -> dict:
    return state.to_checkpoint({"run_id": "benchmark"})


def _entry(step: int) -> dict:
    return {"step": step, "epoch": 0, "value": None, "run_id": "benchmark"}


def _held(state: State, place: Path, rounds: int) -> Paired:
    """Seconds for which one save blocks the training, on both sides in turn."""
    ours, reference = [], []
    with Saver(place / "background", 3, print) as saver:
        for number in range(rounds + 1):
            entry = _entry(number)
            hold = timed(lambda: saver.save(_content(state), entry, [], wait=False))  # noqa: B023
            saver.finish()
            plain = timed(lambda: CheckpointFolder(place / "plain").save(_content(state), entry))  # noqa: B023
            if number:  # the first round allocates memory and creates files
                ours.append(hold)
                reference.append(plain)
    return Paired(tuple(ours), tuple(reference))


@dataclass(frozen=True)
class _Often:
    """A run that saves every few steps."""

    saves: int
    seconds: float  # in total
    held: float  # seconds blocked by saves
    alone: float  # seconds of a step without a save in progress
    during: float  # seconds of a step during a save


def _often(state: State, step: _Steps, folder: Path, every: int, saves: int) -> _Often:
    alone, during, held = [], [], 0.0
    with Saver(folder, 3, print) as saver:
        saver.save(_content(state), _entry(0), [], wait=True)
        began = time.perf_counter()
        for number in range(1, every * saves + 1):
            busy, before = saver.busy, time.perf_counter()
            step()
            (during if busy else alone).append(time.perf_counter() - before)
            if number % every == 0:
                before = time.perf_counter()
                saver.save(_content(state), _entry(number), [], wait=False)
                held += time.perf_counter() - before
        seconds = time.perf_counter() - began
    median = statistics.median
    return _Often(saves, seconds, held, median(alone), median(during or alone))
