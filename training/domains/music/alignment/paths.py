"""Dynamic programming over the similarity of a score and a recording, compiled when this module is first imported.

A path has the steps (1, 1), (1, 2) and (2, 1) in (score frame, recording frame): locally, the recording is between half
and twice as fast as the score. A path may begin and end anywhere; it has the largest sum of similarity.
"""

from __future__ import annotations

import numpy as np

from training.jit import compiled

OUTSIDE = -1e8  # similarities below it: the frame is not in the recording


@compiled("i8(f4[:,::1], i8, i8, u1[:,::1], i8[:,::1])")
def _full(similarity, least, bend, steps, ends):
    """Fill `steps` (0 a start, 1 diagonal, 2 two frames of the recording, 3 two of the score), and `ends[0]` with the
    end of the best path; returns its sum. `least` is subtracted from each similarity; `bend` is the cost of a step that
    is not diagonal."""
    n, m = similarity.shape
    best = np.zeros((3, m), np.int64)
    top = np.int64(-1)
    for i in range(n):
        row = best[i % 3]
        one, two = best[(i + 2) % 3], best[(i + 1) % 3]
        for j in range(m):
            here = 2 * (np.int64(similarity[i, j]) - least)
            value, step = here, 0
            if i >= 1 and j >= 1 and one[j - 1] + here > value:
                value, step = one[j - 1] + here, 1
            if i >= 1 and j >= 2:
                also = one[j - 2] + here + (np.int64(similarity[i, j - 1]) - least) - bend
                if also > value:
                    value, step = also, 2
            if i >= 2 and j >= 1:
                also = two[j - 1] + here + (np.int64(similarity[i - 1, j]) - least) - bend
                if also > value:
                    value, step = also, 3
            row[j] = value
            steps[i, j] = step
            if value > top:
                top = value
                ends[0, 0], ends[0, 1] = i, j
    return top


def full(similarity: np.ndarray, least: int, bend: int) -> tuple[int, np.ndarray]:
    """The best path through float32 [n, m] of whole numbers: (its sum, int64 [k, 2] of cells)."""
    steps = np.zeros(similarity.shape, np.uint8)
    ends = np.zeros((1, 2), np.int64)
    top = _full(similarity, least, bend, steps, ends)
    i, j = ends[0].tolist()
    cells = [(i, j)]
    while (step := steps[i, j]) != 0:
        i, j = i - (2 if step == 3 else 1), j - (2 if step == 2 else 1)
        cells.append((i, j))
    return int(top), np.array(cells[::-1], np.int64)


@compiled("void(f4[:,::1], f4[:,::1], i8[::1], f4[:,::1])", fastmath=True)
def _band(score, sound, first, out):
    """out[i, k] = the similarity of score frame i and recording frame first[i] + k; -1e9 beyond the recording."""
    n, width = out.shape
    for i in range(n):
        for k in range(width):
            j = first[i] + k
            if j < 0 or j >= sound.shape[0]:
                out[i, k] = -1e9
                continue
            total = np.float32(0)
            for d in range(score.shape[1]):
                total += score[i, d] * sound[j, d]
            out[i, k] = total


def band(score: np.ndarray, sound: np.ndarray, first: np.ndarray, width: int) -> np.ndarray:
    """The similarity of each score frame i with the recording's frames first[i] .. first[i] + width - 1."""
    out = np.empty((len(score), width), np.float32)
    _band(score, sound, first, out)
    return out


@compiled("i8(f4[:,::1], i8[::1], i8, i8, u1[:,::1], i8[:,::1])")
def _banded(similarity, first, least, bend, steps, ends):
    n, width = similarity.shape
    best = np.empty((3, width), np.int64)
    best[:] = -(1 << 60)
    top = np.int64(-1)
    for i in range(n):
        row = best[i % 3]
        one, two = best[(i + 2) % 3], best[(i + 1) % 3]
        for k in range(width):
            if similarity[i, k] < OUTSIDE:
                row[k], steps[i, k] = -(1 << 60), 0
                continue
            here = 2 * (np.int64(similarity[i, k]) - least)
            value, step = here, 0
            if i >= 1:
                a = k + first[i] - first[i - 1] - 1  # the recording's frame before, in the row before
                if 0 <= a < width and one[a] + here > value:
                    value, step = one[a] + here, 1
                if 0 <= a - 1 < width and k >= 1:
                    also = one[a - 1] + here + (np.int64(similarity[i, k - 1]) - least) - bend
                    if also > value:
                        value, step = also, 2
                if i >= 2:
                    b = k + first[i] - first[i - 2] - 1
                    c = a + 1
                    if 0 <= b < width and 0 <= c < width:
                        also = two[b] + here + (np.int64(similarity[i - 1, c]) - least) - bend
                        if also > value:
                            value, step = also, 3
            row[k] = value
            steps[i, k] = step
            if value > top:
                top = value
                ends[0, 0], ends[0, 1] = i, k
    return top


def banded(similarity: np.ndarray, first: np.ndarray, least: int, bend: int) -> tuple[int, np.ndarray]:
    """As `full`, for what `band` returns; cells are (score frame, recording frame)."""
    steps = np.zeros(similarity.shape, np.uint8)
    ends = np.zeros((1, 2), np.int64)
    top = _banded(similarity, first, least, bend, steps, ends)
    i, j = int(ends[0, 0]), int(ends[0, 1] + first[ends[0, 0]])
    cells = [(i, j)]
    while (step := steps[i, j - first[i]]) != 0:
        i, j = i - (2 if step == 3 else 1), j - (2 if step == 2 else 1)
        cells.append((i, j))
    return int(top), np.array(cells[::-1], np.int64)
