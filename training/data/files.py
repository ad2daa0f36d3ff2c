"""Untrusted folders and files: scanning, reasons for refusal, digests; and atomic writes."""

from __future__ import annotations

import errno
import filecmp
import hashlib
import os
import stat
import unicodedata
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from training.errors import HostError

#: Larger files are refused unread (a WAV cannot be larger): reading a sparse file of terabytes would take hours.
LARGEST = 1 << 32


@dataclass(slots=True, eq=False)
class Found:
    """A regular file under a scanned root. There may be millions, so only what cannot be derived is stored."""

    root: str  # absolute; shared by all
    relative: str  # under the root, "/" between folders, Unicode NFC: the same on every host
    number: int = 0  # its index in the list that the scan returned
    spelt: str = ""  # `relative` as spelt on the disk, where that is another Unicode form
    content: bytes = b""  # SHA-256, once it is known

    @property
    def place(self) -> str:
        """The absolute path."""
        return f"{self.root}/{self.spelt or self.relative}"

    @property
    def path(self) -> Path:
        return Path(self.place)

    @property
    def key(self) -> str:
        """`relative` without its extension: the name of a row."""
        relative, dot = self.relative, self.relative.rfind(".")
        return relative[:dot] if relative.rfind("/") + 1 < dot < len(relative) - 1 else relative

    @property
    def stem(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return suffix_of(self.relative.rpartition("/")[2])


def suffix_of(name: str) -> str:
    """The same as `Path.suffix`: ".wav" for "a.wav", empty for ".wav"."""
    dot = name.rfind(".")
    return name[dot:] if 0 < dot < len(name) - 1 else ""


@dataclass(frozen=True)
class Refused:
    """A file or folder that cannot be used, and the reason."""

    path: str  # printable
    reason: str
    folder: str | None = None  # its path under the root, if it is a folder: no file below it is found
    files: int = 1  # how many files are lost with it, as far as can be known


def printable(path: str | os.PathLike[str]) -> str:
    """A path that is safe to print: control characters and bytes that are not UTF-8 are escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def scan(
    root: Path, suffixes: Iterable[str], unread: Mapping[str, str] = MappingProxyType({})
) -> tuple[list[Found], list[Refused]]:
    """Regular files under `root` whose extension, in any case, is in `suffixes` (".wav"); sorted by relative name.

    Links to files and folders are followed. Each folder is entered once, so a cycle of links ends; one that is under
    the root is entered by its real path, before any link to it. No file is opened, so a FIFO, socket or device cannot
    block the scan. A file that has the right extension but cannot be used is returned as refused, and so is a folder
    that cannot be entered. Raises OSError if `root` itself cannot be.

    `unread`: (lower-case) extensions of files that a user may expect to be read, and the reason why they are not; such
    files are returned as refused, and count as no file (`files` is 0).
    """
    wanted = {suffix.lower() for suffix in suffixes}
    top = os.path.abspath(root).rstrip("/")  # noqa: PTH100 - resolve() would rename a linked root
    found: list[tuple[str, str]] = []  # (relative in NFC, as spelt on the disk)
    refused: list[Refused] = []
    os.scandir(top or "/").close()
    os.stat(f"{top}/.")  # noqa: PTH116 - fails where the entries can be listed, but not reached
    seen: set[tuple[int, int]] = set()
    links: deque[str] = deque()
    folders = [""]  # relative to the root
    while folders or links:
        folder = folders.pop() if folders else links.popleft()
        place = f"{top}/{folder}"
        try:
            about = os.stat(place)  # noqa: PTH116
            if (about.st_dev, about.st_ino) in seen:
                continue
            seen.add((about.st_dev, about.st_ino))
            with os.scandir(place) as listing:
                entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            refused.append(_lost_folder(top, folder, error, wanted))
            continue
        for entry in entries:
            suffix = suffix_of(entry.name).lower()
            is_media = suffix in wanted
            if entry.name.startswith("."):
                if is_media:
                    refused.append(Refused(printable(entry.path), "a hidden file"))
                continue
            relative = f"{folder}/{entry.name}" if folder else entry.name
            try:
                about = entry.stat()
            except OSError as error:
                if _may_be_folder(entry):
                    refused.append(_lost_folder(top, relative, error, wanted))
                elif entry.is_symlink() and not suffix_of(entry.name):  # perhaps to a folder, perhaps to no media
                    why = f"the link cannot be followed: {error.strerror}"
                    refused.append(Refused(printable(entry.path), why, relative, 0))
                elif is_media:
                    refused.append(Refused(printable(entry.path), f"cannot be reached: {error.strerror}"))
                continue
            if stat.S_ISDIR(about.st_mode):
                (links if entry.is_symlink() else folders).append(relative)
            elif is_media:
                reason = _why_not(entry.path, about)
                if reason:
                    refused.append(Refused(printable(entry.path), reason))
                else:
                    name = relative if relative.isascii() else unicodedata.normalize("NFC", relative)
                    found.append((name, "" if name == relative else relative))
            elif suffix in unread:
                refused.append(Refused(printable(entry.path), unread[suffix], files=0))
    found.sort(key=lambda names: names[0])  # a stable sort: of two spellings of a name, the one found first is kept
    kept: list[Found] = []
    for name, spelt in found:
        if kept and kept[-1].relative == name:
            why = f"its name differs from {printable(kept[-1].place)} only in Unicode form"
            refused.append(Refused(printable(f"{top}/{spelt or name}"), why))
        else:
            kept.append(Found(top, name, len(kept), spelt))
    return kept, sorted(refused, key=lambda item: item.path)


#: Folders that belong to the file system, and that only root may enter.
_SYSTEM_FOLDERS = ("lost+found", "System Volume Information", "$RECYCLE.BIN")


_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def _may_be_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry that stat() cannot reach is a folder. Most file systems have its kind in their listings."""
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:  # a file system without kinds in its listings
        return not suffix_of(entry.name)


def _lost_folder(top: str, folder: str, error: OSError, wanted: Collection[str]) -> Refused:
    place, reason = printable(f"{top}/{folder}"), f"the folder cannot be read: {error.strerror}"
    if folder.rpartition("/")[2] in _SYSTEM_FOLDERS:
        return Refused(place, reason, files=0)
    if error.errno != errno.ENAMETOOLONG:
        return Refused(place, reason, folder)
    count = _files_below(top, folder, wanted)
    return Refused(place, f"{reason} ({count} file{'s' * (count != 1)} below it)", folder, count)


def _files_below(top: str, folder: str, wanted: Collection[str]) -> int:
    """How many files with an extension in `wanted` are below a folder whose path is longer than the system permits. It
    is opened in steps, each relative to the one before."""
    count, pending, seen = 0, [folder], set()
    while pending:
        relative = pending.pop()
        handle = -1
        try:
            handle = _open_in_steps(top, relative)
            about = os.fstat(handle)
            if (about.st_dev, about.st_ino) in seen:
                continue
            seen.add((about.st_dev, about.st_ino))
            with os.scandir(handle) as listing:
                for entry in listing:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(f"{relative}/{entry.name}")
                    elif suffix_of(entry.name).lower() in wanted and not entry.name.startswith("."):
                        count += 1
        except OSError:
            continue  # it cannot be entered, and the count is that of the others
        finally:
            if handle >= 0:
                os.close(handle)
    return count


def _open_in_steps(top: str, folder: str, step: int = 8) -> int:
    """A handle of the folder, which is opened `step` names at a time."""
    names = folder.split("/")
    handle = os.open(top or "/", _FOLDER)
    for at in range(0, len(names), step):
        outer = handle
        try:
            handle = os.open("/".join(names[at : at + step]), _FOLDER, dir_fd=outer)
        finally:
            os.close(outer)
    return handle


def _why_not(path: str, about: os.stat_result) -> str | None:
    if not stat.S_ISREG(about.st_mode):
        return f"is a {_kind(about.st_mode)}, not a file"
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not valid UTF-8; rename it"
    if about.st_size == 0:
        return "is empty"
    if about.st_size > LARGEST:
        return too_large(about.st_size)
    return None if os.access(path, os.R_OK) else "cannot be read: permission denied"


def too_large(size: int) -> str:
    return f"is {size / 1e9:,.1f} GB large; at most {LARGEST / 1e9:.1f} GB are read"


def _kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
    return kinds.get(stat.S_IFMT(mode), "folder" if stat.S_ISDIR(mode) else "special file")


def regular_file(path: Path) -> str | None:
    """None if `path` is a regular file (links are followed), else the reason why not. Opens no file."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        return "no such file" if isinstance(error, FileNotFoundError) else str(getattr(error, "strerror", error))
    return None if stat.S_ISREG(mode) else f"is a {_kind(mode)}, not a file"


# -- digests -------------------------------------------------------------------------------------------------------

Signature = tuple[int, int, int, int, int]


def signature(path: str | Path) -> Signature:
    """Device, inode, size, mtime and ctime. An edit that keeps size and mtime still changes the ctime."""
    about = os.stat(path)  # noqa: PTH116 - a million times a run; making a Path would cost more than the stat itself
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns


def sha256(path: str | Path) -> str:
    """SHA-256 of a regular file's content, in hex. Never blocks on a FIFO."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        total = hashlib.sha256()
        while data := os.read(handle, min(about.st_size + 1, 1 << 20)):
            total.update(data)
        return total.hexdigest()
    finally:
        os.close(handle)


# -- writing -------------------------------------------------------------------------------------------------------


@contextmanager
def disk_errors(path: Path):
    """Convert an OSError (a full or read-only disk, say) into a HostError that names the path."""
    try:
        yield
    except OSError as error:
        raise HostError(f"Cannot write {printable(path)}: {error.strerror or error}.") from error


def is_full(error: BaseException | None) -> bool:
    """Whether this is the error of a full disk, or of a used-up quota."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def write_atomic(path: Path, data: bytes | Callable[[Path], None]) -> bool:
    """Write `data` (bytes, or a function that writes to a given path) to `path`, atomically and durably. Returns False
    where the file already had this content and was left alone. Raises HostError.

    The content is written under a temporary name in the same folder, so that the rename stays within one file system.
    The order matters: the file is fsynced before the rename, or a power cut could leave the final name with missing
    content; the folder is fsynced after it, or a power cut could lose the rename itself.
    """
    with disk_errors(path):
        if isinstance(data, bytes) and regular_file(path) is None and path.read_bytes() == data:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".writing-{os.getpid()}-{os.urandom(4).hex()}"
        try:
            if isinstance(data, bytes):
                temporary.write_bytes(data)
            else:
                data(temporary)
                if regular_file(path) is None and filecmp.cmp(temporary, path, shallow=False):
                    return False
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    return True


def append_line(path: Path, text: str) -> None:
    """Append a line to a file that other processes may append to as well, and fsync it. A crash or a full disk may have
    left an incomplete last line: a newline ends that first, so that the two do not merge. Raises OSError."""
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        size = os.fstat(handle).st_size
        incomplete = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
        rest = (b"\n" if incomplete else b"") + text.encode() + b"\n"
        while rest:  # one call, but for a disk that fills up: then a part is written, and the next call raises
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    finally:
        os.close(handle)
    sync(path.parent)


def sync(path: Path) -> None:
    """Fsync a file, or a folder (which makes creations and renames of its entries durable)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Network file systems that cannot fsync a folder fail with one of these. The server itself is then responsible
        # for keeping the folder's entries.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS) or not stat.S_ISDIR(os.fstat(handle).st_mode):
            raise
    finally:
        os.close(handle)
