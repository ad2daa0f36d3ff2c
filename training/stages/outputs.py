"""Checks that a command can write to its folders under --out before it starts: an error later would lose its work."""

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
READ = ("persist", "budget", "watch")  # for these, a missing folder means that nothing has been done yet
#: Errors of the environment that the same command would meet again. They contain the file's name.
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
    """The HostError for an OSError that the same command would meet again (LASTING), with a remedy; None for any other
    error."""
    if not isinstance(error, OSError) or error.errno not in LASTING or not isinstance(error.filename, str | bytes):
        return None
    remedy = {errno.ENOSPC: "Make room on that disk", errno.EDQUOT: "Make room in your quota"}.get(
        error.errno, f"Make it accessible for uid {os.geteuid()}"
    )
    return HostError(f"{printable(error.filename)}: {error.strerror}. {remedy}, or choose another place (--out DIR).")
