"""Bar 10 on several GPUs: the same training under torchrun on one GPU and on all of them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.gpu_place import Place, place_here
from benchmarks.harness import Row, not_measured
from benchmarks.running import quiet
from benchmarks.training_step import midi_generator
from training.workspace import PROJECT

SHARE = 0.9
PATIENCE = 240  # s, for one training, compiling included


def measure(here: Place) -> list[Row]:
    """Row 10u."""
    what, count = "MIDI generator, 1 -> N GPUs, share of N times one", torch.cuda.device_count()
    if count < 2:
        return [not_measured("10u", what, f">= {SHARE}", f"{count} GPU{'s' * (count != 1)} here")]
    alone, together = rate(here, 1), rate(here, count)
    share = together / alone / count
    note = f"{count} GPUs, {here.batch} x {here.shape.context} tokens a GPU and step"
    return [Row("10u", what, together, alone, "tokens/s", share, f">= {SHARE}", share >= SHARE, note)]


def rate(here: Place, count: int) -> float:
    """Tokens per second of `count` processes together."""
    result = here.folder / f"of_{count}.json"
    command = [sys.executable, "-m", "training.runner.launch", f"--nproc_per_node={count}", "--standalone",
               "-m", "benchmarks.gpu", "--rank", str(result)]  # fmt: skip
    subprocess.run(command, cwd=PROJECT, check=True, timeout=PATIENCE, stdout=subprocess.DEVNULL)
    return json.loads(result.read_text())


def one(result: Path) -> None:
    """The program of each rank; rank 0 writes the tokens per second of all ranks to `result`."""
    with tempfile.TemporaryDirectory() as folder:
        here = place_here(Path(folder))
        compiled = "false" if here.small else "true"
        with quiet(), midi_generator(
            here.folder, here.shape, here.batch, "training.amp=true", f"training.compile={compiled}",
            small=here.small, device=here.device, workers=here.workers,
        ) as engine:  # fmt: skip
            ranks = engine.run.ranks
            engine(here.warm + 3)
            here.synchronize()
            ranks.total([0.0])  # a barrier
            began = time.perf_counter()
            engine(3 * here.steps)
            here.synchronize()
            slowest = max(ranks.gather(time.perf_counter() - began))
            if ranks.is_first:
                tokens = 3 * here.steps * engine.run.plan.global_batch * here.shape.context
                result.write_text(json.dumps(tokens / slowest))
