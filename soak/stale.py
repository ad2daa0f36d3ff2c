"""Row 20: a source file is edited with its size and its times kept, as far as a user can keep them: its arrays must be
computed again, and not come from the cache."""

from __future__ import annotations

import hashlib
import mmap
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from soak.harness import Mutant, Row, Soak, TrialResult, once, patched, several
from training.data import digests, encode, files
from training.data.encode import Encoder, encode_files

SIZE = 512  # bytes of every file
SETTLED = digests.SETTLED + 0.1  # seconds after which a digest is remembered


def content(path: Path) -> dict[str, np.ndarray]:
    """The encoder: its array is the digest of the file's content."""
    return {"digest": np.frombuffer(hashlib.sha256(path.read_bytes()).digest(), np.uint8)}


ENCODER = Encoder("digest", "1", content)


# -- edits: each keeps the file's name, size, mtime and atime, and changes its content -----------------------------

Edit = Callable[[Path, bytes], None]


def _restoring_times(write: Edit) -> Edit:
    def edit(path: Path, new: bytes) -> None:
        before = path.stat()
        write(path, new)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    return edit


def _rewrite(path: Path, new: bytes) -> None:
    path.write_bytes(new)


def _in_place(path: Path, new: bytes) -> None:
    with path.open("r+b") as file:
        file.write(new)


def _one_byte(path: Path, new: bytes) -> None:
    at = new[0] % SIZE
    with path.open("r+b") as file:
        file.seek(at)
        old = file.read(1)
        file.seek(at)
        file.write(bytes([old[0] ^ 1]))


def _mapped(path: Path, new: bytes) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[:] = new


def _other(path: Path, new: bytes) -> Path:
    """A file beside `path` with the new content and its times."""
    other = path.with_name(f"other-{path.name}")
    other.write_bytes(new)
    about = path.stat()
    os.utime(other, ns=(about.st_atime_ns, about.st_mtime_ns))
    return other


def _renamed_over(path: Path, new: bytes) -> None:
    _other(path, new).replace(path)


def _deleted_and_made_again(path: Path, new: bytes) -> None:
    """The new file likely gets the inode that became free."""
    about = path.stat()
    path.unlink()
    path.write_bytes(new)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def _swapped(path: Path, new: bytes) -> None:
    """Two files exchange their names."""
    other = _other(path, new)
    aside = path.with_name(f"aside-{path.name}")
    path.replace(aside)
    other.replace(path)
    aside.replace(other)


def _linked(path: Path, new: bytes) -> None:
    """The name becomes a link to another file."""
    other = _other(path, new)
    path.unlink()
    path.symlink_to(other)


def _through_a_hard_link(path: Path, new: bytes) -> None:
    """Edited under another name."""
    other = path.with_name(f"also-{path.name}")
    other.hardlink_to(path)
    other.write_bytes(new)


def _command(*arguments: str) -> Edit:
    def edit(path: Path, new: bytes) -> None:
        other = _other(path, new)
        names = {"OLD": str(path), "NEW": str(other)}
        subprocess.run([names.get(part, part) for part in arguments], check=True)

    return edit


def _touched(path: Path, new: bytes) -> None:
    """As with a shell: note the time, edit, restore the time with `touch -d`."""
    stamp = subprocess.run(["stat", "-c", "%y", str(path)], capture_output=True, text=True, check=True).stdout.strip()
    path.write_bytes(new)
    subprocess.run(["touch", "-d", stamp, str(path)], check=True)


EDITS: dict[str, Edit] = {
    "rewritten": _restoring_times(_rewrite),
    "overwritten in place": _restoring_times(_in_place),
    "one bit": _restoring_times(_one_byte),
    "through a memory map": _restoring_times(_mapped),
    "through a hard link": _restoring_times(_through_a_hard_link),
    "touch -d": _touched,
    "renamed over": _renamed_over,
    "deleted and made again": _deleted_and_made_again,
    "names exchanged": _swapped,
    "became a link": _linked,
    "cp --preserve=all": _command("cp", "--preserve=all", "NEW", "OLD"),
    "cp -p --remove-destination": _command("cp", "-p", "--remove-destination", "NEW", "OLD"),
    "mv": _command("mv", "-f", "NEW", "OLD"),
}
EDITS["dd conv=notrunc"] = _restoring_times(
    lambda path, new: subprocess.run(["dd", f"of={path}", "conv=notrunc", "status=none"], input=new, check=True)  # type: ignore[arg-type, return-value]
)
if shutil.which("rsync"):
    EDITS["rsync --inplace"] = _command("rsync", "-a", "--inplace", "--ignore-times", "NEW", "OLD")
    EDITS["rsync"] = _command("rsync", "-a", "--ignore-times", "NEW", "OLD")

#: Nanoseconds of FAT's resolution of times: an edit within that time after the digest leaves no trace at all. (ext4
#: keeps nanoseconds, in ticks of 4 ms.)
COARSE = 2_000_000_000


def _fat(path: str | Path) -> files.Signature:
    """The signature that a file would have on a FAT file system (USB sticks, memory cards)."""
    about = Path(path).stat()
    times = (about.st_mtime_ns // COARSE * COARSE, about.st_ctime_ns // COARSE * COARSE)
    return about.st_dev, about.st_ino, about.st_size, *times


def _signature(function: Callable[[str | Path], files.Signature]) -> Callable[[], AbstractContextManager[None]]:
    return several(*(patched(room, "signature", function) for room in (files, digests, encode)))


# -- trials --------------------------------------------------------------------------------------------------------


def _judge(soak: Soak) -> list[TrialResult]:
    """Encode files, edit them, and encode them again: half of them together, after their digests were remembered; the
    others one by one, immediately after they were made."""
    plan = {index: ([*EDITS][index % len(EDITS)], soak.random(index)) for index in soak.indices}
    folder, cache = soak.folder / "files", soak.folder / "cache"
    folder.mkdir()
    paths = {index: folder / f"file{index}" for index in plan}
    for index, (_, numbers) in plan.items():
        paths[index].write_bytes(numbers.randbytes(SIZE))
        old = time.time() - numbers.choice((0, 3600, 10**8))
        os.utime(paths[index], (old, old))
    settled = [index for index in plan if index // len(EDITS) % 2 == 0]
    out = []
    time.sleep(SETTLED)
    _encode(list(paths.values()), cache)
    time.sleep(SETTLED if settled else 0)
    _encode(list(paths.values()), cache)  # the digests are remembered now
    out += _edit({index: plan[index] for index in settled}, paths, cache)
    for index in sorted(set(plan) - set(settled)):  # made, encoded and edited within one tick of a coarse clock
        paths[index].write_bytes(plan[index][1].randbytes(SIZE))
        with _signature(_fat)():
            _encode([paths[index]], cache)
            out += _edit({index: plan[index]}, paths, cache, "on FAT, at once")
    return out


def _edit(
    plan: dict[int, tuple[str, random.Random]], paths: dict[int, Path], cache: Path, when: str = "settled"
) -> list[TrialResult]:  # fmt: skip
    for index, (name, numbers) in plan.items():
        before = paths[index].read_bytes()
        EDITS[name](paths[index], numbers.randbytes(SIZE))
        assert paths[index].read_bytes() != before and paths[index].stat().st_size == SIZE
    found = _encode([paths[index] for index in plan], cache)
    out = []
    for index, (name, _) in plan.items():
        now = content(paths[index])["digest"]
        same = bool((found[paths[index]] == now).all())
        out.append(
            TrialResult(f"{index} ({name}, {when})", same, "" if same else "the arrays of the old content were used")
        )
    return out


def _encode(paths: list[Path], cache: Path) -> dict[Path, np.ndarray]:
    records, refused = encode_files(paths, ENCODER, cache, workers=1, say=lambda text: None)
    assert not refused, refused
    return {path: np.array(record["digest"]) for path, record in records.items()}


def _without_ctime(path: str | Path) -> files.Signature:
    about = Path(path).stat()
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, 0


def _size_and_mtime(path: str | Path) -> files.Signature:
    about = Path(path).stat()
    return 0, 0, about.st_size, about.st_mtime_ns, 0


ROWS = (
    Row(
        20, "source file edited with size and mtime kept", "never a stale cache hit",
        once(_judge, seconds=300), full=320, small=2 * len(EDITS),
        mutants=(
            Mutant("the signature has no ctime", _signature(_without_ctime), trials=len(EDITS)),
            Mutant("size and mtime, as make has it", _signature(_size_and_mtime), trials=len(EDITS)),
            Mutant("digests are remembered at once", patched(digests, "SETTLED", -1e6)),
        ),
        note=lambda: "" if shutil.which("rsync") else "without rsync",
    ),
)  # fmt: skip
