"""`make soak`: runs the trials of every fault in docs/reliability.md, prints a line per row and writes results as JSON.

python -m soak [--rows 1,7,10] [--small] [--seed N] [--trial N] [--output FILE]

Exit code 1 if a trial fails, or a mutant (the code with one safeguard removed) is not caught.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import place
from soak.harness import Tally, tally
from soak.listing import rows


def main(arguments: list[str] | None = None) -> int:
    """Run the rows; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=_numbers, metavar="1,7,10", help="default: all")
    parser.add_argument("--small", action="store_true", help="few trials of every row (minutes); for CI")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of all random choices (default: 1)")
    parser.add_argument("--trial", type=_numbers, metavar="N", help="only these trials, without mutants: to repeat one")
    parser.add_argument("--output", type=Path, metavar="FILE", help="results as JSON")
    options = parser.parse_args(arguments)
    every = rows()
    unknown = (options.rows or frozenset()) - {row.number for row in every}
    if unknown:
        parser.error(f"no such row: {', '.join(map(str, sorted(unknown)))}")
    wanted = [row for row in every if options.rows is None or row.number in options.rows]
    size = "--small " if options.small else ""
    again = f"python -m soak {size}--seed {options.seed} --rows R --trial T"
    print(f"seed {options.seed}; to run one trial again: {again}")
    began = time.monotonic()
    tallies = []
    with tempfile.TemporaryDirectory(prefix="athanor-soak-", ignore_cleanup_errors=True) as scratch:
        for row in wanted:
            done = tally(row, small=options.small, seed=options.seed, scratch=Path(scratch), only=options.trial)
            tallies.append(done)
            print(line(done, judge_mutants=options.trial is None), flush=True)
    print(f"{sum(t.tried for t in tallies)} trials in {time.monotonic() - began:.0f} s")
    if options.output:
        results = {
            **place(), "root": os.geteuid() == 0, "seed": options.seed, "small": options.small,
            "rows": [t.plain() for t in tallies],
        }  # fmt: skip
        options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 1 if any(not t.unable and not t.passed for t in tallies) else 0


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
