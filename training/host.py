"""What this host offers to this process: processor, CPUs, memory, GPUs. Standard library only, and cheap to
import.

A container shows the CPUs and the memory of the host that it runs on; what it may use of them is in its cgroup (Linux
control group). The limits of all enclosing groups hold, so the smallest counts.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")  # where /proc and /sys are; tests point it elsewhere
SMI_SECONDS = 20.0  # that nvidia-smi gets to answer: loading a driver takes some


def cpu_name() -> str:
    """The processor's model as the kernel calls it; the machine type (`aarch64`) where it names none."""
    try:
        lines = (ROOT / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def available_cpus() -> int:
    """CPUs that this process may use: its affinity, and the quotas of its cgroups (versions 1 and 2), rounded down; at
    least 1."""
    shares = [float(len(os.sched_getaffinity(0)))]
    for folder in _groups("cpu"):
        with contextlib.suppress(OSError, ValueError):  # no quota: no file, or "max"
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
            shares.append(int(quota) / int(period))
        with contextlib.suppress(OSError, ValueError):
            quota, period = (
                int((folder / f"cpu.cfs_{what}_us").read_text(encoding="ascii")) for what in ("quota", "period")
            )
            shares += [quota / period] if quota > 0 else []  # -1: none
    return max(1, int(min(shares)))


def available_memory() -> int:
    """Bytes that this process may use: the host's memory, or the limit of its cgroups (versions 1 and 2)."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for folder in _groups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):  # no limit: no file, or "max"
                limits.append(int((folder / name).read_text(encoding="ascii")))
    return min(limits)


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the cgroups that this process is in, with all that enclose them. In a container, a path may be that of
    the host, and not be there; the mount itself is the container's own group then."""
    base = ROOT / "sys/fs/cgroup"
    yield from (base, base / controller)
    with contextlib.suppress(OSError):
        for line in (ROOT / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines():
            _, names, path = [*line.split(":", 2), "", ""][:3]
            if names and controller not in names.split(","):
                continue
            parts = [part for part in path.split("/") if part not in ("", "..")]
            mount = base / controller if names else base
            yield from (mount.joinpath(*parts[:depth]) for depth in range(1, len(parts) + 1))


def nvidia_smi(query: str, seconds: float = SMI_SECONDS) -> tuple[list[str], str]:
    """What nvidia-smi answers to `--query-gpu=<query>`: a line a GPU, without units; and why it gives no answer, empty
    where it does, or is not installed."""
    if shutil.which("nvidia-smi") is None:
        return [], ""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], f"nvidia-smi does not answer: {error}"
    if done.returncode:
        return [], f"nvidia-smi: {' '.join((done.stdout + done.stderr).split())}"
    return [line.strip() for line in done.stdout.splitlines() if line.strip()], ""


def gpus() -> list[str]:
    """Names of the NVIDIA GPUs that this host shows, whether they are used or not; none where the driver does not
    answer (`doctor` reports why)."""
    return nvidia_smi("name")[0]
