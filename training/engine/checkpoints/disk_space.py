"""Room on the disk: what a run needs is computed before its first step, so that none fills up hours later."""

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
    """Bytes by which later checkpoints of a run will be larger than `content`: before its first step an optimizer of
    the Adam kind has none of its two moments a parameter yet."""
    optimizer = content.get("optimizer")
    if not optimizer or optimizer["state"]:
        return 0
    weights = {v.data_ptr(): v for v in content["model"].values() if v.is_floating_point() and v.numel()}
    return sum(2 * v.numel() * v.element_size() for v in weights.values())


def require_space(folder: Path, keep: int, growth: int, exports: int) -> None:
    """Raise HostError if the disk of `folder` cannot hold what a run needs at its fullest.

    `folder` holds a checkpoint of the run as it begins; `growth`: bytes by which later ones are larger; `exports`:
    bytes that will be written beside them. Content that shares its place by hard links would need less; it is not
    relied on.
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
            f"There is not enough room on the disk of {folder}. At its fullest this run needs {size(need)}: {count} "
            f"checkpoints of {size(each)} (training.keep {keep}; {', '.join(OTHERS)}), {beside}{size(exports)} of "
            f"exports and {size(MARGIN)} to spare. {size(there)} of it is there, {size(left)} is free: "
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
