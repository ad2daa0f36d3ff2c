"""Interpolated Kneser-Ney n-grams over token ids: the baseline that a model must beat.

Chen and Goodman 1999, "An empirical study of smoothing techniques for language modeling", section 4.1.6, with one
absolute discount per order, n1 / (n1 + 2 n2). Counting is sorting: an n-gram is one int64 in base 389.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BASE = 389  # the 388 ids, and padding before a song
NOTHING = 388


def _codes(songs: Sequence[np.ndarray], order: int) -> np.ndarray:
    """Every token of every song as the code of the n-gram that ends in it: i64 [tokens]; n-grams do not cross songs."""
    out = []
    for ids in songs:
        padded = np.concatenate((np.full(order - 1, NOTHING, np.int64), np.asarray(ids, np.int64)))
        code = np.zeros(len(ids), np.int64)
        for offset in range(order):
            code = code * BASE + padded[offset : offset + len(ids)]
        out.append(code)
    return np.concatenate(out)


class _Order:
    """Counts of one order: occurrences of each n-gram or, below the highest order, distinct tokens before it."""

    def __init__(self, grams: np.ndarray, counts: np.ndarray):
        self.grams, self.counts = grams, counts.astype(np.float64)
        once, twice = (counts == 1).sum(), (counts == 2).sum()
        self.discount = float(once / (once + 2 * twice)) if once else 0.5
        self.contexts, first = np.unique(grams // BASE, return_index=True)
        self.totals = np.add.reduceat(self.counts, first)
        self.followers = np.diff(np.append(first, len(grams)))

    def refine(self, lower: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Probabilities by the next lower order -> by this order, for the n-grams `codes`."""
        at = np.searchsorted(self.grams, codes).clip(max=len(self.grams) - 1)
        count = np.where(self.grams[at] == codes, self.counts[at], 0.0)
        context = codes // BASE
        at = np.searchsorted(self.contexts, context).clip(max=len(self.contexts) - 1)
        known = self.contexts[at] == context
        total, followers = self.totals[at], self.followers[at]
        own = np.maximum(count - self.discount, 0) / total + self.discount * followers / total * lower
        return np.where(known, own, lower)


class NGram:
    """Fitted on `songs` (arrays of ids). `order` is the n: 1 is the plain frequency of each id."""

    def __init__(self, songs: Sequence[np.ndarray], order: int):
        if not 1 <= order <= 6:
            raise ValueError(f"an n-gram of {order} ids does not fit an int64; 1 to 6 do")
        grams, counts = np.unique(_codes(songs, order), return_counts=True)
        self.orders = [_Order(grams, counts)]
        for n in range(order - 1, 0, -1):
            # Kneser and Ney's idea: the count of a shorter n-gram is the number of different ids before it.
            grams, counts = np.unique(grams % BASE**n, return_counts=True)
            self.orders.insert(0, _Order(grams, counts))

    def probabilities(self, ids: np.ndarray) -> np.ndarray:
        """P(id | the ids before it in the song) for every id of one song: f64 [n]."""
        codes = _codes([ids], len(self.orders))
        probability = np.full(len(ids), 1 / (BASE - 1))
        for n, order in enumerate(self.orders, 1):
            probability = order.refine(probability, codes % BASE**n)
        return probability
