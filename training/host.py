"""What this host offers to this process: processor, CPUs, memory, GPUs. Uses the standard library only, and is cheap to
import.

In a container, the system reports all CPUs and all memory of the host. What the container may use is limited by its
cgroup (Linux control group) and by all groups that enclose it, so the smallest of these limits applies.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path("/")  # where /proc and /sys are; tests point it elsewhere
SMI_SECONDS = 20.0  # time limit for nvidia-smi: it may have to load the driver first
#: Additions in a loop, the processor time in seconds that they take on the reference cores (two, of an AMD EPYC of the
#: Zen 5 generation), and the largest factor: a host is slower than that only for moments.
WORK, WORK_SECONDS, SLOWEST = 100_000, 0.0022, 32


@cache
def slow_factor() -> int:
    """How many times as much processor time a fixed computation takes on this host as on the reference cores, as a
    power of two: 1 where it is up to twice as much, 4 where it is up to four times. Limits of processor time grow with
    it, since throttled hosts are ten times slower. Measured once in a process, in a hundredth of a second."""
    times = []
    for _ in range(5):
        before, total = time.process_time(), 0
        for value in range(WORK):
            total += value & 7
        times.append(time.process_time() - before)
    ratio, factor = min(times) / WORK_SECONDS, 1
    while ratio > 2 * factor or (ratio > factor > 1):
        factor *= 2
    return min(factor, SLOWEST)


def cpu_name() -> str:
    """The processor's model according to the kernel; the machine type (`aarch64`) if the kernel has no name for it."""
    try:
        lines = (ROOT / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def available_cpus() -> int:
    """The number of CPUs that this process may use, by its affinity and the quotas of its cgroups (versions 1 and 2),
    rounded down, but not below 1."""
    shares = [float(len(os.sched_getaffinity(0)))]
    for folder in _groups("cpu"):
        with contextlib.suppress(OSError, ValueError):  # no quota: no file, or "max"
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
            shares.append(int(quota) / int(period))
        with contextlib.suppress(OSError, ValueError):
            quota, period = (
                int((folder / f"cpu.cfs_{what}_us").read_text(encoding="ascii")) for what in ("quota", "period")
            )
            shares += [quota / period] if quota > 0 else []  # -1: no quota
    return max(1, int(min(shares)))


def available_memory() -> int:
    """The bytes that this process may use: the host's memory, or a lower limit of its cgroups (versions 1 and 2)."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for folder in _groups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):  # no limit: no file, or "max"
                limits.append(int((folder / name).read_text(encoding="ascii")))
    return min(limits)


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the cgroups of this process, and of all enclosing ones. In a container, /proc may show a path of the
    host that does not exist here; the mount point itself is then the container's group."""
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


def process_exists(process: int) -> bool:
    """Whether a process of this number runs on this host, whoever owns it."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def nvidia_smi(query: str, seconds: float = SMI_SECONDS) -> tuple[list[str], str]:
    """The output of nvidia-smi for `--query-gpu=<query>`, one line per GPU, without units; and why it failed. That text
    is empty if it succeeded or is not installed."""
    if shutil.which("nvidia-smi") is None:
        return [], ""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], f"nvidia-smi failed: {error}"
    if done.returncode:
        return [], f"nvidia-smi: {' '.join((done.stdout + done.stderr).split())}"
    return [line.strip() for line in done.stdout.splitlines() if line.strip()], ""


def gpus() -> list[str]:
    """Names of the NVIDIA GPUs of this host, used or not; an empty list if nvidia-smi fails (`doctor` reports why)."""
    return nvidia_smi("name")[0]
