"""Room on the disk: measured ahead for the whole run, so that it does not fill up in the night."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.engine.checkpoints import checkpoint_folder as checkpoint
from training.errors import HostError

FULL = (errno.ENOSPC, errno.EDQUOT)
OTHERS = ("last.pt", "before_last.pt", "best.pt", "the one being written")  # beside the kept epochs
MARGIN = 32 << 20  # bytes, for logs and indices


def is_full(error: BaseException | None) -> bool:
    """Whether this is the error of a full disk, or of a used-up quota."""
    return isinstance(error, OSError) and error.errno in FULL


def still_to_come(content: Mapping[str, Any]) -> int:
    """Bytes by which later checkpoints of a run will be larger than `content`: before its first step an optimizer of
    the Adam kind has none of its two moments a parameter yet."""
    optimizer = content.get("optimizer")
    if not optimizer or optimizer["state"]:
        return 0
    weights = {v.data_ptr(): v for v in content["model"].values() if v.is_floating_point() and v.numel()}
    return sum(2 * v.numel() * v.element_size() for v in weights.values())


def require_room(folder: Path, keep: int, growth: int, exports: int) -> None:
    """Raise HostError if the disk of `folder` cannot hold what a run needs at its fullest.

    `folder` holds a checkpoint of the run as it begins; `growth`: bytes by which later ones are larger; `exports`:
    bytes that will be written beside them. Content that shares its place by hard links would need less; it is not
    relied on.
    """
    size = (folder / checkpoint.LAST).stat().st_size + growth
    count = keep + len(OTHERS)
    need = count * size + exports + MARGIN
    there = min(_used(folder), count * size)
    free = checkpoint.free(folder)
    if need - there > free:
        raise HostError(
            f"There is not enough room on the disk of {folder}. At its fullest this run needs {told(need)}: {count} "
            f"checkpoints of {told(size)} (training.keep {keep}; {', '.join(OTHERS)}), {told(exports)} of exports "
            f"and {told(MARGIN)} to spare. {told(there)} of it is there, {told(free)} is free: "
            f"{told(need - there - free)} too little. Make room, lower training.keep, or choose another disk with "
            "--out DIR."
        )


def _used(folder: Path) -> int:
    """Bytes of the checkpoints in `folder`, hard links counted once."""
    about = [path.stat() for path in folder.glob("*.pt") if path.is_file()]
    return sum({(s.st_dev, s.st_ino): s.st_size for s in about}.values())


def told(size: int) -> str:
    """Bytes, as people read them."""
    unit, scale = ("GB", 1e9) if size >= 1e9 else ("MB", 1e6) if size >= 1e6 else ("KB", 1e3)
    return f"{size / scale:,.3g} {unit}"
