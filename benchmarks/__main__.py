"""`make bench`: every subject in turn, a line a row, and benchmarks/results.json with versions and hardware.

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
}
QUIET = 0.5  # load average up to which figures are worth something


def main(arguments: list[str] | None = None) -> int:
    """Run the subjects; returns 0 whether bars are met or missed (the table says), 1 if a subject failed, 2 for an
    unknown one. What is measured is written after each subject; of some subjects, or small ones, only to `--output`.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ratios, both sides in turn, in one run.")
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"of {', '.join(SUBJECTS)} (default: all)")
    parser.add_argument("--small", action="store_true", help="small sizes, to see that it runs; no bar is judged by it")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="default, for all subjects: benchmarks/results.json"
    )
    options = parser.parse_args(arguments)
    unknown = set(options.subjects) - set(SUBJECTS)
    if unknown:
        parser.error(f"no such subject: {', '.join(sorted(unknown))}")
    whole = not options.subjects and not options.small
    output = options.output or (HERE / "results.json" if whole else None)
    head, rows, failed = place(), [], False
    print(f"load average {head['load']}, {head['cores']} cores")
    if head["load"] > QUIET:
        print(
            f"WARNING: something else is running (load {head['load']} > {QUIET}): figures may mean little.", flush=True
        )
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
    """The subject's rows, measured in a process of its own: what one leaves behind, or dies of, is not the next one's.
    One that fails is a row that says so."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        try:
            return pool.submit(_measure, subject, small).result()
        except Exception as error:  # noqa: BLE001  the others are still to be measured; the exit status tells
            traceback.print_exception(error)
            reason = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            return [Row("", f"the subject {subject}", None, None, "", None, "", None, reason)]


def _measure(subject: str, small: bool) -> list[Row]:
    return importlib.import_module(SUBJECTS[subject]).measure(small=small)


if __name__ == "__main__":
    configure()  # as every stage does; no import above loads torch
    sys.exit(main())
