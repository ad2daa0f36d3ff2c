#!/usr/bin/env python3
"""Run every .mlpackage of an exports folder on a Mac and compare it with the model's own outputs in golden/*.npz.

    python3 check_coreml_on_mac.py exports/

Needs macOS, `pip install coremltools numpy`, and nothing else of Athanor: copy this file and the folder. Ends with 0
if every package agrees, 4 if one differs or is missing, 6 where CoreML cannot run (any system but macOS).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

TOLERANCE = 1e-3  # of the largest value, where the receipt names no other


def trials(golden: Path) -> list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """(inputs, expected outputs) of every trial in a golden file."""
    groups: dict[str, tuple[dict, dict]] = {}
    with np.load(golden, allow_pickle=False) as archive:
        for key in archive.files:
            group, _, rest = key.partition("/")
            side, _, name = rest.partition("/")
            if group.startswith("trial"):
                groups.setdefault(group, ({}, {}))[side != "in"][name] = archive[key]
    return [groups[name] for name in sorted(groups, key=lambda g: int(g[len("trial") :]))]


def error(got: np.ndarray, want: np.ndarray) -> float:
    """max |got - want| / max |want|; infinite for another shape, a NaN or an infinity."""
    if got.shape != want.shape or not (np.isfinite(got).all() and np.isfinite(want).all()):
        return float("inf")
    difference, scale = np.abs(got.astype(np.float64) - want).max(initial=0), np.abs(want).max(initial=0)
    return 0.0 if difference == 0 else float(difference / scale) if scale else float("inf")


def compare(package: Path, golden: Path) -> list[tuple[dict[str, int], dict[str, float]]]:
    """Run one package on the CPU at every trial: (first axis of each input, error of each output). Trials with an
    empty input are left out: CoreML has no empty arrays."""
    import coremltools

    model = coremltools.models.MLModel(str(package), compute_units=coremltools.ComputeUnit.CPU_ONLY)
    figures = []
    for inputs, expected in trials(golden):
        if any(array.size == 0 for array in inputs.values()):
            continue
        given = {k: v.astype(np.int32) if v.dtype.kind == "i" else v.astype(np.float32) for k, v in inputs.items()}
        made = model.predict(given)
        missing = np.empty(0)
        sizes = {name: array.shape[0] for name, array in inputs.items()}
        figures.append(
            (sizes, {name: error(np.asarray(made.get(name, missing)), want) for name, want in expected.items()})
        )
    return figures


def check(folder: Path) -> int:
    """Check a folder; print a line a trial. Returns the exit code."""
    tolerances = {}
    promised: set[str] = set()
    artefacts: set[str] = set()
    receipt = folder / "receipt.json"
    if receipt.is_file():
        for family in json.loads(receipt.read_text(encoding="utf-8")).get("families", {}).values():
            for name, entry in family.get("files", {}).items():
                if name.endswith(".mlpackage") and entry.get("kind") == "artefact":
                    artefacts.add(name)  # in the domain's own format, checked by its prover
                elif name.endswith(".mlpackage"):
                    promised.add(name)
                    tolerances[name] = float(entry.get("tolerance", TOLERANCE))
    found = [*folder.glob("*.mlpackage"), *folder.glob("*/*.mlpackage")]  # one folder deeper: a model an item
    packages = {path.relative_to(folder).as_posix(): path for path in sorted(found)}
    packages = {name: path for name, path in packages.items() if name not in artefacts}
    failed = False
    for name in sorted(promised - set(packages)):
        print(f"{name}: missing")
        failed = True
    if not packages and not failed:
        print(f"There is no .mlpackage in {folder}.")
        failed = True
    if sys.platform != "darwin":
        print(f"{len(packages)} CoreML models found, none executed: only macOS runs them; this is {sys.platform}.")
        return 4 if failed else 6
    for title, package in packages.items():
        golden = package.parent / "golden" / f"{package.stem}.npz"
        if not golden.is_file():
            print(f"{title}: {golden} is missing")
            failed = True
            continue
        allowed = tolerances.get(title, TOLERANCE)
        figures = compare(package, golden)
        failed |= not figures
        if not figures:
            print(f"{title}: no trial that CoreML can take")
        for sizes, errors in figures:
            agrees = bool(errors) and all(e <= allowed for e in errors.values())
            failed |= not agrees
            errors_text = ", ".join(f"{name} {e:.2e}" for name, e in errors.items())
            print(f"{title}  batch {next(iter(sizes.values()))}: {errors_text}  {'agrees' if agrees else 'DIFFERS'}")
    return 4 if failed else 0


def main() -> int:
    """Command line: one folder."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        print(__doc__)
        return 2
    return check(Path(sys.argv[1]))


if __name__ == "__main__":
    sys.exit(main())
