"""Several processes. The engine forms the group of processes for as long as a training lasts; these functions give it
what torchrun gives in its environment."""

from __future__ import annotations

import os

from training.errors import UsageError

_SET: list[str] = []  # variables that setup_distributed has set


def setup_distributed(
    rank: int, world_size: int, master_addr: str = "localhost", master_port: str | int = "12355"
) -> None:
    """Name this process's rank and the number of processes; what torchrun has set already holds.

    Under torchrun the global rank is that of its environment, whatever local rank is passed: with two hosts, local
    ranks would name two processes alike. Raises UsageError if torchrun started another number of processes.
    """
    started = os.environ.get("WORLD_SIZE")
    if started is not None and int(started) != world_size:
        raise UsageError(f"world_size={world_size}, but {started} processes were started: pass WORLD_SIZE.")
    values = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_ADDR": master_addr,
              "MASTER_PORT": master_port}  # fmt: skip
    for name, value in values.items():
        if name not in os.environ:
            os.environ[name] = str(value)
            _SET.append(name)


def cleanup_distributed() -> None:
    """Undo `setup_distributed`. The engine has closed its group of processes when a training has ended."""
    while _SET:
        os.environ.pop(_SET.pop(), None)


def require_world(distributed: bool, world_size: int) -> None:
    """Raise UsageError if the arguments of a Trainer do not fit the processes that were started."""
    started = int(os.environ.get("WORLD_SIZE", 1))
    if not distributed and started > 1:
        raise UsageError(f"{started} processes were started: pass distributed=True and world_size={started}.")
    if distributed and world_size != started:
        raise UsageError(
            f"distributed=True with world_size={world_size}, and {started} were started: start them with "
            f"torchrun --nproc_per_node={max(world_size, 2)}, or call setup_distributed in each."
        )
