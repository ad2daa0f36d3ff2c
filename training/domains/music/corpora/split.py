"""Which songs are held out: by hash of name and seed, in complete groups, so that no song is on both sides."""

from __future__ import annotations

import hashlib
from array import array
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that must stay on one side: formats, copies, and everything that shares a recording or a score."""

    key: str  # its smallest relative id, the same on every host
    stratum: Hashable  # sides are filled stratum by stratum, so that both see every kind of song
    paired: bool  # holds a recording with its score
    scored: bool = True  # holds a score that is a row without a recording too; each score is, but for contradicted ones


def connected(bonds: Iterable[Iterable[Hashable]]) -> Sequence[int]:
    """For every row, the smallest row that it is connected to, directly or through others, by a shared bond."""
    parent = array("q")

    def top(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    first: dict[Hashable, int] = {}
    for row, shared in enumerate(bonds):
        parent.append(row)
        for bond in shared:
            a, b = top(first.setdefault(bond, row)), top(row)
            parent[max(a, b)] = min(a, b)
    return array("q", map(top, range(len(parent))))


def held_out(groups: Sequence[Group], share: float, seed: int) -> set[str]:
    """Keys of the groups to hold out: about `share` of them; if there are two or more, one or more but not all.

    The paired groups, if any, satisfy this bound separately, so that no manifest has an empty side. Within a stratum,
    those with the smallest hash of (seed, key) are taken, so that adding or removing a song changes the side of few
    others: those at the border of a quota.
    """
    both = [group for group in groups if group.paired and group.scored]
    sound = [group for group in groups if group.paired and not group.scored]
    alone = [group for group in groups if not group.paired]
    if len(both) > 1:  # these are rows of every manifest: with one on either side, no manifest has an empty side
        of_sound, least = round(share * len(sound)), 0
    else:
        of_sound = _bounded(share, len(sound))
        least = 0 if both and not sound else min(1, len(alone) - 1)
    out = _draw(both, _bounded(share, len(both)), seed) | _draw(sound, of_sound, seed)
    return out | _draw(alone, max(least, min(round(share * len(alone)), len(alone) - 1)), seed)


def _bounded(share: float, count: int) -> int:
    return max(1, min(round(share * count), count - 1)) if count > 1 else 0


def _draw(groups: Sequence[Group], count: int, seed: int) -> set[str]:
    """`count` groups, distributed over the strata by the largest-remainder method."""
    if count <= 0:
        return set()
    strata: Mapping[Hashable, list[str]] = defaultdict(list)
    for group in groups:
        strata[group.stratum].append(group.key)
    exact = {stratum: len(keys) * count / len(groups) for stratum, keys in strata.items()}
    quota = {stratum: int(value) for stratum, value in exact.items()}
    order = sorted(strata, key=lambda s: (quota[s] - exact[s], _rank(seed, f"stratum {s}")))
    for stratum in order[: count - sum(quota.values())]:
        quota[stratum] += 1
    return {
        key for stratum, keys in strata.items() for key in sorted(keys, key=lambda k: _rank(seed, k))[: quota[stratum]]
    }


def _rank(seed: int, key: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{key}".encode()).digest()
