"""What playing costs: the real-time factor of teacher, student, and the same network oversampled, on one thread."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from training.domains.amp.networks.network import Network, one_thread

BLOCKS = (64, 128, 512)  # samples
OVERSAMPLING = (2, 4)
_SECONDS, _ROUNDS = 0.25, 5  # of sound in each round; the fastest round counts


def costs(teacher: Network, student: Network) -> list[dict[str, Any]]:
    """For every block length: real-time factors (seconds of processor time per second of sound, below 1: faster than
    real time) by torch on one thread of this host, measured in turns. `T_2` and `T_4` are the teacher at 2 and 4 times
    the rate, without the filters that oversampling needs too."""
    with one_thread():
        return [_of_block(teacher, student, block) for block in BLOCKS]


def _of_block(teacher: Network, student: Network, block: int) -> dict[str, Any]:
    runs = {"teacher": (teacher, 1), "student": (student, 1)} | {f"T_{m}": (teacher, m) for m in OVERSAMPLING}
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(_ROUNDS):
        for name, (network, factor) in runs.items():
            best[name] = min(best[name], _timed(network, block, factor))
    return {"block": block, **{name: round(value, 5) for name, value in best.items()}}


@torch.no_grad()
def _timed(network: Network, block: int, factor: int) -> float:
    x = 0.1 * torch.randn(1, block * factor, generator=torch.Generator().manual_seed(0))
    count = max(1, int(_SECONDS * network.sample_rate / block))
    state = network.start(1)
    began = time.thread_time()  # of this thread alone: what else runs on the host does not count
    for _ in range(count):
        _, state = network(x, state)
    return (time.thread_time() - began) / (count * block / network.sample_rate)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as text."""
    names = ["teacher", "student", *(f"T_{m}" for m in OVERSAMPLING)]
    lines = ["block  " + "".join(f"{name:>10}" for name in names)]
    lines += [f"{row['block']:>5}  " + "".join(f"{row[name]:>10.4f}" for name in names) for row in rows]
    return "\n".join(lines)
