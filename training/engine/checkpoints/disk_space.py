"""Disk space: the need of a run is computed before its first step, so that the disk does not fill up hours later."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.engine.checkpoints.index import BEFORE_LAST, BEST, LAST, Index
from training.errors import HostError
from training.units import size

OTHERS = (LAST, BEFORE_LAST, BEST, "the one being written")  # beside the kept epochs
MARGIN = 32 << 20  # bytes, for logs and indices


def still_to_come(content: Mapping[str, Any]) -> int:
    """Bytes by which later checkpoints of a run will be larger than `content`: before its first step, Adam's optimizer
    state does not yet hold its two moments of each parameter."""
    optimizer = content.get("optimizer")
    if not optimizer or optimizer["state"]:
        return 0
    weights = {v.data_ptr(): v for v in content["model"].values() if v.is_floating_point() and v.numel()}
    return sum(2 * v.numel() * v.element_size() for v in weights.values())


def require_space(folder: Path, keep: int, growth: int, exports: int) -> None:
    """Raise HostError if the disk of `folder` cannot hold the largest amount of data that a run needs at a time.

    `folder` holds the first checkpoint of the run. `growth`: bytes by which later ones are larger. `exports`: bytes of
    the exports. Hard links, which would need less, are not assumed.
    """
    each = (folder / LAST).stat().st_size + growth
    count = keep + len(OTHERS)
    constants = sum(about["bytes"] for about in Index.read(folder).constants.values())  # once, whatever refers to them
    need = count * each + constants + exports + MARGIN
    there = min(_used(folder), count * each + constants)
    left = free(folder)
    if need - there > left:
        beside = f"{size(constants)} of constants, " if constants else ""
        raise HostError(
            f"There is not enough room on the disk of {folder}. This run needs up to {size(need)}: {count} "
            f"checkpoints of {size(each)} (training.keep {keep}; {', '.join(OTHERS)}), {beside}{size(exports)} of "
            f"exports and {size(MARGIN)} to spare. {size(there)} of it is used already, {size(left)} is free: "
            f"{size(need - there - left)} too little. Make room, lower training.keep, or choose another disk with "
            "--out DIR."
        )


def _used(folder: Path) -> int:
    """Bytes of the checkpoints in `folder`, hard links counted once."""
    about = [path.stat() for path in folder.glob("*.pt") if path.is_file()]
    return sum({(s.st_dev, s.st_ino): s.st_size for s in about}.values())


def free(folder: Path) -> int:
    """Bytes free for this user on the disk of `folder`, which need not exist yet."""
    at = folder
    while not os.path.exists(at):  # noqa: PTH110 - Path.exists raises where a folder may not be entered
        at = at.parent
    return shutil.disk_usage(at).free
