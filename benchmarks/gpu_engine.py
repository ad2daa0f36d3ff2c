"""Bar 10, measurements on a run of the engine: utilisation, recompilations, synchronisations, kernels, input wait and
saves; and Spectocloud's steps."""

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
from benchmarks.running import EngineRun, quiet, running
from training.domains.music.clouds.cloud import PARTICLES, SUBFRAMES
from training.domains.music.spectocloud.model import EMOTION, FRAMES, MIDI_FEATURES, N_MELS
from training.registry import load_recipe

SECONDS_BETWEEN_SAVES = 600  # training.save_minutes of the configs
TINY = ("model.width=32", "model.layers=1", "model.heads=2", "model.particle_width=8")


# -- measurements on a run ---------------------------------------------------------------------------------------------


def utilisation(here: Place, engine: EngineRun) -> Row:
    """Model FLOPs per second of the steps, as a share of the device's peak; and whether every log line has it."""
    what, wanted = "model FLOP utilisation, on every log line", "stated"
    run = engine.run
    engine(20)
    records = [json.loads(line) for line in (run.tracker.folder / "metrics.jsonl").read_text().splitlines()]
    train = [record for record in records if record["kind"] == "train"]
    flops, best = run.meter.flops_per_sample, run.meter.peak
    if not best or not flops:
        lines = f"; {sum('tflops' in record for record in train)} of {len(train)} log lines have TFLOP/s"
        return not_measured("10d", what, wanted, f"the peak of this device is not known{lines}")
    seconds = turn(here, engine)() / here.steps
    share = 100 * flops * here.batch / seconds / 1e12 / best
    missing = sum("mfu" not in record for record in train)
    note = (
        f"{flops * here.batch / seconds / 1e12:.1f} of {best:g} TFLOP/s; {len(train)} log lines, {missing} without it"
    )
    return Row("10d", what, share, None, "%", share, wanted, not missing, note)


def recompilations(here: Place, engine: EngineRun) -> Row:
    """Graphs compiled after the first steps: in further steps (whose windows hold other numbers of songs) and in an
    evaluation (whose last batch is not full)."""
    engine.run.evaluate()
    before = _graphs()
    engine(here.steps)
    engine.run.evaluate()
    engine(2)
    more = _graphs() - before
    note = f"{before} graphs before; {here.steps + 2} steps and an evaluation"
    return Row("10e", "graphs recompiled during the training", more, None, "", more, "<= 0", not more, note)


def _graphs() -> int:
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


def synchronisations(here: Place, engine: EngineRun) -> Row:
    """Operations that synchronise with the GPU, as reported by torch. Log lines wait for an event of the last but one
    step, which torch does not report."""
    what, wanted = "synchronisations with the GPU", "<= 0"
    if here.device != "cuda":
        return not_measured("10f", what, wanted, "torch reports them for CUDA only")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            engine(here.steps)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    found = [one for one in caught if "synchroniz" in str(one.message)]
    places = sorted({f"{Path(one.filename).name}:{one.lineno}" for one in found})
    return Row("10f", what, len(found), None, "", len(found), wanted, not found,
               f"in {here.steps} steps" + (f"; at {', '.join(places[:6])}" if places else ""))  # fmt: skip


def kernels(here: Place, engine: EngineRun) -> Row:
    """Whether packed songs use a flash kernel."""
    what, wanted = "share of the GPU's time in flash kernels", "stated"
    if here.device != "cuda":
        return not_measured("10g", what, wanted, "there are flash kernels on CUDA only")
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        engine(2)
        torch.cuda.synchronize()
    on_device = [e for e in profile.key_averages() if e.device_type == torch.autograd.DeviceType.CUDA]
    if not on_device:
        return not_measured("10g", what, wanted, "the profiler recorded no kernels (containers often forbid it)")
    total = sum(event.self_device_time_total for event in on_device)
    flash = [event for event in on_device if "flash" in event.key.lower()]
    share = 100 * sum(event.self_device_time_total for event in flash) / max(1, total)
    names = ", ".join(event.key[:40] for event in sorted(flash, key=lambda e: -e.self_device_time_total)[:2])
    return Row("10g", what, share, None, "%", share, wanted, bool(flash), names or "none: GPUs before Ampere use masks")


def waiting(here: Place, engine: EngineRun) -> Row:
    """The share of a step spent waiting for data loader workers."""
    engine(here.warm)
    here.synchronize()
    engine.waited, began = 0.0, time.perf_counter()
    engine(3 * here.steps)
    here.synchronize()
    seconds = time.perf_counter() - began
    share = 100 * engine.waited / seconds
    note = f"{here.workers} data loader workers, {1e3 * seconds / here.steps / 3:.1f} ms a step"
    return Row("10h", "input wait", 1e3 * engine.waited, None, "ms", share, "<= 1 %", share <= 1, note)


def saving(here: Place, engine: EngineRun) -> Row:
    """How long saves block the training, with one every ten minutes (the default)."""
    held = []
    for _ in range(6):
        engine(here.warm)
        began = time.perf_counter()
        engine.run.save()
        held.append(time.perf_counter() - began)
        engine.run.settle_saves()
    hold = median(held[1:])  # the first one allocates memory
    share = 100 * hold / SECONDS_BETWEEN_SAVES
    note = f"median of {len(held) - 1}, the first took {held[0]:.2f} s; steps already queued on the GPU included"
    return Row("10i", "blocked by saving every 10 minutes", hold, None, "s", share, "<= 1 %", share <= 1, note)


MEASUREMENTS = (
    ("10d", "model FLOP utilisation", utilisation),
    ("10e", "recompilations", recompilations),
    ("10f", "synchronisations", synchronisations),
    ("10g", "flash kernels", kernels),
    ("10h", "input wait", waiting),
    ("10i", "checkpoints", saving),
)


# -- Spectocloud -------------------------------------------------------------------------------------------------------


class Windows:
    """A dataset in the form of Spectocloud's: a few windows of noise, repeated."""

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
def spectocloud_run(here: Place, folder: str, *overrides: str, **options: Any) -> Iterator[EngineRun]:
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
        times = in_turn({"ours": turn(here, ours), "reference": turn(here, plain, "highest")}, here.rounds)
        what = "Spectocloud, bfloat16 and compiled, against the same eager in float32"
        compiled = recompilations(here, ours)
        compiled = replace(compiled, bar="10s", what=f"Spectocloud: {compiled.what}")
        return [_windows(here, "10r", what, times, ">= 3x", 3, ours), compiled]


def cuda_graphs(here: Place) -> list[Row]:
    """Row 10v: the gain from CUDA graphs. There is no setting for them; this shows whether one is worthwhile."""
    what, wanted = "Spectocloud with CUDA graphs (mode=reduce-overhead), against compiled without", "stated"
    if here.device != "cuda":
        return [not_measured("10v", what, wanted, "there are CUDA graphs on CUDA only")]
    with (
        spectocloud_run(here, "graphs", "training.compile=true", mode="reduce-overhead") as graphs,
        spectocloud_run(here, "nographs", "training.compile=true") as without,
    ):
        times = in_turn({"ours": turn(here, graphs), "reference": turn(here, without)}, here.rounds)
        return [_windows(here, "10v", what, times, wanted, 0, graphs)]


def _windows(
    here: Place, bar: str, what: str, times: dict[str, list[float]], wanted: str, least: float, engine: EngineRun
) -> Row:
    ratio = median(r / o for o, r in zip(times["ours"], times["reference"], strict=True))
    batch = engine.run.plan.global_batch
    ours, reference = (batch * here.steps / median(times[side]) for side in ("ours", "reference"))
    spread = {side: [min(times[side]), median(times[side]), max(times[side])] for side in times}
    return Row(bar, what, ours, reference, "windows/s", ratio, wanted, ratio >= least, f"batch {batch}", spread)
