"""Checks that the validation loss fell: `python benchmarks/validation_fell.py OUT` reads the runs under OUT.

Prints, for every family, the first validation, the best one, and the change. Exits with 5 if one fell by less than 5 %.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def validations(run: Path) -> list[tuple[int, float]]:
    """(step, val_loss) of a run, in order."""
    records = (json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [(record["step"], record["val_loss"]) for record in records if record["kind"] == "validation"]


def main(out: Path) -> int:
    """Print one line per run; returns the exit code."""
    runs = sorted(path.parent for path in (out / "runs").glob("*/*/metrics.jsonl"))
    if not runs:
        print(f"error: no run under {out / 'runs'}", file=sys.stderr)
        return 2
    failed = False
    for run in runs:
        found = validations(run)
        (first_step, first), (best_step, best) = found[0], min(found, key=lambda item: item[1])
        fell = best < 0.95 * first
        failed |= not fell
        print(
            f"{run.parent.name}: val_loss {first:.4f} at step {first_step} -> {best:.4f} at step {best_step} "
            f"({best / first - 1:+.0%}){'' if fell else '  IT DID NOT FALL BY 5 %'}"
        )
    return 5 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
