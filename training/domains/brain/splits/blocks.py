"""Splits a run into blocks of time. BOLD of neighbouring volumes is alike (the response lasts half a minute, and noise
is autocorrelated), so volumes drawn at random would put near copies of training rows into the test."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from training.errors import DataError

TEST, VAL = 0.15, 0.10  # shares of a run
GAP_SECONDS, GAP_VOLUMES = 20.0, 3  # on both sides of a held-out block
LONGEST = 64  # volumes of a training row: the window of a sample
PIECE = 20  # volumes of a held-out row, the unit of the bootstrap: at least this many
_BLOCK = 68  # volumes of a test or validation block, about


@dataclass(frozen=True)
class Block:
    """Volumes [begin, end) of a run in one split."""

    split: str  # train, val or test
    begin: int
    end: int


def gap_of(tr: float) -> int:
    """Volumes between training rows and held-out rows: 20 s, in which the response to a training row fades, and three
    more for the autocorrelation of noise."""
    return math.ceil(GAP_SECONDS / tr) + GAP_VOLUMES


def blocks(volumes: int, tr: float, seed: int, run: int = 0) -> list[Block]:
    """The blocks of a run in order of time; a function of the arguments alone, so it is the same for all subjects.

    Held-out blocks have a gap on both sides, and also to the run's begin and end, since the run before or after may
    have been acquired seconds away. What is in a gap is in no split. Raises DataError for a run too short to be split.
    """
    gap = gap_of(tr)
    held = _held_out(volumes)
    sizes = [size for _, size in held]
    free = volumes - sum(sizes) - 2 * gap * len(held)
    if free < max(2 * PIECE, volumes // 5):
        raise DataError(
            f"a run of {volumes} volumes of {tr:g} s is too short: held-out blocks of {sum(sizes)} volumes with gaps "
            f"of {gap} on both sides leave {max(free, 0)} for training"
        )
    random = np.random.default_rng([seed, 0xB10C, run])
    order = random.permutation(len(held))
    cuts = np.sort(random.integers(0, free + 1, len(held)))
    out, at, before = [], 0, 0
    for number, cut in zip(order, cuts, strict=True):
        split, size = held[number]
        train = int(cut - before)
        out.append(Block("train", at, at + train))
        begin = at + train + gap
        out.append(Block(split, begin, begin + size))
        at, before = begin + size + gap, int(cut)
    out.append(Block("train", at, volumes))
    return [block for block in out if block.split != "train" or block.end - block.begin >= PIECE]


def _held_out(volumes: int) -> list[tuple[str, int]]:
    """(split, volumes) of each held-out block."""
    found = []
    for split, share in (("test", TEST), ("val", VAL)):
        total = max(PIECE, round(share * volumes))
        number = max(1, round(total / _BLOCK))
        found += [(split, len(part)) for part in np.array_split(np.arange(total), number)]
    return found


def rows_of(block: Block) -> list[tuple[int, int]]:
    """The (begin, end) of the block's rows: at most LONGEST volumes for training, about PIECE for held-out ones."""
    length = block.end - block.begin
    number = math.ceil(length / LONGEST) if block.split == "train" else max(1, length // PIECE)
    edges = np.linspace(block.begin, block.end, number + 1).round().astype(int)
    return [(int(begin), int(end)) for begin, end in itertools.pairwise(edges)]


def smallest_gap(train: list[tuple[str, int, int]], held_out: list[tuple[str, int, int]]) -> int | None:
    """The fewest volumes between a training row and a held-out row of the same run, each (run, begin, end); 0 if they
    touch, negative if they overlap, None if no run has both."""
    found = [
        max(begin - last, first - end) for run, begin, end in held_out for other, first, last in train if other == run
    ]
    return min(found, default=None)
