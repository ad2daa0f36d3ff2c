"""The sampler: which samples belong to which step, rank and micro-batch, computed from the step number alone.

Each global batch is divided into numbered micro-batches; micro-batch `n` belongs to rank `n % world`. So one process
with gradient accumulation over 2 and two ranks without accumulation use the same micro-batches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np


def mixed(*numbers: int) -> int:
    """A 63-bit seed from integers: SplitMix64 (Steele et al. 2014) folded over them."""
    state = 0
    for number in numbers:
        state = (state ^ number) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


@dataclass(frozen=True)
class MicroBatch:
    """The samples of one forward and backward pass on one rank."""

    number: int  # within its global batch, over all ranks
    epoch: int  # 0 for the first
    indices: tuple[int, ...]
    padding: bool = False  # it is computed, and counts for nothing: see BatchPlan.even


@dataclass(frozen=True, eq=False)
class Shards:
    """Where samples are, if not all of them are on this host: an epoch reads the shards in a random order, and the
    samples of AT_ONCE shards in any order among them. So each shard is needed for a part of the epoch only."""

    of_sample: np.ndarray  # int [samples]: the number of its shard


AT_ONCE = 8  # shards


@dataclass(frozen=True)
class BatchPlan:
    """Maps a step to its samples. A pure function: the complete state of the sampler is the number of steps done."""

    samples: int  # in an epoch
    batch_size: int  # samples of a micro-batch, as configured
    accumulate: int  # micro-batches a rank and step
    world: int
    seed: int
    halvings: int = 0  # of the micro-batches, because memory ran out; global batches and their order stay as they are
    #: Whether all ranks get equally many micro-batches a step, as sharded training requires: where the samples are too
    #: few, a rank gets the first micro-batch of the step, as padding.
    even: bool = False
    shards: Shards | None = None  # None: the samples of an epoch are in any order

    @property
    def global_batch(self) -> int:
        """Samples of one optimizer step, all ranks together."""
        return self.batch_size * self.accumulate * self.world

    @property
    def micro_batch_size(self) -> int:
        """Samples of a micro-batch."""
        return max(1, math.ceil(self.batch_size / 2**self.halvings))

    def halved(self) -> BatchPlan:
        """The same global batches in micro-batches of half the size, twice as many a step."""
        return replace(self, halvings=self.halvings + 1)

    @property
    def steps_per_epoch(self) -> int:
        """Global batches of an epoch, the last one smaller where the samples do not divide evenly."""
        return math.ceil(self.samples / self.global_batch)

    def step_samples(self, step: int) -> np.ndarray:
        """int64 [n]: the samples of the global batch of step `step` (0 is the first), in order."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = _order(self.seed, epoch, self.samples, self.shards)
        return order[position * self.global_batch : (position + 1) * self.global_batch]

    def micro_batches(self, step: int, rank: int) -> list[MicroBatch]:
        """The micro-batches of `rank` in step `step`; none where the last global batch of an epoch has too few."""
        samples = self.step_samples(step)
        size = self.micro_batch_size
        count = math.ceil(len(samples) / size)
        epoch = step // self.steps_per_epoch

        def numbered(n: int) -> MicroBatch:
            return MicroBatch(n, epoch, tuple(samples[n * size : (n + 1) * size].tolist()))

        own = [numbered(n) for n in range(rank, count, self.world)]
        if self.even and len(own) < math.ceil(count / self.world):
            own.append(replace(numbered(0), padding=True))
        return own


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, samples: int, shards: Shards | None) -> np.ndarray:
    random = np.random.default_rng([seed, epoch])
    if shards is None:
        return random.permutation(samples)
    numbers = random.permutation(np.unique(shards.of_sample))
    by_shard = np.argsort(shards.of_sample, kind="stable")
    begins = np.searchsorted(shards.of_sample[by_shard], numbers)
    ends = np.searchsorted(shards.of_sample[by_shard], numbers, side="right")
    parts = [by_shard[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]
    together = [np.concatenate(parts[at : at + AT_ONCE]) for at in range(0, len(parts), AT_ONCE)]
    return np.concatenate([random.permutation(part) for part in together])
