"""What settings of the training do for a capture: each is trained from the same original with several seeds, and judged
as an evaluation does. Not part of `make bench`: it takes an hour. docs/amp-training.md has the results.

    python -m benchmarks.amp.trials [CAPTURE.nam] [--steps 1000] [--seeds 2] [--only 'base,linear'] [--output FILE]

The capture is the demo's `lead` if none is named. All trials have the same number of samples: that of `--steps`
optimizer steps with the preset's batch size; seconds of processor time are in the table. A row has the mean over seeds,
and the lowest and highest, of figures on 88 notes at two levels and on held-out synthetic guitar. Its last column
compares the excess with that of `base`, seed by seed and note by note (the interval is a bootstrap over notes of the
mean over seeds). What is in FILE already is not trained again.
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
from training.domains.amp.captures import parse_capture
from training.domains.amp.demo.fitting import GAIN, folded, stored
from training.domains.amp.demo.making import GAINS, document
from training.domains.amp.evaluation.guitar import clips_of, score_clips
from training.domains.amp.evaluation.judging import STUDENT, compare_all
from training.domains.amp.evaluation.tones import TEACHER, Scores, Tones, references, score
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
from training.judgement import Resampling, drawn
from training.recipe import TrainingProgress
from training.threads import configure

SECONDS, HELD_OUT = 40, 20  # of synthetic guitar
BASE = "base"
#: Trial -> settings that differ from those of preset `demo`.
TRIALS: dict[str, tuple[str, ...]] = {
    BASE: (),
    "floor -10 dB": ("loss.floor_db=-10",),
    "floor -15 dB": ("loss.floor_db=-15",),
    "floor -20 dB": ("loss.floor_db=-20",),
    "linear as published": ("loss.space=linear", "loss.nmr=0.5", "loss.esr=0.5"),
    "rate 3e-3": ("optim.lr=3e-3",),
    "rate 2e-2": ("optim.lr=2e-2",),
    "constant rate": ("scheduler.name=constant",),
    "constant and 20 % falling": ("scheduler.name=wsd",),
    "rate of input weights x 3": ("rates.input=3",),
    "rate relative to size 0.5": ("rates.relative=0.5",),
    "notes from 60": ("material.lowest=60",),
    "high notes favoured power 1": ("material.favour_high=1",),
    "notes to 127": ("material.highest=127",),
    "levels from -50 dB": ("material.quietest=-50",),
    "levels from -12 dB": ("material.quietest=-12",),
    "levels uniform in amplitude": ("material.level=amplitude",),
    "no guitar": ("material.mix_di=0",),
    "half guitar": ("material.mix_di=0.5",),
    "ESR x 0.5": ("loss.esr=0.5",),
    "batch 8": ("data.batch_size=8",),
    "batch 32": ("data.batch_size=32",),
}
#: Figure -> its column, in the table's order.
COLUMNS = {"excess_db": "excess", "nmr_mean_db": "NMR", "inaudible": "inaudible, %", "hesr_db": "HESR",
           "di_nmr_db": "guitar NMR", "di_esr_db": "guitar ESR"}  # fmt: skip


def demo_capture(name: str) -> bytes:
    """The demo's .nam file of that name."""
    return json.dumps(document(folded(stored()[0], GAINS[name] / GAIN), name, GAINS[name])).encode()


def rows_of(content: bytes) -> dict[str, list[Row]]:
    """Rows of clips of a second, for training and held out."""
    capture, rate = np.frombuffer(content, np.uint8), parse_capture(content).sample_rate
    out = {}
    for split, seconds, seed in (("train", SECONDS, 1), ("val", HELD_OUT, 2)):
        record = {"sound": playing(float(seconds), rate, seed), "rate": np.array(rate)}
        out[split] = [
            Row({"id": f"{split} {n}", "rate": rate, "begin": float(n), "end": n + 1.0}, f"{split}:{n}",
                {CAPTURE_PATH: {"content": capture}, DI_PATH: record})
            for n in range(seconds)
        ]  # fmt: skip
    return out


def recipe_of(changes: Sequence[str]) -> AmpRecipe:
    """Preset `demo` with changes such as `optim.lr=2e-3`."""
    layers = [read_yaml(AMP.config), read_yaml(AMP.presets["demo"]), override_layer(list(changes))]
    return AmpRecipe(build(AmpRecipe.settings_type, *layers, Layer({})))


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
        self.teacher = pair.teachers[-1]
        self.tones = Tones.of(pair.sample_rate, TRAINING_LENGTH)
        self.target, answers = references(self.tones, self.teacher)
        self.scores = score(self.tones, self.target, answers)
        self.clips = clips_of(held_out, pair.sample_rate, HELD_OUT)
        self.guitar = score_clips(self.clips, self.teacher, {})

    def baseline(self, name: str) -> dict[str, Any]:
        return self._found(self.scores[name], self.guitar[name])

    def of(self, student: Any) -> dict[str, Any]:
        """The figures of a network, and the excess of each tone."""
        scores = score(self.tones, self.target, {STUDENT: self.tones.answers(student)})[STUDENT]
        return self._found(scores, score_clips(self.clips, self.teacher, {STUDENT: student})[STUDENT])

    def _found(self, scores: Scores, guitar: Any) -> dict[str, Any]:
        metrics = compare_all(self.tones, {STUDENT: scores}, {STUDENT: guitar}, 0)
        figures = {name: metric.model.value for name, metric in metrics.items()}
        return figures | {"tones": (np.maximum(scores.nmr, AUDIBLE) - AUDIBLE).tolist()}


# -- the table ---------------------------------------------------------------------------------------------------------


def heading() -> str:
    names = ["settings", "s", *COLUMNS.values(), "excess against `base`"]
    return f"| {' | '.join(names)} |\n|{'---|' * len(names)}"


def line(name: str, found: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]] | None) -> str:
    """A row: means over seeds, with the lowest and highest."""
    cells = [name, f"{np.mean([one['seconds'] for one in found]):.0f}" if "seconds" in found[0] else ""]
    for key in COLUMNS:
        values = [one[key] for one in found]
        spread = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
        cells.append(f"{np.mean(values):.2f}{spread}")
    cells.append("" if base is None else difference(found, base))
    return f"| {' | '.join(cells)} |"


def difference(found: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]]) -> str:
    """Of the excess, the mean over the seeds that both have, with a bootstrap over notes."""
    both = zip(found, base, strict=False)
    tones = np.mean([np.subtract(one["tones"], other["tones"]) for one, other in both], 0)
    by_note = tones.reshape(-1, 2).mean(1)
    interval = drawn(lambda chosen: float(by_note[chosen].mean()), Resampling(len(by_note), 0)).interval()
    return f"{interval.value:+.2f} ({interval.low:+.2f} to {interval.high:+.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", nargs="?", default="lead", help="a file, or lead or fuzz of the demo")
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", help="names of trials, or settings such as 'optim.lr=2e-3 loss.nmr=0.1', with commas")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for all trials")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    configure()
    known = options.capture in GAINS
    content = demo_capture(options.capture) if known else Path(options.capture).read_bytes()
    rows, results = rows_of(content), {}
    if options.output and options.output.is_file():
        results = json.loads(options.output.read_text(encoding="utf-8"))
    recipe = recipe_of(options.set)
    batch = recipe.settings.data.batch_size
    judge = Judge(recipe.build(recipe.fit_constants(rows["train"])), rows["val"])
    print(heading())
    for baseline in (TEACHER, "T_2", "T_4"):
        print(line(baseline, [judge.baseline(baseline)], None), flush=True)
    for name in options.only.split(",") if options.only else TRIALS:
        found = results.setdefault(name, [])
        for seed in range(len(found), options.seeds):
            recipe = recipe_of([*options.set, *TRIALS.get(name, tuple(name.split())), f"seed={seed}"])
            steps = options.steps * batch // recipe.settings.data.batch_size
            pair, seconds = train(recipe, rows["train"], steps)
            found.append(judge.of(pair.students[-1]) | {"seconds": round(seconds, 1)})
            if options.output:
                options.output.write_text(json.dumps(results) + "\n", encoding="utf-8")
        print(line(name, found, None if name == BASE else results.get(BASE)), flush=True)


if __name__ == "__main__":
    main()
