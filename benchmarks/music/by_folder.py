"""A trained Spectocloud, judged on each kind of recording separately: `python benchmarks/music/by_folder.py OUT`.

OUT is a workspace (train_cuda.sh's --out). The kinds are the first folders of its corpus: "solo" and "band", say. A
row's songs alone are held out. What the model is compared with (clouds drawn from the emotion alone) knows all
training songs, as the model does; or, in a second row, those of that kind alone, so that it cannot be beaten by telling
the kinds apart. Prints a Markdown table, intervals of 95 %.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from benchmarks.music.learning import BESIDE, COLUMNS, cell
from training.data.rows import select
from training.recipe import EvaluationContext
from training.stages.splits import load_split
from training.stages.trained import load_trained
from training.workspace import Workspace

FAMILY = "spectocloud"


def judged(out: Path) -> dict[tuple[str, str], tuple[int, dict[str, Any]]]:
    """(folder, what the baseline knows) -> (songs held out, metrics as metrics.json has them)."""
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
            judgement = trained.recipe.evaluate(EvaluationContext(trained.model, train, held_out, 0, _no_rival, 1.0))
            metrics = {name: metric.plain() for name, metric in judgement.metrics.items()}
            found[folder, known] = len(held_out), metrics
    return found


def _no_rival(*_: object) -> NoReturn:
    raise RuntimeError("Spectocloud is compared with nothing that has to be trained")


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    names = COLUMNS[FAMILY]
    titles = [name + (f" / {BESIDE[name]}" if name in BESIDE else "") for name in names]
    print("| folder | songs held out | baseline knows | " + " | ".join(titles) + " |\n|" + "---|" * (3 + len(titles)))
    for (folder, known), (songs, metrics) in judged(Path(arguments[0]).absolute()).items():
        cells = [cell(metrics.get(name), BESIDE.get(name)) for name in names]
        print(f"| {folder} | {songs} | {known} | " + " | ".join(cells) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
