"""Bar 10: all measurements that need a GPU, in one command, in under ten minutes on one GPU: `make bench-gpu`, or

    python -m benchmarks.gpu [--output FILE]

Writes benchmarks/results-gpu.json, and the same as a Markdown table next to it. Without a GPU the same code runs small
sizes on the CPU, as a test, and every figure is "not measured on a GPU".

NOT YET RUN ON A GPU: written against torch 2.13's documentation and source, and run on a CPU only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from benchmarks import gpu_engine, gpu_ranks, reference_loops
from benchmarks.gpu_place import Place, place_here, turn
from benchmarks.harness import Row, in_turn, median, not_installed, not_measured, place
from benchmarks.music import gpu_chamfer
from benchmarks.reference_loops import Loop
from benchmarks.running import EngineRun, quiet
from benchmarks.sql import gpu_sharding
from benchmarks.table import BARS, line, render
from benchmarks.training_step import midi_generator

HERE = Path(__file__).resolve().parent
MINUTES = 8.0  # after which no further measurement is started
NOT_HERE = "not measured on a GPU: small sizes ran on a CPU, as a test"


@dataclass
class Report:
    """Rows, printed as they are measured. A failure does not affect the other rows."""

    until: float  # time.monotonic
    rows: list[Row] = field(default_factory=list)

    def attempt(self, bar: str, what: str, work: Callable[[], list[Row]]) -> None:
        """Add the rows that `work` measures, or one row with the reason why there are none."""
        try:
            if time.monotonic() > self.until:
                found = [not_measured(bar, what, "", f"{MINUTES:g} minutes were over")]
            else:
                found = work()
        except Exception as error:  # noqa: BLE001  the others are measured anyway; the exit status reports it
            traceback.print_exception(error)
            reason = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            found = [Row(bar, what, None, None, "", None, "", None, reason)]
        finally:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        for row in found:
            print("  " + line(row.plain()), file=sys.stderr, flush=True)
        self.rows += found


def main(arguments: list[str] | None = None) -> int:
    """Measure; returns 1 if a subject failed, else 0, even if bars are missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, metavar="FILE", help="default, on a GPU: benchmarks/results-gpu.json")
    parser.add_argument("--rank", type=Path, metavar="FILE", help=argparse.SUPPRESS)  # one of torchrun's processes
    options = parser.parse_args(arguments)
    if options.rank:
        gpu_ranks.one(options.rank)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        here = place_here(Path(folder))
        head = {**place(), "device": here.name, "small": here.small}
        head["command"] = "python -m benchmarks.gpu"
        rows = measure(here)
    if here.small:
        empty = {"ours": None, "reference": None, "ratio": None, "met": None, "note": NOT_HERE}
        rows = [replace(row, **empty) if row.met is not None else row for row in rows]
        print("not measured on a GPU: this machine has none")
    output = options.output or (None if here.small else HERE / "results-gpu.json")
    result = {**head, "rows": [row.plain() | {"subject": "gpu"} for row in rows]}
    if output:
        output.write_text(json.dumps(result, indent=1) + "\n")
        output.with_suffix(".md").write_text(render([result], {"10": BARS["10"]}))
        print(f"written to {output} and {output.with_suffix('.md')}")
    return int(any(row.note.startswith("failed: ") for row in rows))


def measure(here: Place) -> list[Row]:
    """Rows 10a to 10z; long and less important measurements come last."""
    report = Report(time.monotonic() + 60 * MINUTES)
    report.attempt("10k", "Chamfer distance", lambda: gpu_chamfer.measure(here))
    report.attempt("10a", "training the MIDI generator", lambda: _training(here, report))
    report.attempt("10r", "training Spectocloud", lambda: gpu_engine.spectocloud(here))
    report.attempt("10u", "several GPUs", lambda: gpu_ranks.measure(here))
    report.attempt("10v", "CUDA graphs", lambda: gpu_engine.cuda_graphs(here))
    report.attempt("10w", "sharded over several GPUs", lambda: gpu_sharding.measure(here))
    return sorted(report.rows, key=lambda row: row.bar)


def _training(here: Place, report: Report) -> list[Row]:
    """Rows 10a to 10j, all measured on one run, which is compiled once."""
    with quiet(), contextlib.ExitStack() as stack:
        engine = stack.enter_context(
            midi_generator(here.folder / "midi", here.shape, here.batch, "training.amp=true", "training.compile=true",
                           small=here.small, device=here.device, workers=here.workers)
        )  # fmt: skip
        engine(3)
        for bar, what, work in (
            ("10b", "bare loop", _bare_loop), ("10a", "eager float32", _eager), ("10c", "Trainer", _trainer),
        ):  # fmt: skip
            report.attempt(bar, what, lambda work=work: work(here, engine))
        for bar, what, one in gpu_engine.MEASUREMENTS:
            report.attempt(bar, what, lambda one=one: [one(here, engine)])
        report.attempt("10y", "Trainer, compiled", lambda: _trainer(here, engine, "10y", torch_compile=True))
    return []


def _against(
    here: Place, engine: EngineRun, bar: str, what: str, wanted: float, reference: Callable[[], float], note: str = "",
    rounds: int | None = None,
) -> Row:  # fmt: skip
    """Our run and the reference in turn: tokens per second of both."""
    sides = {"ours": turn(here, engine), "reference": reference}
    times = in_turn(sides, rounds or here.rounds)
    ratio = median(r / o for o, r in zip(times["ours"], times["reference"], strict=True))
    tokens = here.batch * here.shape.context * here.steps
    ours, other = (tokens / median(times[side]) for side in ("ours", "reference"))
    spread = {side: [min(times[side]), median(times[side]), max(times[side])] for side in times}
    about = f"{here.batch} x {here.shape.context} tokens a step{'; ' if note else ''}{note}"
    return Row(bar, what, ours, other, "tokens/s", ratio, f">= {wanted:g}x", ratio >= wanted, about, spread)


def _eager(here: Place, engine: EngineRun) -> list[Row]:
    with midi_generator(here.folder / "eager", here.shape, here.batch, "training.amp=false", small=here.small,
                        device=here.device, workers=here.workers) as plain:  # fmt: skip
        reference = turn(here, plain, "highest")
        what = "MIDI generator, bfloat16 and compiled, against the same eager in float32"
        return [_against(here, engine, "10a", what, 3, reference, "no TF32 in the reference")]


def _bare_loop(here: Place, engine: EngineRun) -> list[Row]:
    loop = Loop(here.shape, here.batch, here.device, compiled=True)
    what = "MIDI generator against nanoGPT's loop, bfloat16 and compiled too"
    return [
        _against(here, engine, "10b", what, 1, turn(here, loop), "as many parameters, no emotion, songs not separated")
    ]


def _trainer(here: Place, engine: EngineRun, bar: str = "10c", **options: bool) -> list[Row]:
    how = "bfloat16, compiled" if options else "bfloat16"
    what = f"MIDI generator against Hugging Face's Trainer, Llama of the same shape, {how}"
    missing = not_installed("transformers", "accelerate")
    if missing:
        return [not_measured(bar, what, ">= 1x", missing)]
    model = reference_loops.llama(here.shape)

    def seconds() -> float:
        torch.set_float32_matmul_precision("high")
        taken = reference_loops.trainer_seconds(
            model, here.shape, here.batch, here.steps, here.folder / "trainer", device=here.device, warm=here.warm,
            bf16=True, **options,
        )  # fmt: skip
        here.free_cache()
        return taken

    with reference_loops.quiet_transformers():
        return [_against(here, engine, bar, what, 1, seconds, rounds=1 if options else 3)]


if __name__ == "__main__":
    sys.exit(main())
