"""Google Drive: mounted, probed, mounted again when it is lost, and compared with this disk at the end.

Only the replicas of `--persist` are written to it; runs, data and caches lie on the session's own disk, since a drive
that detaches would otherwise end the training.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

from training.colab.settings import ColabSettings
from training.colab.surroundings import ColabError, colab_module, detect_colab

PROBE = ".athanor-probe"
PROBE_SECONDS = 60.0  # after which a drive that does not answer counts as hanging


class DriveProblem(OSError):
    """The drive is not mounted, or does not do what it should."""


@dataclass(frozen=True)
class Mounted:
    """A drive that was written to and read back. `folder`: for `--persist`."""

    folder: Path
    free_gb: float


def mount_google_drive(settings: ColabSettings | None = None, *, mount_path: str = "", folder: str = "") -> Mounted:
    """Mount the drive if it is not mounted, make the folder, and write and read a file there.

    Raises ColabError: no Drive here (Colab Enterprise), mounting was refused, files in the way, or the probe failed.
    """
    settings = settings or ColabSettings()
    at = Path(mount_path or settings.drive.mount_path)
    target = at / (folder or settings.drive.folder)
    if detect_colab() == "enterprise":
        raise ColabError(
            "Colab Enterprise has no Google Drive: use persist='gs://BUCKET/PREFIX' (docs/object-stores.md)."
        )
    drive = colab_module("drive")
    try:
        if not is_mounted(at):
            _require_free(at)
            drive.mount(str(at))
        try:
            return _entered(at, target)
        except OSError:
            remount(at)
            return _entered(at, target)
    except OSError as error:
        raise ColabError(
            f"The drive at {at} cannot be used: {error.strerror or error} ({error.errno}). Run the cell again; or "
            "leave it out: persist='none', or 'gs://BUCKET/PREFIX'."
        ) from error
    except (ValueError, RuntimeError) as error:  # what google.colab.drive raises, also for a refused login
        raise ColabError(
            f"The drive was not mounted: {error}. Run the cell again and allow access; or continue without it: "
            "persist='none', or 'gs://BUCKET/PREFIX'."
        ) from error


def is_mounted(at: Path) -> bool:
    """Whether something is mounted there, in whatever state it is."""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    names = [line.split(" ")[1].replace("\\040", " ") for line in lines]
    return os.path.realpath(at.parent) + "/" + at.name in names or str(at) in names


def probe(folder: Path, seconds: float = PROBE_SECONDS) -> None:
    """Write and read a small file in `folder`. Raises DriveProblem if it is not there, fails, or takes longer than
    that.

    It is done in another thread: a system call on a mount that hangs never returns.
    """
    ended: list[OSError | None] = []

    def attempt() -> None:
        # Not one name for all: a probe that timed out may still end, and delete the file, while the next one runs.
        path, content = folder / f"{PROBE}-{os.urandom(6).hex()}", os.urandom(16)
        try:
            path.write_bytes(content)
            if path.read_bytes() != content:
                raise DriveProblem(errno.EIO, "what is read back is not what was written", str(path))
            path.unlink()
            ended.append(None)
        except OSError as error:
            ended.append(error)

    thread = threading.Thread(target=attempt, daemon=True, name="drive probe")
    thread.start()
    thread.join(seconds)
    if not ended:
        raise DriveProblem(errno.ETIMEDOUT, f"it has not answered for {seconds:.0f} s", str(folder))
    if ended[0] is not None:
        raise DriveProblem(ended[0].errno or errno.EIO, ended[0].strerror or str(ended[0]), str(folder)) from ended[0]


def remount(at: Path) -> None:
    """Mount a drive again that does not answer. Raises OSError, or what google.colab.drive raises."""
    drive = colab_module("drive")
    if is_mounted(at):
        # `force_remount` waits for what is mounted there, which may hang for ever.
        subprocess.run(["umount", "--lazy", str(at)], check=False, capture_output=True, timeout=PROBE_SECONDS)
    drive.mount(str(at), force_remount=True)


def flush_and_mount_again(settings: ColabSettings, at: Path) -> None:
    """Wait until everything is uploaded, and mount the drive again, so that it shows what Google has and not a cache.

    Raises ColabError if the upload does not end in time.
    """
    drive = colab_module("drive")
    try:
        drive.flush_and_unmount(timeout_ms=int(settings.drive.flush_seconds * 1000))
    except ValueError as error:
        raise ColabError(
            f"The drive was not uploaded within {settings.drive.flush_seconds / 60:.0f} minutes ({error}): NOT safe. "
            "Keep this session, and run this cell again."
        ) from error
    if is_mounted(at):
        raise ColabError(f"{at} is still mounted after flush_and_unmount: NOT safe. Run this cell again.")
    drive.mount(str(at))


def differences(out: Path, folder: Path) -> list[str]:
    """What is on this disk and not, or not the same, in the drive's folder: names with the reason.

    Compared are exports/, runs/, data/manifests/, and of every run the checkpoints that its index lists there.
    """
    from training.colab.compare import differing_checkpoints, differing_files

    return differing_files(out, folder) + differing_checkpoints(out, folder)


def _entered(at: Path, target: Path) -> Mounted:
    """The folder on the drive, made and probed. Raises OSError."""
    if not is_mounted(at):
        raise DriveProblem(errno.ENOTCONN, "nothing is mounted there", str(at))
    target.mkdir(parents=True, exist_ok=True)
    probe(target)
    free = shutil.disk_usage(target).free / 1e9
    print(f"Drive: {target}, {free:.1f} GB free.")
    return Mounted(target, free)


def _require_free(at: Path) -> None:
    """Raise ColabError if files lie where the drive is to be mounted: Colab refuses that with a less clear message."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        found = sorted(path.name for path in at.iterdir())
        if found:
            raise ColabError(
                f"{at} has files in it ({', '.join(found[:3])}) though no drive is mounted: something has written "
                f"there while it was detached. Move them away: mv {at} {at}-local"
            ) from None
