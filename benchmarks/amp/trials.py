"""What settings of the training do for a capture: each is trained from the same original with several seeds, and judged
as an evaluation does. Not part of `make bench`: it takes hours. docs/amp.md has the results.

    python -m benchmarks.amp.trials CAPTURE.nam --steps 400 --seeds 2 [--only base,lr] [--output FILE]

All trials have the same number of optimizer steps; seconds of processor time are in the table. A line is the mean over
seeds, +- half the range, of figures on 88 notes at two levels and on held-out synthetic guitar.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.config import Layer, build, override_layer, read_yaml
from training.data.rows import Row
from training.domains.amp.captures import read_capture
from training.domains.amp.evaluation.guitar import clips_of, score_clips
from training.domains.amp.evaluation.tones import TEACHER, Tones, nmr_mean, references, score
from training.domains.amp.families import AMP
from training.domains.amp.guitar import DI_PATH
from training.domains.amp.plucks import playing
from training.domains.amp.rows import CAPTURE_PATH
from training.domains.amp.signal.nmr import AUDIBLE
from training.domains.amp.signal.tones import TRAINING_LENGTH
from training.domains.amp.student.pair import Pair
from training.domains.amp.student.recipe import TERMS, AmpRecipe
from training.engine.loading.batches import BatchPlan
from training.engine.loop.state import State
from training.engine.process.distributed import Ranks
from training.engine.step import schedule
from training.engine.step.step_context import StepContext
from training.recipe import TrainingProgress
from training.threads import configure

SECONDS, HELD_OUT = 40, 20  # of synthetic guitar
#: Trial -> settings that differ from those of preset `demo`.
TRIALS: dict[str, tuple[str, ...]] = {
    "base": (),
    "linear": ("loss.space=linear", "loss.nmr=0.5"),
    "lr 2e-3": ("optim.lr=2e-3",),
    "lr 5e-3": ("optim.lr=5e-3",),
    "relative 1": ("rates.relative=1.0", "optim.lr=2e-3"),
    "relative .5": ("rates.relative=0.5", "optim.lr=2e-3"),
    "input x10": ("rates.input=10", "optim.lr=2e-3"),
    "nmr x3": ("loss.nmr=0.06", "optim.lr=2e-3"),
    "nmr /3": ("loss.nmr=0.007", "optim.lr=2e-3"),
    "floor -15": ("loss.floor_db=-15", "optim.lr=2e-3"),
    "no guitar": ("material.mix_di=0", "optim.lr=2e-3"),
    "guitar 60 %": ("material.mix_di=0.6", "optim.lr=2e-3"),
    "level by amplitude": ("material.level=amplitude", "optim.lr=2e-3"),
    "to -30 dB": ("material.quietest=-30", "optim.lr=2e-3"),
    "notes from 45": ("material.lowest=45", "optim.lr=2e-3"),
    "batch 16": ("data.batch_size=16", "optim.lr=2e-3"),
    "wsd": ("scheduler.name=wsd", "optim.lr=2e-3"),
    "clip 0": ("optim.grad_clip=0", "optim.lr=2e-3"),
}


def rows_of(path: Path, rate: int) -> dict[str, list[Row]]:
    """Rows of clips of a second, for training and held out."""
    content = np.frombuffer(path.read_bytes(), np.uint8)
    out = {}
    for split, seconds, seed in (("train", SECONDS, 1), ("val", HELD_OUT, 2)):
        record = {"sound": playing(float(seconds), rate, seed), "rate": np.array(rate)}
        out[split] = [
            Row({"id": f"{split} {n}", "rate": rate, "begin": float(n), "end": n + 1.0}, f"{split}:{n}",
                {CAPTURE_PATH: {"content": content}, DI_PATH: record})
            for n in range(seconds)
        ]  # fmt: skip
    return out


def train(recipe: AmpRecipe, rows: Sequence[Row], steps: int) -> tuple[Pair, float]:
    """The model after so many steps, and the seconds of processor time that they took."""
    settings, ranks = recipe.settings, Ranks(0, 1, torch.device("cpu"))
    data = recipe.dataset(rows, training=True)
    plan = BatchPlan(len(data), settings.data.batch_size, 1, 1, settings.seed)
    state = State(recipe, plan, ranks, recipe.fit_constants(rows))
    context = StepContext(recipe, state.model, state.optimizer, state.precision, ranks, TERMS)
    begun = time.process_time()
    for step in range(steps):
        rate = schedule.factor(step, steps, settings.scheduler)
        for group in state.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * rate
        micro = plan.micro_batches(step, 0)
        batches = [data.collate([data.item(one.epoch, index) for index in one.indices]) for one in micro]
        counts = context.local_counts(batches)
        context.step(step, settings.seed, micro, batches, counts, TrainingProgress(step, steps), [])
    return state.model.eval(), time.process_time() - begun


class Judge:
    """Figures of students of one capture. Baselines are computed once."""

    def __init__(self, pair: Pair, held_out: Sequence[Row]):
        self.tones = Tones.of(pair.sample_rate, TRAINING_LENGTH)
        self.target, self.answers = references(self.tones, pair.teachers[-1])
        self.clips = clips_of(held_out, pair.sample_rate, 20)
        self.teacher = pair.teachers[-1]
        self.of_guitar = score_clips(self.clips, self.teacher, {})

    def baselines(self) -> dict[str, dict[str, float]]:
        scores = score(self.tones, self.target, self.answers)
        return {name: self._figures(one, self.of_guitar.get(name)) for name, one in scores.items()}

    def figures(self, student: Any) -> dict[str, float]:
        one = score(self.tones, self.target, {"student": self.tones.answers(student)})["student"]
        return self._figures(one, score_clips(self.clips, self.teacher, {"student": student})["student"])

    @staticmethod
    def _figures(tones: Any, guitar: Any) -> dict[str, float]:
        out = {
            "excess": float((np.maximum(tones.nmr, AUDIBLE) - AUDIBLE).mean()),
            "nmr": nmr_mean(tones.nmr),
            "inaudible": float((tones.nmr < AUDIBLE).mean() * 100),
            "hesr": float(10 * np.log10(tones.hesr.mean() + 1e-30)),
        }  # fmt: skip
        if guitar is not None:
            out |= {"di_nmr": float(guitar.nmr.mean()), "di_esr": float(10 * np.log10(guitar.esr.mean() + 1e-30))}
        return out


def line(name: str, figures: Sequence[Mapping[str, float]], seconds: float = 0.0) -> str:
    cells = []
    for key in figures[0]:
        values = np.array([one[key] for one in figures])
        spread = f"+-{np.ptp(values) / 2:.1f}" if len(values) > 1 else ""
        cells.append(f"{key} {values.mean():7.2f}{spread}")
    return f"{name:20} " + "  ".join(cells) + (f"  {seconds:.0f} s" if seconds else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("capture", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", help="names of trials, separated by commas")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for all trials")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    configure()
    rows = rows_of(options.capture, read_capture(options.capture).sample_rate)
    judge, results = None, {}
    wanted = options.only.split(",") if options.only else list(TRIALS)
    for name in wanted:
        found, seconds = [], 0.0
        for seed in range(options.seeds):
            changes = [*options.set, *TRIALS.get(name, tuple(name.split())), f"seed={seed}"]
            layers = [read_yaml(AMP.config), read_yaml(AMP.presets["demo"]), override_layer(changes)]
            recipe = AmpRecipe(build(AmpRecipe.settings_type, *layers, Layer({})))
            pair, took = train(recipe, rows["train"], options.steps)
            if judge is None:
                judge = Judge(pair, rows["val"])
                results |= judge.baselines()
                for baseline in (TEACHER, "lowpass", "T_2", "T_4"):
                    print(line(baseline, [results[baseline]]), flush=True)
            found.append(judge.figures(pair.students[-1]))
            seconds += took / options.seeds
        results[name] = found
        print(line(name, found, seconds), flush=True)
    if options.output:
        options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
