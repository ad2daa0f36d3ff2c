"""`google.colab.drive` with the checks and messages of the original; the drive is a FUSE file system (fuse_drive.py).

Environment: STANDIN_CLOUD, what Google has; STANDIN_CACHE, the folder for this session's cache of it, in which written
files wait for their upload, as on Colab; STANDIN_CONTROL, a folder whose files cause faults: `refuse` (mounting),
`upload_fails`, `loses` (names of files that no upload reaches), `fault` (of the file system).
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

DAEMON = Path(__file__).parents[3] / "fuse_drive.py"


def mount(mountpoint, force_remount=False, timeout_ms=120000, readonly=False):
    at = Path(mountpoint)
    mounted = (at / "MyDrive").is_dir()
    if mounted and not force_remount:
        print(f"Drive already mounted at {mountpoint}; to attempt to forcibly remount, call drive.mount(..., "
              "force_remount=True).")  # fmt: skip
        return
    if (control() / "refuse").exists():
        raise ValueError("mount failed")
    if mounted:
        subprocess.run(["umount", mountpoint], check=True)
    if at.is_dir() and any(at.iterdir()):
        raise ValueError("Mountpoint must not already contain files")
    at.mkdir(parents=True, exist_ok=True)
    cache = Path(os.environ["STANDIN_CACHE"])
    if not cache.exists():
        shutil.copytree(cloud(), cache)
    with (control() / "daemon.log").open("a") as log:
        daemon = subprocess.Popen(
            [sys.executable, DAEMON, cache, at, control()], start_new_session=True, stdout=log, stderr=log
        )
    (control() / "mountpoint").write_text(str(at))
    (control() / "daemon.pid").write_text(str(daemon.pid))
    until = time.monotonic() + 60
    while not (at / "MyDrive").is_dir():
        if time.monotonic() > until or daemon.poll() is not None:
            raise ValueError("mount failed: timeout")
        time.sleep(0.01)
    with (control() / "mounts").open("a") as file:
        file.write(f"{at.stat().st_dev}\n")
    print(f"Mounted at {mountpoint}")


def flush_and_unmount(timeout_ms=24 * 60 * 60 * 1000):
    at = (control() / "mountpoint").read_text() if (control() / "mountpoint").exists() else ""
    if f" {at} " not in Path("/proc/mounts").read_text():
        print("Drive not mounted, so nothing to flush and unmount.")
        return
    if (control() / "upload_fails").exists():
        raise ValueError("flush_and_unmount timed out")
    losing = (control() / "loses").read_text().split() if (control() / "loses").exists() else []
    cache = Path(os.environ["STANDIN_CACHE"])
    subprocess.run(["umount", at], check=True)
    google = cloud()
    shutil.rmtree(google)
    shutil.copytree(cache, google, ignore=lambda _folder, names: [name for name in names if name in losing])
    shutil.rmtree(cache)


def cloud():
    folder = Path(os.environ["STANDIN_CLOUD"])
    (folder / "MyDrive").mkdir(parents=True, exist_ok=True)
    return folder


def control():
    return Path(os.environ["STANDIN_CONTROL"])
