"""`make bench`: runs every subject, prints a line per row, and writes benchmarks/results.json.

python -m benchmarks [SUBJECT ...] [--small] [--output FILE]
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.harness import Row, place
from benchmarks.table import line
from training.threads import configure

HERE = Path(__file__).resolve().parent
#: Subject -> its module, with `measure(small: bool) -> list[Row]`.
SUBJECTS = {
    **{
        name: f"benchmarks.{name}"
        for name in ("engine_cost", "estimate", "loading", "saving", "scale", "starved", "startup")
    },
    "training_step": "benchmarks.training_step",
    **{
        name: f"benchmarks.music.{name}" for name in ("chamfer", "generation", "ingest_audio", "ingest_midi", "latency")
    },
    "trl": "benchmarks.sql.trl",
    "boosting": "benchmarks.market.boosting",
    "market_data": "benchmarks.market.preparing",
    "amp_step": "benchmarks.amp.training_step",
    "amp_playing": "benchmarks.amp.playing",
}
QUIET = 0.5  # load average up to which figures are meaningful


def main(arguments: list[str] | None = None) -> int:
    """Run the subjects; returns 0 even if bars are missed (the table shows which), 1 if a subject failed, 2 for an
    unknown one. Results are written after each subject; results of selected or small subjects only to `--output`.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure ratios; both sides run in turn, in one process."
    )
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"of {', '.join(SUBJECTS)} (default: all)")
    parser.add_argument("--small", action="store_true", help="small sizes, as a test: figures are meaningless")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="default, for all subjects: benchmarks/results.json"
    )
    options = parser.parse_args(arguments)
    unknown = set(options.subjects) - set(SUBJECTS)
    if unknown:
        parser.error(f"no such subject: {', '.join(sorted(unknown))}")
    complete = not options.subjects and not options.small
    output = options.output or (HERE / "results.json" if complete else None)
    head, rows, failed = place(), [], False
    print(f"load average {head['load']}, {head['cores']} cores")
    if head["load"] > QUIET:
        print(f"WARNING: the machine is busy (load {head['load']} > {QUIET}): figures may be meaningless.", flush=True)
    for subject in options.subjects or SUBJECTS:
        began = time.monotonic()
        print(f"## {subject}", flush=True)
        measured = _measured(subject, options.small)
        for row in measured:
            print("  " + line(row.plain()), flush=True)
            failed |= row.note.startswith("failed: ")
        print(f"  ({time.monotonic() - began:.0f} s)", flush=True)
        rows += [row.plain() | {"subject": subject} for row in measured]
        if output:
            output.write_text(json.dumps({**head, "small": options.small, "rows": rows}, indent=1) + "\n")
    if output:
        print(f"\nwritten to {output}")
    return int(failed)


def _measured(subject: str, small: bool) -> list[Row]:
    """The subject's rows, measured in a separate process, so that its state, or its crash, does not affect the others.
    A subject that fails gives a row with the reason."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        try:
            return pool.submit(_measure, subject, small).result()
        except Exception as error:  # noqa: BLE001  the others are measured anyway; the exit status reports it
            traceback.print_exception(error)
            reason = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            return [Row("", f"the subject {subject}", None, None, "", None, "", None, reason)]


def _measure(subject: str, small: bool) -> list[Row]:
    return importlib.import_module(SUBJECTS[subject]).measure(small=small)


if __name__ == "__main__":
    configure()  # as every stage does; no import above loads torch
    sys.exit(main())
