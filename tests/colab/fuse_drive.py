"""A drive as a FUSE file system: `fuse_drive.py BACKING MOUNTPOINT CONTROL`. Shows the folder BACKING, with the faults
that the file CONTROL/fault names: `errno N`, every call fails with N; `full`, writing fails; `hang`, no call returns
while it is there."""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path

from fuse import FUSE, FuseOSError, Operations


class Drive(Operations):
    """The folder `backing`."""

    def __init__(self, backing: str, control: Path):
        self.backing, self.fault = backing, control / "fault"

    def __call__(self, operation, *arguments):
        kind, _, value = self._fault().partition(" ")
        while kind == "hang":
            time.sleep(0.05)
            kind, _, value = self._fault().partition(" ")
        if kind == "errno":
            raise FuseOSError(int(value))
        if kind == "full" and operation in ("write", "create", "mkdir", "truncate"):
            raise FuseOSError(errno.ENOSPC)
        try:
            return super().__call__(operation, *arguments)
        except OSError as error:
            raise FuseOSError(error.errno) from error

    def _fault(self) -> str:
        try:
            return self.fault.read_text().strip()
        except FileNotFoundError:
            return ""

    def _at(self, path: str) -> str:
        return self.backing + path

    def getattr(self, path, handle=None):
        about = os.lstat(self._at(path))
        names = ("st_atime", "st_ctime", "st_gid", "st_mode", "st_mtime", "st_nlink", "st_size", "st_uid")
        return {name: getattr(about, name) for name in names}

    def readdir(self, path, handle):
        return [".", "..", *os.listdir(self._at(path))]

    def statfs(self, path):
        about = os.statvfs(self._at(path))
        names = ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_favail", "f_ffree", "f_files", "f_flag", "f_frsize")
        return {name: getattr(about, name) for name in (*names, "f_namemax")}

    def access(self, path, mode):
        if not os.access(self._at(path), mode):
            raise FuseOSError(errno.EACCES)

    def chmod(self, path, mode):
        os.chmod(self._at(path), mode)

    def mkdir(self, path, mode):
        os.mkdir(self._at(path), mode)

    def rmdir(self, path):
        os.rmdir(self._at(path))

    def unlink(self, path):
        os.unlink(self._at(path))

    def rename(self, old, new):
        os.rename(self._at(old), self._at(new))

    def utimens(self, path, times=None):
        os.utime(self._at(path), times)

    def open(self, path, flags):
        return os.open(self._at(path), flags)

    def create(self, path, mode, info=None):
        return os.open(self._at(path), os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)

    def read(self, path, size, offset, handle):
        return os.pread(handle, size, offset)

    def write(self, path, data, offset, handle):
        return os.pwrite(handle, data, offset)

    def truncate(self, path, length, handle=None):
        os.truncate(self._at(path), length)

    def flush(self, path, handle):
        return None

    def release(self, path, handle):
        os.close(handle)

    def fsync(self, path, datasync, handle):
        return None


if __name__ == "__main__":
    backing, mountpoint, control = sys.argv[1:]
    # hard_remove: the release of a closed file arrives late, and libfuse would keep a file that is deleted before it,
    # as .fuse_hidden....
    options = {"foreground": True, "nothreads": False, "fsname": "standin", "ro": False, "hard_remove": True}
    FUSE(Drive(backing, Path(control)), mountpoint, **options)
