"""The time that a job reserves for its end, against the time that the end takes: demo corpus, three budgets.

Times are by the wall clock. The first job has the budget --hours. The budgets of the others follow from the time that
it took: they leave half and a fifth of its time for training (--shares). Each job is `./train_cuda.sh --max-hours H`
from the prepared data on, as on a host that ran no job before (its ledger is removed). A budget holds if the job ends
within it with exit code 0, that is, with everything verified. The reserve must be at least the time that the end takes,
and at most WITHIN times that.

python -m benchmarks.budget [--preset demo] [--hours H] [--shares 0.5 0.2] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import Row
from benchmarks.table import line
from training.budget import book as books
from training.budget.account import ledger_path
from training.budget.limit import HOUR
from training.workspace import PROJECT, Workspace

WITHIN = 1.3
HOURS, SHARES = 0.2, (0.5, 0.2)
DONE = re.compile(r"== (.+): done in \d+ s")
TRAINED = re.compile(r".+ is trained: (\d+) steps, .* s \((.+)\)\. Best ")


@dataclass(frozen=True)
class Done:
    """The measurements of a job with a budget, in seconds by this process's clock. The time of a stage includes that
    since the end of the stage before."""

    budget: float
    code: int
    seconds: float
    stages: Mapping[str, float]  # title of the stage -> seconds, in order
    steps: tuple[str, ...]  # "144 steps, REASON" of each training: how many it did, and why it ended
    kept: Mapping[str, float]  # family -> time reserved for its end when the last training ended
    exports: Mapping[str, float]  # family -> time of its export

    @property
    def trained(self) -> float:
        return sum(seconds for title, seconds in self.stages.items() if title.startswith("Train "))

    @property
    def ending(self) -> float:
        """Seconds from the end of the last training to the end of the job."""
        ends = [at for at, title in enumerate(self.stages) if title.startswith("Train ")]
        return self.seconds - sum(list(self.stages.values())[: ends[-1] + 1])

    def ending_of(self, family: str) -> float:
        """Seconds of the family's evaluation and export, and an equal share of what serves all families."""
        own = {name: self.stages.get(f"Evaluate {name}", 0.0) + self.exports[name] for name in self.exports}
        return own[family] + (self.ending - sum(own.values())) / len(own)


def run_job(out: Path, preset: str, hours: float) -> Done:
    """Run one job from the prepared data on, and measure it."""
    for name in ("checkpoints", "runs", "exports", "cache/baselines"):
        shutil.rmtree(out / name, ignore_errors=True)
    words = ["./train_cuda.sh", "--native", "--cpu", "--preset", preset, "--max-hours", f"{hours:.4f}"]
    began = last = time.monotonic()
    stages, steps = {}, []
    process = subprocess.Popen([*words, "--out", str(out)], cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    for text in process.stdout or ():
        if match := DONE.match(text):
            stages[match[1]], last = time.monotonic() - last, time.monotonic()
        elif match := TRAINED.match(text):
            steps.append(f"{match[1]} steps, {match[2]}")
    code, seconds = process.wait(), time.monotonic() - began
    book = books.read(ledger_path(Workspace(out)))
    kept = [s.kept for s in book.job.sessions if s.kept] if book and book.job else []
    receipt = out / "exports" / "receipt.json"
    families = json.loads(receipt.read_text())["families"] if receipt.exists() else {}
    exports = {name: entry["exported"]["seconds"] for name, entry in families.items()}
    return Done(hours * HOUR, code, seconds, stages, tuple(steps), dict(kept[-1]) if kept else {}, exports)


def rows(name: str, number: int, done: Done) -> list[Row]:
    """The rows of one job: whether the budget held, and the time reserved for the end, in all and by family."""
    held = done.code == 0 and done.seconds <= done.budget
    out = [
        Row(
            f"B{number}a", f"{name} budget: time taken of it", done.seconds, done.budget, "s",
            done.seconds / done.budget, "<= 1, verified", held,
            f"exit code {done.code}; {done.trained / done.seconds:.0%} of the time trained ({'; '.join(done.steps)})",
        )
    ]  # fmt: skip
    if done.code or not done.kept:
        return out
    compared = [("all", sum(done.kept.values()), done.ending)]
    compared += [(family, kept, done.ending_of(family)) for family, kept in done.kept.items()]
    for part, (family, kept, took) in zip("bcdefgh", compared, strict=False):
        # A family's ratio is only stated: dividing the common stages equally among the families is a convention.
        ratio, judged = kept / took, family == "all"
        out.append(
            Row(
                f"B{number}{part}", f"{name} budget: kept back for the end of {family}", kept, took, "s", ratio,
                f"1 to {WITHIN:g}x" if judged else "stated", 1 <= ratio <= WITHIN if judged else None,
                f"{kept:.1f} s kept back, {took:.1f} s taken: {ratio:.2f} times",
            )
        )  # fmt: skip
    return out


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.budget", description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="demo", help="demo, or debug, which trains for seconds")
    parser.add_argument("--hours", type=float, default=HOURS, help="budget of the first job")
    parser.add_argument(
        "--shares", type=float, nargs="*", default=SHARES,
        help="one further job per share, whose budget leaves this share of the first job's training time",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="workspace, whose prepared data are used; default: a temporary one")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place:
        out = (options.out or Path(place)).absolute()
        subprocess.run(
            ["./train_cuda.sh", "--native", "--cpu", "--only", "prepare", "--out", str(out)], cwd=PROJECT, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        number, first = 1, run_job(out, options.preset, options.hours)
        _print(rows("ample", number, first))
        for share in options.shares:
            number += 1
            hours = (first.seconds - (1 - share) * first.trained) / HOUR
            _print(rows(f"{share:.0%} of its training", number, run_job(out, options.preset, hours)))


def _print(found: Sequence[Row]) -> None:
    for row in found:
        print(line(row.plain()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
