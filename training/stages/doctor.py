"""Checks this host before hours are spent on it: what it has, what is missing, and what to do about it."""

from __future__ import annotations

import fcntl
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.domain import Domain, Finding, Job
from training.errors import DataError, HostError, UsageError
from training.host import available_cpus, available_memory, nvidia_smi
from training.workspace import PARTS, PROJECT, Workspace, why_no_folder

GIB = 2**30
FULL_GPU = 22 * GIB  # a "24 GB" card shows a little less
SHARED_MEMORY = GIB  # of /dev/shm: Docker's default of 64 MB is too small for NCCL; data loader workers use none
MEMORY = 8 * GIB
DRIVER = Path("/proc/driver/nvidia/version")  # exists while the NVIDIA driver is loaded

#: Checkpoints of a family that may exist at the same time: best, last, three epochs and the one that is being written.
CHECKPOINTS = 6


def doctor(
    workspace: Workspace,
    domain: Domain,
    options: Mapping[str, Any] | None = None,
    *,
    device: str = "auto",
    gpus: int | None = None,
    as_json: bool = False,
) -> list[Finding]:
    """Run all checks; print and return their findings. `options`: the domain's, by attribute. `device`, `gpus`: what
    the run is going to request. `as_json`: print them at the end as one JSON object, {"ready": bool, "findings":
    [{"state", "about", "text", "do"}]}, for programs.

    Raises HostError naming everything that would make the run fail; where nothing is wrong with the host, DataError or
    UsageError, as the stage would raise that meets it.
    """
    job = Job(workspace, options or {})
    findings: list[Finding] = []
    for check in (
        _system(),
        _gpu(device, gpus),
        _compiler(),
        _shared_memory(),
        _disk(workspace, domain, job),
        domain.checks(job),
        _clock(workspace),
        _outputs(workspace),
        _inputs([path for option in domain.options if option.mounted and (path := job.path(option.attribute))]),
    ):
        for finding in check:
            findings.append(finding)
            if not as_json:
                print(finding, flush=True)
    failed = [finding for finding in findings if finding.state == "fails"]
    if as_json:
        print(json.dumps({"ready": not failed, "findings": [asdict(finding) for finding in findings]}, indent=1))
    if failed:
        text = "; ".join(f"{finding.about}: {finding.text}" for finding in failed)
        codes = {finding.exit_code for finding in failed}
        if codes <= {UsageError.exit_code, DataError.exit_code}:
            raise UsageError(text) if UsageError.exit_code in codes else DataError(text)
        raise HostError(f"this host is not ready: {text}")
    return findings


def _system() -> Iterator[Finding]:
    cpus, memory = available_cpus(), available_memory()
    text = f"Python {platform.python_version()}, {cpus} CPUs, {memory / GIB:.0f} GiB of memory"
    if memory < MEMORY:
        yield Finding("note", "host", text, "Export and data loading may need up to 8 GiB: lower data.num_workers.")
    else:
        yield Finding("ok", "host", text)


# -- driver, CUDA, torch, GPU memory ---------------------------------------------------------------------------------


def _gpu(device: str, gpus: int | None) -> Iterator[Finding]:
    version, cuda = _torch_build()
    built = f"torch {version}, built for {f'CUDA {cuda}' if cuda else 'the CPU'}"
    driver = _driver()
    if device == "cpu":
        yield Finding("ok", "torch", f"{built}; no GPU is requested")
        return
    demanded = device == "cuda" or gpus is not None
    if not driver and not demanded:
        yield Finding("note", "GPU", f"no NVIDIA driver is loaded here: training on the CPU ({built})")
        return
    if not cuda:
        yield Finding(
            "fails", "torch", f"{built}, and a GPU is requested (driver: {driver or 'none'})",
            "Have a build for CUDA installed (remove .venv, or the wheel in wheelhouse/, start again), or use --cpu.",
        )  # fmt: skip
        return
    import torch

    if not torch.cuda.is_available():
        text = f"{built}, finds no usable GPU (driver: {driver or 'none'})"
        yield Finding("fails", "GPU", text, _which_torch(driver))
        return
    yield Finding("ok", "torch", f"{built}; driver {driver}")
    count = torch.cuda.device_count()
    for index in range(count):
        yield _one_gpu(torch, index)
    if gpus is not None and count < gpus:
        yield Finding("fails", "GPU", f"{gpus} are requested, {count} can be seen", "Lower --gpus.")


def _one_gpu(torch: Any, index: int) -> Finding:
    about = f"GPU {index}"
    properties = torch.cuda.get_device_properties(index)
    try:
        (torch.ones(8, device=f"cuda:{index}") + 1).sum().item()
        free, total = torch.cuda.mem_get_info(index)
    except RuntimeError as error:
        return Finding(
            "fails", about, f"{properties.name} cannot compute: {str(error).splitlines()[0]}",
            f"Its compute capability is {properties.major}.{properties.minor}, this torch supports "
            f"{', '.join(torch.cuda.get_arch_list())}. {_which_torch(_driver())}",
        )  # fmt: skip
    text = f"{properties.name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free"
    if free < 0.8 * total:
        return Finding("note", about, text, "Another process uses it: see nvidia-smi.")
    if total < FULL_GPU:
        return Finding(
            "note", about, text,
            "--preset full is sized for 24 GB: on out-of-memory halve data.batch_size and double "
            "training.grad_accum_steps.",
        )  # fmt: skip
    if properties.major < 8:
        return Finding("note", about, text, "No bfloat16 before Ampere: set training.amp_dtype: float16.")
    return Finding("ok", about, text)


def _torch_build() -> tuple[str, str]:
    """Version and CUDA version ('' for a CPU build) of the installed torch, without the seconds of importing it."""
    try:
        version = importlib.metadata.version("torch")
        spec = importlib.util.find_spec("torch")
        text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8") if spec and spec.origin else ""
    except importlib.metadata.PackageNotFoundError:
        raise HostError("torch is not installed here: run ./train_cuda.sh, which makes the environment.") from None
    found = re.search(r"^cuda\b[^=]*= *['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return version, found[1] if found else ""


def _driver() -> str:
    """Version of the NVIDIA driver that is loaded; '' without one."""
    try:
        text = DRIVER.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", text)
    if found:
        return found[1]
    found = [re.fullmatch(r"\d+(?:\.\d+)+", line) for line in nvidia_smi("driver_version", seconds=60)[0]]
    return found[0][0] if found and found[0] else ""


def _which_torch(driver: str) -> str:
    """What to do about a torch that finds no GPU, from the output of scripts/torch_index.sh."""
    if not driver:
        return "Install the NVIDIA driver (Ubuntu: sudo ubuntu-drivers install --gpgpu, then reboot), or use --cpu."
    clean = {name: value for name, value in os.environ.items() if name != "TORCH_INDEX"}
    script = PROJECT / "scripts" / "torch_index.sh"
    output = subprocess.run(["bash", str(script)], capture_output=True, text=True, env=clean, check=False).stderr
    return f"What this host can run: {' '.join(output.split())} Or --cpu."


def _compiler() -> Iterator[Finding]:
    known = (os.environ.get("CC"), "cc", "gcc", "clang")
    compiler = next((name for name in known if name and shutil.which(name)), None)
    if compiler is None:
        yield Finding(
            "note", "compiler", "none: training works, slower, without torch.compile",
            "On Debian or Ubuntu: sudo apt-get install gcc g++ python3-dev",
        )  # fmt: skip
    else:
        yield Finding("ok", "compiler", compiler)


# -- memory and disk -------------------------------------------------------------------------------------------------


def _shared_memory() -> Iterator[Finding]:
    try:
        size = shutil.disk_usage("/dev/shm").total
    except OSError:
        size = 0
    if size < SHARED_MEMORY:
        yield Finding(
            "note", "/dev/shm", f"{size / 2**20:.0f} MiB: with several GPUs, NCCL needs more between them",
            "In Docker: --shm-size=8g (train_cuda.sh and Compose set it).",
        )  # fmt: skip
    else:
        yield Finding("ok", "/dev/shm", f"{size / GIB:.1f} GiB")


def _disk(workspace: Workspace, domain: Domain, job: Job) -> Iterator[Finding]:
    checkpoints = CHECKPOINTS * sum(family.checkpoint_bytes for family in domain.families)
    needs = [
        ("checkpoints", workspace.root / "checkpoints", checkpoints),
        ("cache", workspace.cache, domain.store_bytes(job)),
        ("exports", workspace.exports, sum(family.export_bytes for family in domain.families)),
    ]
    places: dict[int, list[tuple[str, Path, int]]] = {}
    for name, folder, need in needs:
        places.setdefault(_existing(folder).stat().st_dev, []).append((name, folder, need))
    for parts in places.values():
        folder = _existing(parts[0][1])
        free = shutil.disk_usage(folder).free
        # this run reuses the space of what earlier runs have written
        need = sum(max(0, part - _written(at)) for _, at, part in parts)
        what = ", ".join(f"{name} {part / GIB:.1f}" for name, _, part in parts)
        text = f"{free / GIB:.1f} GiB free in {folder}; a full run needs {need / GIB:.1f} more ({what})"
        if free < min(need, GIB):
            yield Finding("fails", "disk", text, "Free some room, or write elsewhere with --out.")
        elif free < need:
            yield Finding("note", "disk", text, "Enough for --preset demo only; for full, write elsewhere with --out.")
        else:
            yield Finding("ok", "disk", text)


def _existing(folder: Path) -> Path:
    while not os.path.exists(folder):  # noqa: PTH110 - Path.exists raises where a folder may not be entered
        folder = folder.parent
    return folder


def _written(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _clock(workspace: Workspace) -> Iterator[Finding]:
    """A clock that is behind breaks TLS and the order of runs."""
    now = time.time()
    known = max(path.stat().st_mtime for path in Path(__file__).parent.iterdir())
    marks = [path.stat().st_mtime for path in workspace.root.glob("checkpoints/*/index.json")]
    date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    if now < max([known, *marks]) - 86400:
        yield Finding(
            "note", "clock", f"{date} is before what is already written here",
            "Set it (sudo timedatectl set-ntp true): downloads and W&B fail with a wrong clock.",
        )  # fmt: skip
    else:
        yield Finding("ok", "clock", date)


# -- permissions -----------------------------------------------------------------------------------------------------


def _outputs(workspace: Workspace) -> Iterator[Finding]:
    who = f"uid {os.geteuid()}"
    bad = []
    for name in PARTS:
        found = why_no_folder(workspace.root / name)
        if found is not None:
            yield Finding("fails", "outputs", *found)
            return
        folder = _existing(workspace.root / name)
        try:
            _try_writing(folder)
        except OSError as error:
            bad.append(f"{folder} ({error.strerror})")
    if bad:
        yield Finding(
            "fails", "outputs", f"{who} cannot write {', '.join(dict.fromkeys(bad))}",
            "Take the folder over (sudo chown -R \"$(id -u):$(id -g)\" DIR), run as its owner, or choose --out.",
        )  # fmt: skip
    else:
        yield Finding("ok", "outputs", f"{who} can write, rename and lock in {workspace.root}")


def _try_writing(folder: Path) -> None:
    """Do what saving a checkpoint needs: write, flush to the disk, rename, lock. Raises OSError."""
    handle, name = tempfile.mkstemp(prefix=".doctor-", dir=folder)
    path = Path(name)
    try:
        os.write(handle, b"x")
        os.fsync(handle)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        renamed = path.with_name(path.name + ".renamed")
        path.rename(renamed)
        path = renamed
    finally:
        os.close(handle)
        path.unlink(missing_ok=True)


def _inputs(roots: list[Path]) -> Iterator[Finding]:
    for root in roots:
        try:
            _try_reading(root)
        except OSError as error:
            do = "Make it readable for this user: chmod -R a+rX DIR."
            yield Finding("fails", "data", f"{root} cannot be read ({error.strerror})", do)
            continue
        refused = [str(path) for path in _unreadable(root)]
        if refused:
            yield Finding(
                "note", "data", f"{len(refused)} files or folders under {root} cannot be read, e.g. {refused[0]!r}",
                "chmod -R a+rX DIR. In a container a link must lead to a folder that is named too (--data-mount).",
            )  # fmt: skip
        else:
            yield Finding("ok", "data", f"{root} can be read")


def _try_reading(path: Path) -> None:
    """Raises OSError."""
    if path.is_file():
        with path.open("rb"):
            return
    with os.scandir(path) as entries:
        next(entries, None)


def _unreadable(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root, followlinks=True):
        for name in (*folders, *files):
            if not os.access(path := f"{folder}/{name}", os.R_OK):
                yield path
