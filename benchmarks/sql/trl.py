"""Bar 12: questions per second of the SQL domain's fine-tuning, against TRL's SFTTrainer, on a CPU.

Both sides train the same LoRA adapter on the same base in float32, with the same optimizer, on the same questions in
every step and the same labels (the answers alone). The domain computes a schema once for a bundle of questions; TRL
computes each question with its schema, padded or packed. Before anything is timed, all sides train the first steps from
the same weights: their token ids and labels must be equal, their losses and gradient norms within sides.TOLERANCE, or
the subject fails.

On a CPU, TRL applies the head to all positions; on a GPU to the labelled ones, as the domain does everywhere. So what
is gained without sharing is a figure of CPUs.

python -m benchmarks.sql.trl [SETUP ...] [--rounds N] [--small]     selected setups; default: those of `make bench`
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.harness import Row, median, not_installed, not_measured
from benchmarks.table import line
from training.threads import configure

CACHE = Path(__file__).resolve().parents[2] / "cache"


@dataclass(frozen=True)
class Setup:
    """A base with a case."""

    letters: str  # of its rows, as many as COMPARED
    base: str  # of material.BASES
    case: str  # "demo" or "wide"
    wanted: float  # the speed-up that sharing should give
    bundle: int
    per_step: int  # bundles
    micro: int  # rows of a micro-batch of the sides that share nothing
    rounds: int
    agreed: int  # first steps that are compared
    sides: tuple[str, ...] = ("shared", "single", "padded", "packed")
    count: int = 360  # questions of the demo


SETUPS = {
    # a step of the demo has two bundles; one keeps the measurement short
    "demo": Setup("abcd", "demo", "demo", 2, bundle=8, per_step=1, micro=4, rounds=3, agreed=2),
    "small": Setup("efgh", "small", "demo", 2, bundle=8, per_step=2, micro=4, rounds=6, agreed=3),
    "small-wide": Setup("ijkl", "small", "wide", 4, bundle=16, per_step=1, micro=2, rounds=4, agreed=2),
    "demo-wide": Setup("mnop", "demo", "wide", 4, 16, 1, micro=2, rounds=2, agreed=1, sides=("shared", "padded")),
}
DEFAULT = ("demo", "small", "small-wide")  # demo-wide takes as long as these together
#: Sizes of a test, of the same setups.
SMALL = {
    "small": replace(SETUPS["small"], base="tiny", bundle=2, micro=2, rounds=1, agreed=2, count=60),
    "small-wide": replace(SETUPS["small-wide"], base="tiny", bundle=4, rounds=1, agreed=1, count=60),
}
#: Both sides of a row, and the speed-up wanted (None: as the setup says; 0: stated).
COMPARED = (("shared", "padded", None), ("single", "padded", 1.1), ("shared", "packed", 0), ("shared", "single", 0))
BASES = {
    "demo": "SmolLM2-135M", "small": "random Llama of 5 M parameters", "tiny": "random Llama of 0.4 M parameters",
}  # fmt: skip
CASES = {"demo": "the demo's schemas", "wide": "schemas of 1,000 tokens"}
OURS = ("shared", "single")
SIDES = {"shared": "bundles of {}", "single": "one question a row", "padded": "TRL, padded", "packed": "TRL, packed"}


def measure(small: bool) -> list[Row]:
    """The rows of bar 12."""
    setups = SMALL.values() if small else (SETUPS[name] for name in DEFAULT)
    return [row for setup in setups for row in rows(setup)]


def rows(setup: Setup) -> list[Row]:
    """The rows of a setup. Raises RuntimeError if the sides do not train the same."""
    import torch

    from benchmarks.running import quiet
    from benchmarks.sql import material
    from benchmarks.sql.sides import Comparison
    from training.domains.sql.bases.folder import base_at, tokenizer_of
    from training.errors import HostError

    missing = not_installed("trl", "datasets")
    sides = [side for side in setup.sides if not missing or side in OURS]
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as held:
        held.enter_context(quiet())
        if not missing:
            from benchmarks.sql.sft import quiet_libraries

            held.enter_context(quiet_libraries())
        questions = material.demo_material(Path(place) / "databases", setup.count)
        try:
            base = material.BASES[setup.base](CACHE, questions.texts)
        except HostError as error:  # the demo's base is downloaded
            return [not_measured(*about, str(error)) for _, _, *about in _compared(setup)]
        case = material.CASES[setup.case](questions, tokenizer_of(base_at(base)), setup.bundle, setup.per_step)
        comparison = Comparison(case, base, setup.micro, Path(place), sides, held)
        apart = comparison.agreement(setup.agreed)
        times = comparison.times(setup.agreed, setup.rounds)
    about = (
        f"{case.questions} questions a step, schemas of {case.schema_tokens:.0f} tokens; computed a step: {{}} tokens; "
        f"in the first {setup.agreed} step{'s' * (setup.agreed > 1)}, losses and gradient norms differ by {apart:.0e} "
        f"at most; float32, {torch.get_num_threads()} threads"
    )
    out = []
    for ours, reference, bar, what, wanted in _compared(setup):
        if reference in sides:
            tokens = " against ".join(f"{comparison.tokens(side):,.0f}" for side in (ours, reference))
            out.append(_row(bar, what, wanted, case.questions, times[ours], times[reference], about.format(tokens)))
        else:
            out.append(not_measured(bar, what, wanted, missing))
    return out


def _row(
    bar: str, what: str, wanted: str, questions: int, ours: Sequence[float], reference: Sequence[float], about: str
) -> Row:
    """Questions a second of both sides, from the seconds of their steps."""
    ratios = [theirs / own for own, theirs in zip(ours, reference, strict=True)]
    spread = {"ours": _spread(ours), "reference": _spread(reference), "ratio": _spread(ratios)}
    ratio = median(ratios)
    least = float(wanted.strip(">=x ")) if wanted != "stated" else 0.0
    interval = f"{min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} rounds; " if len(ratios) > 1 else ""
    return Row(
        bar, what, questions / median(ours), questions / median(reference), "questions/s", ratio, wanted,
        ratio >= least, interval + about, spread,
    )  # fmt: skip


def _compared(setup: Setup) -> Iterator[tuple[str, str, str, str, str]]:
    """For each row: its two sides, its bar, what it measures, and what is wanted."""
    for letter, (ours, reference, least) in zip(setup.letters, COMPARED, strict=True):
        if ours in setup.sides and reference in setup.sides:
            least = setup.wanted if least is None else least
            names = (SIDES[side].format(setup.bundle) for side in (ours, reference))
            what = f"{BASES[setup.base]}, {CASES[setup.case]}: {' against '.join(names)}"
            yield ours, reference, f"12{letter}", what, f">= {least:g}x" if least else "stated"


def _spread(values: Sequence[float]) -> list[float]:
    return [min(values), median(values), max(values)]


def main(arguments: Sequence[str]) -> None:
    """Print the rows of the setups, and write them to a file of results on request."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sql.trl", description=__doc__.split("\n")[0])
    parser.add_argument("setups", nargs="*", metavar="SETUP", help=f"of {', '.join(SETUPS)}; default: all but the last")
    parser.add_argument("--rounds", type=int, help="timed rounds of each setup (default: see SETUPS)")
    parser.add_argument("--small", action="store_true", help="small sizes, as a test: figures are meaningless")
    options = parser.parse_args(arguments)
    known = SMALL if options.small else SETUPS
    if unknown := set(options.setups) - set(known):
        parser.error(f"no such setup: {', '.join(sorted(unknown))}")
    for name in options.setups or [name for name in DEFAULT if name in known]:
        setup = known[name] if options.rounds is None else replace(known[name], rounds=options.rounds)
        for row in rows(setup):
            print(line(row.plain()), flush=True)


if __name__ == "__main__":
    configure()  # before torch is imported
    main(sys.argv[1:])
