"""Measures of held-out predictions, with intervals by blocks of test time.

All correlations are over time, one for each voxel and subject; only then they are averaged.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.judgement import COVERAGE, LEAST_UNITS, BootstrapDraws, Interval

LEAST_SHIFT = 10  # volumes, of the circular shifts that make the null distribution
SHIFTS = 100  # that are drawn where there is more than one block
SHORTEST = 2 * LEAST_SHIFT + 4  # volumes of a block of which there are five such shifts
SEGMENT = 9  # volumes, of segment matching
_CHUNK = 8_192  # voxels at a time
_TINY = 1e-12


class BlockEstimate(BootstrapDraws):
    """A figure over all time blocks, and with each left out. With fewer than LEAST_UNITS it has no interval.

    The interval is that of the jackknife with Student's t (Tukey 1958; Miller 1974, "The jackknife: a review",
    Biometrika 61, 1-15), since there are few blocks: of 72 films that the subjects had not seen, with six test blocks,
    the BCa bootstrap's was above 0 for 7 % and not 2.5 %, and this one for 1 to 3 % (docs/brain.md).
    """

    @classmethod
    def of(cls, value: float, without: np.ndarray) -> BlockEstimate:
        """`without`: float64 [U], with each block left out."""
        return cls(value, np.zeros(0), without, len(without) >= LEAST_UNITS)

    def interval(self) -> Interval:
        from scipy.stats import t  # slow to import

        count = len(self.without)
        if not self.estimated:
            return Interval.exactly(self.value)
        error = np.sqrt((count - 1) / count * ((self.without - self.without.mean()) ** 2).sum())
        half = float(t.ppf((1 + COVERAGE) / 2, count - 1) * error)
        return Interval(self.value, self.value - half, self.value + half)

    def __sub__(self, other: BootstrapDraws) -> BlockEstimate:
        return BlockEstimate(self.value - other.value, np.zeros(0), self.without - other.without,
                             self.estimated and other.estimated)  # fmt: skip

    def constant(self, value: float) -> BlockEstimate:
        """A figure that is the same for any blocks, to be compared with."""
        return BlockEstimate(value, np.zeros(0), np.full_like(self.without, value), self.estimated)


def left_out(blocks: int) -> np.ndarray:
    """Weights float64 [U, U] of the blocks with each left out; [0, U] for a single one, without which nothing is."""
    return (1 - np.eye(blocks))[: blocks if blocks > 1 else 0]


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over the volumes of U blocks, float64 [U, V]: all that correlations over any selection of blocks need."""

    n: np.ndarray  # float64 [U]
    p: np.ndarray
    y: np.ndarray
    pp: np.ndarray
    yy: np.ndarray
    py: np.ndarray

    @classmethod
    def of(cls, predicted: Sequence[np.ndarray], measured: Sequence[np.ndarray]) -> Moments:
        """`predicted`, `measured`: float32 [t, V] of each block."""

        def sums(of) -> np.ndarray:
            return np.stack([of(p.astype(np.float64), y.astype(np.float64)).sum(0) for p, y in
                             zip(predicted, measured, strict=True)])  # fmt: skip

        return cls(
            np.array([float(len(part)) for part in predicted]), sums(lambda p, y: p), sums(lambda p, y: y),
            sums(lambda p, y: p * p), sums(lambda p, y: y * y), sums(lambda p, y: p * y),
        )  # fmt: skip

    def summed(self, groups: Sequence[Sequence[int]]) -> Moments:
        """The blocks of each group as one."""
        def of(part: np.ndarray) -> np.ndarray:
            return np.stack([part[list(group)].sum(0) for group in groups])

        return Moments(*(of(getattr(self, name)) for name in ("n", "p", "y", "pp", "yy", "py")))

    def correlations(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Pearson r of each voxel over all blocks: float64 [V]; with weights [D, U], of each draw: [D, V]. 0 where
        prediction or measurement is constant."""
        if weights is None:
            return self.correlations(np.ones((1, len(self.n))))[0]
        n = (weights @ self.n)[:, None]
        p, y, pp, yy, py = (weights @ part for part in (self.p, self.y, self.pp, self.yy, self.py))
        with np.errstate(invalid="ignore", divide="ignore"):
            cross = py - p * y / n
            left, right = pp - p * p / n, yy - y * y / n
            r = cross / np.sqrt(left * right)
        good = (left > _TINY * np.maximum(pp, 1)) & (right > _TINY * np.maximum(yy, 1))
        return np.where(good, r, 0.0)

    def mean_of(self, chosen: np.ndarray | None = None) -> BlockEstimate:
        """The mean correlation of the chosen voxels (bool [V]; None: all): over all blocks, and with each block left
        out."""
        voxels = np.arange(self.p.shape[1]) if chosen is None else np.flatnonzero(chosen)
        if not len(voxels):
            raise ValueError("no voxel is chosen")
        every = np.concatenate([np.ones((1, len(self.n))), left_out(len(self.n))]).astype(np.float64)
        total = np.zeros(len(every))
        for begin in range(0, len(voxels), _CHUNK):
            part = voxels[begin : begin + _CHUNK]
            some = Moments(self.n, *(getattr(self, name)[:, part] for name in ("p", "y", "pp", "yy", "py")))
            total += some.correlations(every).sum(1)
        total /= len(voxels)
        return BlockEstimate.of(float(total[0]), total[1:])


def joined(parts: Sequence[Moments]) -> Moments:
    """The voxels of several subjects side by side; the blocks must be the same."""
    names = ("p", "y", "pp", "yy", "py")
    return Moments(parts[0].n, *(np.concatenate([getattr(part, name) for part in parts], 1) for name in names))


# -- the ceiling -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Ceiling:
    """The correlation that a perfect model of what subjects share would reach, by subject and voxel. `kind` says how it
    was found; "unknown" has no values."""

    values_SV: np.ndarray | None  # float64
    kind: str  # "repeats", "between subjects" or "unknown"
    bound: str  # a clause on what it bounds


def ceiling_of(measured_STV: np.ndarray, repeats: np.ndarray | None = None) -> Ceiling:
    """The noise ceiling from repeated runs (float [R, S, T, V]), else from the correlation between subjects.

    With one repeat of each subject, the expected correlation of two recordings is the share of variance that they have
    in common, and its root bounds any prediction (Schoppe et al. 2016, "Measuring the performance of neural models",
    Frontiers in Computational Neuroscience 10, 10). Between subjects, responses and noise are not the only difference:
    what is a subject's own, and voxels that do not correspond, count as noise, so the true ceiling may be higher.
    Values are never clipped, neither to 1 nor to 0: a negative correlation has a negative root, or the mean over voxels
    without signal would be above 0.
    """
    if repeats is not None and len(repeats) > 1:
        pairs = [
            _paired(repeats[one], repeats[other])
            for one in range(len(repeats))
            for other in range(one + 1, len(repeats))
        ]
        return Ceiling(_root(np.mean(pairs, 0)), "repeats", "of what repeats for a subject")
    if len(measured_STV) < 2:
        return Ceiling(None, "unknown", "one subject and no repeated run: no ceiling is known")
    shared = intersubject(measured_STV)
    return Ceiling(_root(shared), "between subjects",
                   "a lower bound: what a subject does not share with others counts as noise")  # fmt: skip


def _root(values: np.ndarray) -> np.ndarray:
    return np.sign(values) * np.sqrt(np.abs(values))


def intersubject(measured_STV: np.ndarray) -> np.ndarray:
    """The mean correlation of each subject with the others, voxel by voxel: float64 [S, V] (Hasson et al. 2004,
    "Intersubject synchronization of cortical activity during natural vision", Science 303, 1634-1640)."""
    subjects = len(measured_STV)
    total = np.zeros((subjects, measured_STV.shape[2]))
    for one in range(subjects):
        for other in range(one + 1, subjects):
            r = _columns(measured_STV[one], measured_STV[other])
            total[one] += r
            total[other] += r
    return total / (subjects - 1)


def _paired(one_STV: np.ndarray, other_STV: np.ndarray) -> np.ndarray:
    return np.stack([_columns(a, b) for a, b in zip(one_STV, other_STV, strict=True)])


def _columns(a_TV: np.ndarray, b_TV: np.ndarray) -> np.ndarray:
    return Moments.of([a_TV], [b_TV]).correlations()


# -- significance ------------------------------------------------------------------------------------------------------


def pooled_p(own_V: np.ndarray, null_NV: np.ndarray) -> np.ndarray:
    """The p value of each column of `shifted`, float64 [V]. Null distributions are divided by their spread and pooled
    over columns, since there are fewer shifts than a false discovery rate over thousands of voxels needs. The spread of
    a column includes its own value, which without an effect is one of the shifts: else few shifts would have too small
    a spread by chance, and voxels of noise would be found."""
    spread = np.maximum(np.sqrt((own_V**2 + (null_NV**2).sum(0)) / (len(null_NV) + 1)), 1e-9)
    pooled = np.sort((null_NV / spread).ravel())
    above = len(pooled) - np.searchsorted(pooled, own_V / spread, side="left")
    return (above + 1) / (len(pooled) + 1)


def shifted(
    predicted_TV: np.ndarray, measured_TV: np.ndarray, blocks: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Fisher's z of each voxel's correlation, float32 [V], and with the prediction moved by each of N circular shifts
    within the blocks, [N, V]. Shifts keep the autocorrelation of both, which a permutation of volumes would destroy.

    Each block is moved by another shift, so that there are many; they are the same for all subjects, who saw the
    same film. `blocks`: the length of each. Raises ValueError for blocks too short to be shifted.
    """
    if min(blocks) < SHORTEST:
        raise ValueError(f"test blocks of {min(blocks)} volumes are too short for shifts of at least {LEAST_SHIFT}")
    starts = np.cumsum([0, *blocks])
    spans = list(itertools.pairwise(starts))
    predicted, measured = _unit(predicted_TV), _unit(measured_TV)

    def z(moved: np.ndarray) -> np.ndarray:
        return np.arctanh(np.clip(np.einsum("tv,tv->v", moved, measured), -0.999999, 0.999999))

    null = [
        z(np.concatenate([np.roll(predicted[begin:end], by, 0) for (begin, end), by in zip(spans, shift, strict=True)]))
        for shift in _shifts(blocks)
    ]  # fmt: skip
    return z(predicted), np.stack(null)


def _shifts(blocks: Sequence[int]) -> np.ndarray:
    """The shift of each block, int64 [N, blocks]; of a single block all that there are."""
    ranges = [np.arange(LEAST_SHIFT, length - LEAST_SHIFT + 1) for length in blocks]
    if len(ranges) == 1:
        return ranges[0][:, None]
    random = np.random.default_rng(0x5417)
    return np.stack([random.choice(of, SHIFTS) for of in ranges], 1)


def _unit(values_TV: np.ndarray) -> np.ndarray:
    """Each column centred and of norm 1, float32; 0 where it is constant. A circular shift changes neither."""
    centred = values_TV - values_TV.mean(0, dtype=np.float64)
    size = np.linalg.norm(centred, axis=0)
    good = size**2 > _TINY * np.maximum((values_TV.astype(np.float64) ** 2).sum(0), 1)
    return np.divide(centred, size, out=np.zeros_like(centred), where=good).astype(np.float32)


def false_discovery(p: np.ndarray) -> np.ndarray:
    """Adjusted p values q (Benjamini and Hochberg 1995, "Controlling the false discovery rate", J. Royal Statistical
    Society B 57, 289-300), float64 of the shape of p: q < 0.05 are discoveries at a rate of 5 %."""
    flat = p.ravel()
    order = np.argsort(flat)[::-1]
    ranked = flat[order] * len(flat) / np.arange(len(flat), 0, -1)
    q = np.empty_like(flat)
    q[order] = np.minimum.accumulate(ranked)
    return np.minimum(q, 1).reshape(p.shape)


# -- segments ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Matching:
    """Segments of the test that were recognised by their predicted BOLD. `chance`: the expected number by guessing."""

    right: int
    of: int
    chance: float = 1.0


def match_segments(predicted: Sequence[np.ndarray], measured: Sequence[np.ndarray], length: int = SEGMENT) -> Matching:
    """How many segments are right, of how many; see `recognised`."""
    right = recognised(predicted, measured, length)
    return Matching(int(right.sum()), len(right))


def recognised(predicted: Sequence[np.ndarray], measured: Sequence[np.ndarray], length: int = SEGMENT) -> np.ndarray:
    """Whether each segment is right, bool [segments]; see `most_alike`."""
    chosen = most_alike(predicted, measured, length)
    return chosen == np.arange(len(chosen))


def most_alike(predicted: Sequence[np.ndarray], measured: Sequence[np.ndarray], length: int = SEGMENT) -> np.ndarray:
    """Cut the test blocks (float [t, V] each) into segments. For each measured one, the predicted one among all whose
    pattern over time and voxels correlates most with it: int64 [segments]. A segment is right if that is its own."""

    def cut(parts: Sequence[np.ndarray]) -> np.ndarray:
        pieces = [part[at : at + length] for part in parts for at in range(0, len(part) - length + 1, length)]
        flat = np.stack([piece.ravel() for piece in pieces]).astype(np.float32)
        flat -= flat.mean(1, keepdims=True)
        return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)

    return (cut(measured) @ cut(predicted).T).argmax(1)


def matching_p(chosen_SN: np.ndarray, seed: int, permutations: int = 5_000) -> float:
    """The probability of as many right segments if it were unknown which is which: the segments are permuted, in the
    same way for all subjects, whose errors are alike since they saw the same film. `chosen_SN`: `most_alike` of each
    subject."""
    count = chosen_SN.shape[1]
    right = (chosen_SN == np.arange(count)).sum()
    random = np.random.default_rng([seed, 0x5E6])
    orders = np.stack([random.permutation(count) for _ in range(permutations)])
    found = (chosen_SN[None] == orders[:, None]).sum((1, 2))
    return float(((found >= right).sum() + 1) / (permutations + 1))
