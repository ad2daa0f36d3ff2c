"""What a verb writes below --out, looked at before its work: an error after it, or in the middle, costs that work."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from training.data.files import printable
from training.errors import HostError
from training.workspace import PARTS, why_no_folder, why_not_writable

#: Verb -> the folders of the workspace that it writes to. `verify` writes where there is a budget, and only then.
WRITTEN = {
    "prepare": ("data", "cache", "runs"),
    "train": ("checkpoints", "runs"),
    "estimate": (".",),
    "each": ("runs",),
    "node": ("runs",),
    "evaluate": ("exports", "runs"),
    "export": ("exports", "runs"),
    "restore": PARTS,
    "report": ("exports",),
}
READ = ("persist", "budget", "watch")  # these take a missing folder for one where nothing was done yet
#: Errors of the environment, which the same command would meet again; the file is named in them.
LASTING = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG,
)  # fmt: skip


def require_out(verb: str, root: Path | None, exports: Path | None = None) -> None:
    """Raises HostError where `verb` cannot write to the workspace `root`, naming the folder and what to do. `exports`:
    another place for these."""
    if root is None:
        return
    found = why_no_folder(root) if verb in READ else None
    for part in WRITTEN.get(verb, ()):
        folder = exports if exports is not None and part == "exports" else root / part
        found = found or why_not_writable(folder)
    if found is not None:
        raise HostError(f"--out {printable(root)}: {found[0]}. {found[1]}")


def environment_error(error: Exception) -> HostError | None:
    """What an error of the system is for a user, where the same command would meet it again; None for others."""
    if not isinstance(error, OSError) or error.errno not in LASTING or not isinstance(error.filename, str | bytes):
        return None
    remedy = {errno.ENOSPC: "Make room on that disk", errno.EDQUOT: "Make room in your quota"}.get(
        error.errno, f"Make it accessible for uid {os.geteuid()}"
    )
    return HostError(f"{printable(error.filename)}: {error.strerror}. {remedy}, or choose another place (--out DIR).")
