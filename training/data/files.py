"""Files on a disk that nobody here controls: scanning folders, naming what was refused, digests, atomic writes."""

from __future__ import annotations

import errno
import filecmp
import hashlib
import os
import stat
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from training.errors import HostError

#: No usable file is larger (a WAV cannot be); a sparse file that claims terabytes is not read for hours.
LARGEST = 1 << 32


@dataclass(slots=True, eq=False)
class Found:
    """A regular file under a scanned root. There may be millions: what can be worked out is not kept."""

    root: str  # absolute; shared by all
    relative: str  # under the root, "/" between folders, Unicode NFC: the same on every host
    number: int = 0  # its place in the list that it was found in
    spelt: str = ""  # `relative` as the disk has it, where that is another Unicode form
    content: bytes = b""  # SHA-256, once it is known

    @property
    def place(self) -> str:
        """Where it is: absolute."""
        return f"{self.root}/{self.spelt or self.relative}"

    @property
    def path(self) -> Path:
        return Path(self.place)

    @property
    def key(self) -> str:
        """`relative` without its extension: what a row is called."""
        relative, dot = self.relative, self.relative.rfind(".")
        return relative[:dot] if relative.rfind("/") + 1 < dot < len(relative) - 1 else relative

    @property
    def stem(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return suffix_of(self.relative.rpartition("/")[2])


def suffix_of(name: str) -> str:
    """As `Path.suffix`: ".wav" of "a.wav", nothing of ".wav"."""
    dot = name.rfind(".")
    return name[dot:] if 0 < dot < len(name) - 1 else ""


@dataclass(frozen=True)
class Refused:
    """Something that cannot be used, and why."""

    path: str  # printable
    reason: str


def printable(path: str | os.PathLike[str]) -> str:
    """A path as it may safely be shown: control characters and bytes that are no UTF-8 are escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def scan(root: Path, suffixes: Iterable[str]) -> tuple[list[Found], list[Refused]]:
    """Regular files under `root` whose extension, in any case, is in `suffixes` (".wav"); sorted by relative name.

    Links to files and folders are followed; a folder is entered once, by its real place if it lies under the root, so a
    circle of links ends. Nothing is opened: a FIFO, socket or device cannot hang the scan. What has the right
    extension and cannot be used is returned as refused. Raises OSError if `root` itself cannot be listed.
    """
    wanted = {suffix.lower() for suffix in suffixes}
    top = os.path.abspath(root).rstrip("/")  # noqa: PTH100 - resolve() would rename a linked root
    found: list[tuple[str, str]] = []  # (relative in NFC, as spelt on the disk)
    refused: list[Refused] = []
    os.scandir(top or "/").close()
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
            refused.append(Refused(printable(place), f"the folder cannot be read: {error.strerror}"))
            continue
        for entry in entries:
            is_media = suffix_of(entry.name).lower() in wanted
            if entry.name.startswith("."):
                if is_media:
                    refused.append(Refused(printable(entry.path), "a hidden file"))
                continue
            try:
                about = entry.stat()
            except OSError as error:
                if is_media:
                    refused.append(Refused(printable(entry.path), f"cannot be reached: {error.strerror}"))
                continue
            relative = f"{folder}/{entry.name}" if folder else entry.name
            if stat.S_ISDIR(about.st_mode):
                (links if entry.is_symlink() else folders).append(relative)
            elif is_media:
                reason = _why_not(entry.path, about)
                if reason:
                    refused.append(Refused(printable(entry.path), reason))
                else:
                    name = relative if relative.isascii() else unicodedata.normalize("NFC", relative)
                    found.append((name, "" if name == relative else relative))
    found.sort(key=lambda names: names[0])  # stable: of two spellings of a name, the first one found stays first
    kept: list[Found] = []
    for name, spelt in found:
        if kept and kept[-1].relative == name:
            why = f"its name differs from {printable(kept[-1].place)} only in Unicode form"
            refused.append(Refused(printable(f"{top}/{spelt or name}"), why))
        else:
            kept.append(Found(top, name, len(kept), spelt))
    return kept, sorted(refused, key=lambda item: item.path)


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
    """None if `path` is a regular file (links followed), else why not. Opens nothing."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        return "no such file" if isinstance(error, FileNotFoundError) else str(getattr(error, "strerror", error))
    return None if stat.S_ISREG(mode) else f"is a {_kind(mode)}, not a file"


# -- digests -------------------------------------------------------------------------------------------------------

Signature = tuple[int, int, int, int, int]


def signature(path: str | Path) -> Signature:
    """Device, inode, size, mtime and ctime: an edit that keeps size and mtime still moves the ctime."""
    about = os.stat(path)  # noqa: PTH116 - a million times a run; a Path would cost more than the question
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
    """Turn a full or read-only disk into a HostError that names the path."""
    try:
        yield
    except OSError as error:
        raise HostError(f"Cannot write {printable(path)}: {error.strerror or error}.") from error


def is_full(error: BaseException | None) -> bool:
    """Whether this is the error of a full disk, or of a used-up quota."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def write_atomic(path: Path, data: bytes | Callable[[Path], None]) -> bool:
    """Put `data` (bytes, or a function that writes a given path) at `path`, whole or not at all, and durably.

    Bytes equal to what is there are not written again; returns whether anything was. Raises HostError.
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


def sync(path: Path) -> None:
    """Force a file's content, or a folder's list of names, onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Network drives that cannot sync a folder say so by these; its names are theirs to keep.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS) or not stat.S_ISDIR(os.fstat(handle).st_mode):
            raise
    finally:
        os.close(handle)
