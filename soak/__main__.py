"""`make soak`: runs the trials of every fault in docs/reliability.md, prints a line per row and writes results as JSON.

python -m soak [--rows 1,7,10 | --without 22] [--small] [--seed N] [--trial N] [--at-once N] [--output FILE]

Exit code 1 if a trial fails, or a mutant (the code with one safeguard removed) is not caught.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import place
from soak.harness import Tally, tally
from soak.listing import rows

#: Rows whose trials start interpreters or decoders, or train for longer. Where several rows run at once they come
#: first, so that none of them is left to run alone.
LONG = (23, 11, 12, 5, 18, 28, 27, 24, 1, 2)


def main(arguments: list[str] | None = None) -> int:
    """Run the rows; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=_numbers, metavar="1,7,10", help="default: all")
    parser.add_argument("--without", type=_numbers, default=frozenset(), metavar="22", help="rows that are left out")
    parser.add_argument("--small", action="store_true", help="few trials of every row (minutes); for CI")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of all random choices (default: 1)")
    parser.add_argument("--trial", type=_numbers, metavar="N", help="only these trials, without mutants: to repeat one")
    parser.add_argument(
        "--at-once", type=int, default=1, metavar="N", help="rows that run at the same time (default: 1)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="results as JSON")
    options = parser.parse_args(arguments)
    every = rows()
    unknown = ((options.rows or frozenset()) | options.without) - {row.number for row in every}
    if unknown:
        parser.error(f"no such row: {', '.join(map(str, sorted(unknown)))}")
    numbers = options.rows or {row.number for row in every}
    wanted = [row for row in every if row.number in numbers - options.without]
    size = "--small " if options.small else ""
    again = f"python -m soak {size}--seed {options.seed} --rows R --trial T"
    print(f"seed {options.seed}; to run one trial again: {again}")
    began = time.monotonic()
    results = []
    with tempfile.TemporaryDirectory(prefix="athanor-soak-", ignore_cleanup_errors=True) as scratch:
        count = partial(
            _count, small=options.small, seed=options.seed, scratch=Path(scratch), only=options.trial
        )  # fmt: skip
        for text, result in _counted(count, [row.number for row in wanted], options.at_once):
            print(text, flush=True)
            results.append(result)
    results.sort(key=lambda result: result["row"])
    print(f"{sum(result['tried'] for result in results)} trials in {time.monotonic() - began:.0f} s")
    if options.output:
        content = {
            **place(), "root": os.geteuid() == 0, "seed": options.seed, "small": options.small, "rows": results,
        }  # fmt: skip
        options.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 1 if any(not result["not_run"] and not result["passed"] for result in results) else 0


def _count(number: int, **options: Any) -> tuple[str, dict[str, Any]]:
    """Run a row; returns it as printed and for JSON."""
    done = tally(next(row for row in rows() if row.number == number), **options)
    return line(done, judge_mutants=options["only"] is None), done.plain()


def _counted(count: partial, numbers: list[int], at_once: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows as they end. More than one at once: in processes, as a mutant changes the process that it is in."""
    if at_once == 1:
        yield from map(count, numbers)
        return
    numbers = sorted(numbers, key=lambda number: LONG.index(number) if number in LONG else len(LONG))
    fork = multiprocessing.get_context("fork")  # what a row imports is there already
    with ProcessPoolExecutor(at_once, fork, initializer=_end_with_parent) as processes:
        for ended in as_completed([processes.submit(count, number) for number in numbers]):
            yield ended.result()


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def line(done: Tally, judge_mutants: bool = True) -> str:
    """The line that is printed for a row. `judge_mutants`: include how many mutants were caught."""
    row = done.row
    if done.unable:
        return f"{row.number:3}  not run here: {done.unable}"
    verdict = "held  " if done.passed else "FAILED"
    mutants = f", {done.caught} of {len(done.mutants)} mutants caught" if judge_mutants else ""
    note = row.note()
    return f"{row.number:3}  {verdict} {done.held} of {done.tried}{mutants}, {done.seconds:.0f} s: {row.fault}" + (
        f" ({note})" if note else ""
    )


def _numbers(text: str) -> frozenset[int]:
    try:
        return frozenset(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers like 1,7,10") from None


if __name__ == "__main__":
    sys.exit(main())
