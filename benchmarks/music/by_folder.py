"""Evaluates a trained Spectocloud on each kind of recording separately: `python benchmarks/music/by_folder.py OUT`.

OUT is a workspace (train_cuda.sh's --out). The kinds are the top-level folders of its corpus, for example "solo" and
"band". Each row uses the held-out songs of one folder. The baseline (clouds drawn from the emotion alone) is fitted on
all training songs, like the model, or, in a second row, on those of the same folder only, so that it cannot be beaten
by recognising the folder. Prints a Markdown table with intervals of 95 %.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from benchmarks.music.learning import BASELINE, COLUMNS, cell
from training.data.rows import select
from training.recipe import EvaluationContext
from training.stages.splits import load_split
from training.stages.trained import load_trained
from training.workspace import Workspace

FAMILY = "spectocloud"


def judged(out: Path) -> dict[tuple[str, str], tuple[int, dict[str, Any]]]:
    """(folder, songs that the baseline is fitted on) -> (songs held out, metrics in the form of metrics.json)."""
    workspace = Workspace(out)
    trained = load_trained(FAMILY, workspace)
    splits = {name: load_split(trained.recipe, workspace, name) for name in ("train", "val")}
    folders = {
        name: np.array([str(row.values["id"]).partition("/")[0] for row in rows]) for name, rows in splits.items()
    }
    found = {}
    for folder in sorted(set(folders["val"].tolist())):
        own, held_out = (select(rows, np.flatnonzero(folders[name] == folder)) for name, rows in splits.items())
        for known, train in (("all", splits["train"]), (f"{folder}/", own)):
            judgement = trained.recipe.evaluate(EvaluationContext(trained.model, train, held_out, 0, _no_baseline, 1.0))
            metrics = {name: metric.plain() for name, metric in judgement.metrics.items()}
            found[folder, known] = len(held_out), metrics
    return found


def _no_baseline(*_: object) -> NoReturn:
    raise RuntimeError("Spectocloud has no trained baseline")


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    names = COLUMNS[FAMILY]
    titles = [name + (f" / {BASELINE[name]}" if name in BASELINE else "") for name in names]
    heads = ["folder", "songs held out", "baseline fitted on", *titles]
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for (folder, known), (songs, metrics) in judged(Path(arguments[0]).absolute()).items():
        cells = [cell(metrics.get(name), BASELINE.get(name)) for name in names]
        print(f"| {folder} | {songs} | {known} | " + " | ".join(cells) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
