"""What bar 10 looks at in a run of the engine that is going on: utilisation, recompilations, waits, kernels, saves; and
Spectocloud's steps."""

from __future__ import annotations

import contextlib
import json
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_place import Place, turn
from benchmarks.harness import Row, in_turn, median, not_measured
from benchmarks.running import Going, quiet, running
from training.domains.music.clouds.cloud import PARTICLES, SUBFRAMES
from training.domains.music.spectocloud.model import EMOTION, FRAMES, MIDI_FEATURES, N_MELS
from training.registry import load_recipe

SECONDS_BETWEEN_SAVES = 600  # training.save_minutes of the configs
TINY = ("model.width=32", "model.layers=1", "model.heads=2", "model.particle_width=8")


# -- looks at a run ----------------------------------------------------------------------------------------------------


def utilisation(here: Place, engine: Going) -> Row:
    """Model FLOPs a second over the device's best, of the steps alone; and whether every log line has it."""
    what, wanted = "model FLOP utilisation, on every log line", "stated"
    run = engine.run
    engine(20)
    told = [json.loads(line) for line in (run.tracker.folder / "metrics.jsonl").read_text().splitlines()]
    train = [record for record in told if record["kind"] == "train"]
    flops, best = run.meter.flops_per_sample, run.meter.peak
    if not best or not flops:
        lines = f"; {sum('tflops' in record for record in train)} of {len(train)} log lines tell TFLOP/s"
        return not_measured("10d", what, wanted, f"what this device could do at best is not known{lines}")
    seconds = turn(here, engine)() / here.steps
    share = 100 * flops * here.batch / seconds / 1e12 / best
    missing = sum("mfu" not in record for record in train)
    note = (
        f"{flops * here.batch / seconds / 1e12:.1f} of {best:g} TFLOP/s; {len(train)} log lines, {missing} without it"
    )
    return Row("10d", what, share, None, "%", share, wanted, not missing, note)


def recompilations(here: Place, engine: Going) -> Row:
    """Graphs compiled after the first steps, over further steps (whose windows hold other numbers of songs) and an
    evaluation (whose batches are not full)."""
    engine.run.evaluate()
    before = _graphs()
    engine(here.steps)
    engine.run.evaluate()
    engine(2)
    more = _graphs() - before
    note = f"{before} graphs before; {here.steps + 2} steps and an evaluation"
    return Row("10e", "graphs compiled anew while training goes on", more, None, "", more, "<= 0", not more, note)


def _graphs() -> int:
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


def synchronisations(here: Place, engine: Going) -> Row:
    """Operations that make this process wait for the GPU, as torch itself reports them. Log lines wait for an event of
    the step before the newest, which is no such operation."""
    what, wanted = "times that a step waits for the GPU, in as many steps", "<= 0"
    if here.device != "cuda":
        return not_measured("10f", what, wanted, "torch reports them for CUDA alone")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            engine(here.steps)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    found = [one for one in told if "synchroniz" in str(one.message)]
    places = sorted({f"{Path(one.filename).name}:{one.lineno}" for one in found})
    return Row("10f", what, len(found), None, "", len(found), wanted, not found,
               f"in {here.steps} steps" + (f"; at {', '.join(places[:6])}" if places else ""))  # fmt: skip


def kernels(here: Place, engine: Going) -> Row:
    """Whether packed songs go through a flash kernel."""
    what, wanted = "share of the GPU's time in flash kernels; they are used", "stated"
    if here.device != "cuda":
        return not_measured("10g", what, wanted, "kernels are CUDA's")
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        engine(2)
        torch.cuda.synchronize()
    on_device = [e for e in profile.key_averages() if e.device_type == torch.autograd.DeviceType.CUDA]
    if not on_device:
        return not_measured("10g", what, wanted, "the profiler sees no kernels here (containers often forbid it)")
    total = sum(event.self_device_time_total for event in on_device)
    flash = [event for event in on_device if "flash" in event.key.lower()]
    share = 100 * sum(event.self_device_time_total for event in flash) / max(1, total)
    names = ", ".join(event.key[:40] for event in sorted(flash, key=lambda e: -e.self_device_time_total)[:2])
    return Row("10g", what, share, None, "%", share, wanted, bool(flash), names or "none: before Ampere masks are used")


def waiting(here: Place, engine: Going) -> Row:
    """The share of a step that waits for the loaders."""
    engine(here.warm)
    here.synchronize()
    engine.waited, began = 0.0, time.perf_counter()
    engine(3 * here.steps)
    here.synchronize()
    seconds = time.perf_counter() - began
    share = 100 * engine.waited / seconds
    note = f"{here.workers} loader processes, {1e3 * seconds / here.steps / 3:.1f} ms a step"
    return Row("10h", "input wait", 1e3 * engine.waited, None, "ms", share, "<= 1 %", share <= 1, note)


def saving(here: Place, engine: Going) -> Row:
    """How long a save holds the training, at one every ten minutes (the default)."""
    held = []
    for _ in range(6):
        engine(here.warm)
        began = time.perf_counter()
        engine.run.save()
        held.append(time.perf_counter() - began)
        engine.run.settle_saves()
    hold = median(held[1:])  # the first one finds memory to copy to
    share = 100 * hold / SECONDS_BETWEEN_SAVES
    note = f"median of {len(held) - 1}, the first took {held[0]:.2f} s; steps already given to the GPU included"
    return Row("10i", "held by saving every 10 minutes", hold, None, "s", share, "<= 1 %", share <= 1, note)


LOOKS = (
    ("10d", "model FLOP utilisation", utilisation),
    ("10e", "recompilations", recompilations),
    ("10f", "waits for the GPU", synchronisations),
    ("10g", "flash kernels", kernels),
    ("10h", "input wait", waiting),
    ("10i", "checkpoints", saving),
)


# -- Spectocloud -------------------------------------------------------------------------------------------------------


class Windows:
    """As Spectocloud's own: the same few windows of noise again and again."""

    def __init__(self, count: int):
        random = np.random.default_rng(0)
        self.count = count
        shapes = {
            "logmel": (N_MELS, FRAMES), "emotion": (EMOTION,), "midi_features": (MIDI_FEATURES,),
            "positions": (PARTICLES, 3), "colors": (PARTICLES, 4), "properties": (PARTICLES, 3),
        }  # fmt: skip
        self.some = [
            {name: random.random(shape, np.float32) for name, shape in shapes.items()}
            | {"sounding": np.ones(SUBFRAMES, bool)}
            for _ in range(64)
        ]

    def __len__(self) -> int:
        return self.count

    def item(self, epoch: int, index: int) -> dict[str, np.ndarray]:
        return self.some[(epoch + index) % len(self.some)]

    def collate(self, items: Sequence[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
        return {key: torch.from_numpy(np.stack([item[key] for item in items])) for key in items[0]}


@contextlib.contextmanager
def spectocloud_run(here: Place, folder: str, *overrides: str, **options: Any) -> Iterator[Going]:
    """The `full` preset, with the Chamfer distance from the first step on."""
    recipe = load_recipe(
        "spectocloud", "full", None,
        [f"data.num_workers={here.workers}", "loss.index_matched=0", *overrides,
         *((*TINY, "data.batch_size=4") if here.small else ())],
    )  # fmt: skip
    constants = {"mean": np.full(N_MELS, -6, np.float32), "std": np.full(1, 2.5, np.float32)}
    with quiet(), running(recipe, Windows(1_000_000), Windows(40), here.folder / folder, device=here.device,
                          constants=constants, options=options) as engine:  # fmt: skip
        engine(3)
        yield engine


def spectocloud(here: Place) -> list[Row]:
    """Rows 10r and 10s."""
    with (
        spectocloud_run(here, "cloud", "training.compile=true") as ours,
        spectocloud_run(here, "cloud32", "training.compile=false", "training.amp=false") as plain,
    ):
        times = in_turn({"ours": turn(here, ours), "rival": turn(here, plain, "highest")}, here.rounds)
        what = "Spectocloud, bfloat16 and compiled, against the same eager in float32"
        anew = recompilations(here, ours)
        anew = replace(anew, bar="10s", what=f"Spectocloud: {anew.what}")
        return [_windows(here, "10r", what, times, ">= 3x", 3, ours), anew]


def cuda_graphs(here: Place) -> list[Row]:
    """Row 10v: whether CUDA graphs would pay. They are no setting: this says whether they should become one."""
    what, wanted = "Spectocloud as CUDA graphs (mode=reduce-overhead), against compiled without", "stated"
    if here.device != "cuda":
        return [not_measured("10v", what, wanted, "graphs are CUDA's")]
    with (
        spectocloud_run(here, "graphs", "training.compile=true", mode="reduce-overhead") as graphs,
        spectocloud_run(here, "nographs", "training.compile=true") as without,
    ):
        times = in_turn({"ours": turn(here, graphs), "rival": turn(here, without)}, here.rounds)
        return [_windows(here, "10v", what, times, wanted, 0, graphs)]


def _windows(
    here: Place, bar: str, what: str, times: dict[str, list[float]], wanted: str, least: float, engine: Going
) -> Row:
    ratio = median(r / o for o, r in zip(times["ours"], times["rival"], strict=True))
    batch = engine.run.plan.global_batch
    ours, rival = (batch * here.steps / median(times[side]) for side in ("ours", "rival"))
    spread = {side: [min(times[side]), median(times[side]), max(times[side])] for side in times}
    return Row(bar, what, ours, rival, "windows/s", ratio, wanted, ratio >= least, f"batch {batch}", spread)
