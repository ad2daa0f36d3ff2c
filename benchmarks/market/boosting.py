"""What chunks cost: trees grown in chunks that a killed run can repeat, against one uninterrupted training of the same
library with the same settings and the same table.

Chunks include the conversion to plain trees and the margins of the decisions after each chunk; the uninterrupted
training includes neither.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.harness import Row, paired
from training.domains.market.trees.families import CatBoost, LightGBM, XGBoost
from training.domains.market.trees.forest import Forest
from training.domains.market.trees.growing import Chunk, seed_of
from training.domains.market.trees.settings import TreeSettings
from training.threads import count

BAR = 1.1


def measure(small: bool) -> list[Row]:
    rows, rounds, repeats = (1_000, 20, 1) if small else (20_000, 100, 3)
    return [_row(kind, rows, rounds, repeats) for kind in (XGBoost, LightGBM, CatBoost)]


def _row(kind: type, rows: int, rounds: int, repeats: int) -> Row:
    random = np.random.default_rng(0)
    features = random.standard_normal((rows, 150)).astype(np.float32)
    label = np.digitize(features[:, 0] + random.standard_normal(rows), [-0.7, 0.7])
    recipe = kind(TreeSettings())
    library, trees = recipe.library(), recipe.settings.trees
    table = library.table(features, label, np.ones(rows, np.float32), trees, count())
    both = paired(
        lambda: _chunked(library, table, features, rounds, recipe.chunk, trees),
        lambda: library.grow(table, np.zeros((rows, 3)), Chunk(0, rounds, 1, count()), trees),
        repeats, warm=0,
    )  # fmt: skip
    ratio = 1 / both.ratio
    note = f"{rows:,} decisions, 150 features, {rounds} rounds in chunks of {recipe.chunk}, {count()} threads"
    ours, reference = (float(np.median(times)) for times in (both.ours, both.reference))
    what = f"{recipe.title}: chunked against uninterrupted"
    return Row("13a", what, ours, reference, "s", ratio, f"<= {BAR}x", ratio <= BAR, note, both.spread)


def _chunked(library: Any, table: Any, features: np.ndarray, rounds: int, size: int, trees: Any) -> None:
    margins, forests = np.zeros((len(features), 3)), []
    for first in range(0, rounds, size):
        chunk = Chunk(first, min(size, rounds - first), seed_of(1, 0, first), count())
        forests.append(library.forest(library.grow(table, margins, chunk, trees)))
        forests[-1].add_to(margins, features)
    Forest.join(forests)
