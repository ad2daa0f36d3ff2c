"""A session on a stand-in for Colab: its own disk, a drive, and the kernel's environment."""

from __future__ import annotations

import ctypes.util
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from training.colab import surroundings
from training.colab.settings import ColabSettings

PROJECT = Path(__file__).resolve().parents[2]
CAP_SYS_ADMIN = 21
STANDIN = Path(__file__).parent / "standin"


class Session:
    """A Colab session in `folder`. What Google has of the drive outlives `lost`, the end of the virtual machine."""

    def __init__(self, folder: Path):
        self.folder, self.number = folder, 0
        self.cloud, self.control = folder / "cloud", folder / "control"
        (self.cloud / "MyDrive").mkdir(parents=True)
        self.control.mkdir()

    @property
    def content(self) -> Path:
        return self.folder / f"content{self.number}"

    @property
    def mount(self) -> Path:
        return self.content / "drive"

    @property
    def place(self) -> Path:
        """The folder of --persist, while the drive is mounted."""
        return self.mount / "MyDrive/athanor"

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the kernel."""
        return {
            "STANDIN_CLOUD": str(self.cloud), "STANDIN_CACHE": str(self.folder / f"cache{self.number}"),
            "STANDIN_CONTROL": str(self.control), surroundings.CONTENT: str(self.content),
            "ATHANOR_SESSION_STARTED": "", "ATHANOR_PYTHON": sys.executable, "PYTHONPATH": str(STANDIN),
        }  # fmt: skip

    def settings(self, **session: float) -> ColabSettings:
        """Those of training/configs/colab_setup.yaml, for this session."""
        return ColabSettings.of(self.plain(**session), "test")

    def plain(self, **session: float) -> dict:
        """The same, as a mapping."""
        return {
            "drive": {"mount_path": str(self.mount), "folder": "MyDrive/athanor"},
            "data": {"local_path": str(self.content / "data")},
            "session": {"probe_seconds": 0.2, "margin_minutes": 0.5, **session},
        }

    def settings_file(self, **session: float) -> Path:
        file = self.content / "settings.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(self.plain(**session)))  # JSON is YAML
        return file

    def fault(self, what: str) -> None:
        """A fault of the drive from now on; an empty text: none."""
        (self.control / "fault").write_text(what)

    def detach(self) -> None:
        """Kill the drive's process: every call then fails with 107."""
        os.kill(int((self.control / "daemon.pid").read_text()), signal.SIGKILL)

    def lost(self, uploaded: bool = False) -> None:
        """The virtual machine is gone, with its disk and what was not uploaded; a new one begins. `uploaded`: what was
        written to the drive had been uploaded."""
        self.end()
        cache = self.folder / f"cache{self.number}"
        if uploaded and cache.exists():
            shutil.rmtree(self.cloud)
            shutil.copytree(cache, self.cloud)
        self.number += 1

    def end(self) -> None:
        self.fault("")
        subprocess.run(["umount", "--lazy", self.mount], capture_output=True)

    @property
    def mounts(self) -> int:
        """How often the drive was mounted."""
        return len((self.control / "mounts").read_text().splitlines())


@pytest.fixture
def session(tmp_path, monkeypatch):
    """On it, `google.colab` can be imported."""
    made = Session(tmp_path)
    for name, value in made.environment.items():
        if name != "PYTHONPATH":
            monkeypatch.setenv(name, value)
    monkeypatch.delenv("VERTEX_PRODUCT", raising=False)
    import google

    monkeypatch.setattr(google, "__path__", [*google.__path__, str(STANDIN / "google")])
    yield made
    made.end()


@pytest.fixture
def drive(session):
    """The same, where a FUSE file system can be mounted."""
    reason = no_fuse()
    if reason and not os.environ.get("ATHANOR_TEST_FUSE"):
        pytest.skip(reason)
    assert not reason, f"ATHANOR_TEST_FUSE is set, and {reason}"
    return session


def no_fuse() -> str:
    """Why no FUSE file system can be mounted here; empty if one can."""
    if not Path("/dev/fuse").exists():
        return "there is no /dev/fuse"
    if ctypes.util.find_library("fuse") is None:
        return "libfuse is not installed (apt-get install libfuse2)"
    about = Path("/proc/self/status").read_text()
    capabilities = int(next(line.split()[1] for line in about.splitlines() if line.startswith("CapEff:")), 16)
    return "" if capabilities >> CAP_SYS_ADMIN & 1 else "this process may not mount (CAP_SYS_ADMIN)"
