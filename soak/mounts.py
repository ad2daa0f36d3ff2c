"""Small disks that only one process sees, to be filled up, turned read-only or detached.

They are tmpfs mounts in a mount namespace of the calling process, and end with it. That requires root, or a kernel
that allows user namespaces; otherwise `unable` returns why there are none.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

from soak.processes import forked

_NEW_NAMESPACE, _NEW_USER = 0x00020000, 0x10000000
_READ_ONLY, _REMOUNT, _RECURSIVE, _PRIVATE = 1, 32, 16384, 1 << 18
_DETACH = 2


def enter() -> None:
    """Give this process a separate mount namespace. Call it first in a newly forked process (no threads yet)."""
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        _call("unshare", _NEW_NAMESPACE)
    else:
        _call("unshare", _NEW_USER | _NEW_NAMESPACE)
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1", encoding="ascii")
    _mount(None, "/", None, _RECURSIVE | _PRIVATE)


def disk(folder: Path, size: int) -> None:
    """Mount an empty disk of `size` bytes (in pages of 4 KB) at `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount("tmpfs", str(folder), "tmpfs", 0, f"size={size},mode=755")


def resize(folder: Path, size: int) -> None:
    _mount(None, str(folder), None, _REMOUNT, f"size={size}")


def read_only(folder: Path, yes: bool = True) -> None:
    """Turn the disk at `folder` read-only, as the kernel does after an error. Raises OSError (busy) while a file on it
    is open for writing."""
    _mount(None, str(folder), None, _REMOUNT | (_READ_ONLY if yes else 0))


def bind(source: Path, folder: Path) -> None:
    """Show `source` at `folder` too."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount(str(source), str(folder), None, 4096)


def detach(folder: Path) -> None:
    """Detach the disk at `folder`, even while it is used: from now on the empty folder below it is visible."""
    _call("umount2", os.fsencode(folder), _DETACH)


@cache
def unable() -> str:
    """Why such disks cannot be mounted here; "" if they can."""
    ended = forked(_try, seconds=20)
    return "" if ended.code == 0 else f"private mounts are not possible ({ended.output.strip().splitlines()[-1]})"


def _try() -> None:
    enter()
    disk(Path("/tmp"), 1 << 16)  # visible to this process only


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str = "") -> None:
    texts = [text.encode() if text is not None else None for text in (source, target, kind)]
    _call("mount", *texts, ctypes.c_ulong(flags), options.encode())


def _call(name: str, *arguments: object) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}", str(arguments[0] or arguments[1]))
