"""Small disks for tests: a mounted tmpfs where this host permits it, and a simulation that needs no permission."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from training.engine.checkpoints import disk_space


class Mounted:
    """A tmpfs of `size` bytes that is mounted on `folder`."""

    def __init__(self, folder: Path, size: int):
        self.folder, self.size = folder, size
        self._held: int | None = None
        folder.mkdir()
        self._mount()

    def _mount(self) -> None:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={self.size}", "tmpfs", str(self.folder)],
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"this host does not let a test mount a disk ({done.stderr.strip()})")

    def fill(self, left: int) -> None:
        """Use all but `left` bytes."""
        with (self.folder / "other people's").open("ab") as file:
            file.write(bytes(disk_space.free(self.folder) - left))

    def read_only(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(self.folder)], check=True)

    def detach(self) -> None:
        self._held = os.open(self.folder, os.O_RDONLY)  # while it is open, its device number is not reused
        subprocess.run(["umount", "-l", str(self.folder)], check=True)

    def attach(self) -> None:
        """Attach the disk again, with its content, under another device number."""
        self._mount()
        assert self.folder.stat().st_dev != os.fstat(self._held).st_dev
        shutil.copytree(self.detached, self.folder, dirs_exist_ok=True)

    @property
    def detached(self) -> Path:
        """Where the detached disk can still be reached."""
        return Path(f"/proc/self/fd/{self._held}/.")

    def close(self) -> None:
        if self._held is not None:
            os.close(self._held)
        subprocess.run(["umount", "-l", str(self.folder)], capture_output=True)


class Counted:
    """A folder in which writing checkpoints fails beyond `size` bytes; needs no permission to mount."""

    def __init__(self, folder: Path, size: int, monkeypatch: pytest.MonkeyPatch):
        from training.engine.checkpoints.checkpoint_file import HashedFile

        self.folder, self.size, self.taken = folder, size, 0
        self.locked = False
        folder.mkdir()
        real = HashedFile.write

        def write(hashed, data):
            if self.locked:
                hashed.error = OSError(errno.EROFS, "Read-only file system")
            elif len(data) > self.free(folder):
                hashed.error = OSError(errno.ENOSPC, "No space left on device")
            if hashed.error:
                raise hashed.error
            written = real(hashed, data)
            hashed.file.flush()
            return written

        monkeypatch.setattr(HashedFile, "write", write)
        monkeypatch.setattr(disk_space, "free", self.free)

    def free(self, _folder: Path) -> int:
        about = [path.stat() for path in self.folder.rglob("*") if path.is_file()]
        used = sum({s.st_ino: -(-s.st_size // 4096) * 4096 for s in about}.values())
        return max(0, self.size - self.taken - used)

    def fill(self, left: int) -> None:
        self.taken += self.free(self.folder) - left

    def read_only(self) -> None:
        self.locked = True

    def detach(self) -> None:
        os.rename(self.folder, self.folder.with_name("detached"))  # noqa: PTH104

    def close(self) -> None:
        pass


@pytest.fixture(params=["mounted", "counted"])
def disk(request, tmp_path, monkeypatch):
    """disk(size): a disk of `size` bytes."""
    made = []

    def make(size: int):
        folder = tmp_path / f"disk{len(made)}"
        made.append(Mounted(folder, size) if request.param == "mounted" else Counted(folder, size, monkeypatch))
        return made[-1]

    yield make
    for one in made:
        one.close()
