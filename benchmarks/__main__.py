"""`make bench`: every subject in turn, a table, and benchmarks/results.json with versions and hardware.

python -m benchmarks [SUBJECT ...] [--small] [--output FILE]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: A subject is a module of this folder with `measure(small: bool) -> list[Row]`.
SUBJECTS: tuple[str, ...] = ("chamfer", "estimate", "latency", "saving")
LIBRARIES = ("torch", "numpy", "scipy", "onnxruntime", "symusic", "librosa", "mido", "pretty_midi", "miditok",
             "transformers", "accelerate")  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run the subjects; returns 0 whether bars are met or missed (the table says), 2 for an unknown subject."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ratios, both sides in turn, in one run.")
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"of {', '.join(SUBJECTS)} (default: all)")
    parser.add_argument("--small", action="store_true", help="small sizes, to see that it runs; no bar is judged by it")
    parser.add_argument("--output", type=Path, default=HERE / "results.json", metavar="FILE")
    options = parser.parse_args(arguments)
    unknown = set(options.subjects) - set(SUBJECTS)
    if unknown:
        parser.error(f"no such subject: {', '.join(sorted(unknown))}")
    rows = []
    for subject in options.subjects or SUBJECTS:
        began = time.monotonic()
        print(f"## {subject}", flush=True)
        measured = importlib.import_module(f"benchmarks.{subject}").measure(small=options.small)
        for row in measured:
            print("  " + _line(row), flush=True)
        print(f"  ({time.monotonic() - began:.0f} s)", flush=True)
        rows += [row.plain() | {"subject": subject} for row in measured]
    options.output.write_text(json.dumps({**_place(), "small": options.small, "rows": rows}, indent=1) + "\n")
    print(f"\nwritten to {options.output}")
    return 0


def _line(row) -> str:
    verdict = "met   " if row.met else "MISSED"
    rival = "" if row.rival is None else f" against {row.rival:,.4g}"
    return (
        f"{verdict} {row.bar:4} {row.what}: {row.ratio:.3g} (wanted {row.wanted}); {row.ours:,.4g}{rival} {row.unit}"
        + (f"; {row.note}" if row.note else "")
    )


def _place() -> dict:
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = None
    cpu = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in cpu if "model name" in line), "")
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "python": platform.python_version(),
        "processor": model or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "libraries": found,
    }


if __name__ == "__main__":
    sys.exit(main())
