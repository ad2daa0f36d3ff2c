"""setup_colab_environment: everything that a notebook checks before it trains, in one table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from training.colab.data import upload_data_files
from training.colab.drive import mount_google_drive, probe
from training.colab.gpu import check_gpu
from training.colab.jobs import job_of
from training.colab.processes import run
from training.colab.session import estimate_training_time_remaining
from training.colab.settings import ColabSettings, load_settings
from training.colab.surroundings import PROJECT, ColabError, colab_module, detect_colab

STORES = ("s3://", "gs://", "az://")


@dataclass
class Environment:
    """What was found. `ok`: whether a training may start; `problems`: what stands against it."""

    colab: str | None
    persist: str  # as --persist takes it; empty: none
    data: Path | None
    gpu: str
    hours: float  # until the session ends
    rows: list[tuple[str, str, str]] = field(default_factory=list)  # (what, state, details)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems


def setup_environment(domain: str, *extras: str, cpu: bool = False) -> None:
    """Make the project's environment for a domain (scripts/setup_env.sh). The kernel's packages are not touched."""
    options = ["--cpu"] if cpu else []
    extra = domain if (PROJECT / f"requirements/{domain}.lock").is_file() else "core"
    run([PROJECT / "scripts/setup_env.sh", extra, *extras, *options])


def setup_checkpointing(
    minutes: float | None = None,
    steps: int | None = None,
    keep: int | None = None,
    settings: ColabSettings | None = None,
) -> list[str]:
    """Options of ./train_cuda.sh that save every so many minutes, or steps; `keep`: how many checkpoints of steps
    stay."""
    session = (settings or ColabSettings()).session
    minutes = session.save_minutes if minutes is None else minutes
    steps = session.save_steps if steps is None else steps
    options = [f"--set=training.save_minutes={minutes:g}"]
    if steps:
        keep = session.keep if keep is None else keep
        options += [f"--set=training.save_steps={steps}", f"--set=training.keep={keep}"]
    return options


def setup_wandb(secret: str = "WANDB_API_KEY") -> bool:
    """Take the key of Weights & Biases from Colab's secrets (the key symbol on the left) into the environment of what
    is started from here; returns whether there is one. It is printed nowhere."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    if detect_colab() is None:
        return False
    userdata = colab_module("userdata")
    try:
        key = userdata.get(secret)
    except (userdata.SecretNotFoundError, userdata.NotebookAccessError):
        key = ""
    if not key:
        print(
            f"W&B is off: there is no secret {secret}, or this notebook has no access to it (the key symbol on the "
            "left)."
        )
        return False
    os.environ["WANDB_API_KEY"] = key
    return True


def setup_colab_environment(
    *,
    persist: str = "drive",
    data: str = "",
    files: Sequence[str] = (),
    sha256: str = "",
    gpu: str = "",
    needs_gpu: bool = True,
    settings: ColabSettings | None = None,
) -> Environment:
    """Check everything that the next cells need: where this runs, the drive (or another place for copies), the data on
    the local disk, the GPU, the time left. Prints one table; what is wrong is in `problems`, and a training refuses to
    start.

    `persist`: "drive", "none", a folder, or a URL (gs://, s3://, az://). `data`, `files`, `sha256`: see "
               "upload_data_files;
    `data` empty: none is brought.
    """
    settings = settings or load_settings()
    colab = detect_colab()
    found = Environment(colab, "", None, "", estimate_training_time_remaining(settings))
    names = {"colab": "Google Colab", "enterprise": "Colab Enterprise", None: "not Colab"}
    _row(found, "host", "ok" if colab else "note", names[colab])
    _check(found, "copies", lambda: _place(found, persist, settings))
    if data:
        _check(found, "data", lambda: _data(found, data, files, sha256, settings))
    _check(found, "GPU", lambda: _gpu(found, gpu, settings, needs_gpu))
    soon = found.hours < settings.session.margin_minutes / 60
    text = f"{max(0.0, found.hours):.1f} h until Colab ends this session, at the latest"
    _row(found, "time", "PROBLEM" if soon else "ok", text + (": start a new one" if soon else ""))
    width = max(len(what) for what, _, _ in found.rows)
    for what, state, details in found.rows:
        print(f"  {what:<{width}}  {state:<8}{details}")
    print("Ready." if found.ok else f"NOT ready: {len(found.problems)} problems. A training would not start.")
    return found


def _place(found: Environment, persist: str, settings: ColabSettings) -> str:
    if persist == "none":
        return "none: the results are lost with this session"
    if persist == "drive":
        place = mount_google_drive(settings)
        found.persist = str(place.folder)
        return f"{place.folder}, {place.free_gb:.1f} GB free"
    found.persist = job_of(settings, persist).persist
    if not persist.startswith(STORES):
        try:
            Path(persist).mkdir(parents=True, exist_ok=True)
            probe(Path(persist))
        except OSError as error:
            raise ColabError(f"{persist} cannot be used: {error.strerror}.") from error
    return persist


def _data(found: Environment, data: str, files: Sequence[str], sha256: str, settings: ColabSettings) -> str:
    found.data = upload_data_files(data, files, sha256=sha256, settings=settings)
    return str(found.data)


def _gpu(found: Environment, wanted: str, settings: ColabSettings, needed: bool) -> str:
    gpu = check_gpu(wanted, settings, required=needed)
    found.gpu = gpu.name
    return gpu.message


def _check(found: Environment, what: str, work) -> None:
    try:
        _row(found, what, "ok", work())
    except ColabError as error:
        _row(found, what, "PROBLEM", str(error))


def _row(found: Environment, what: str, state: str, details: str) -> None:
    found.rows.append((what, state, details))
    if state == "PROBLEM":
        found.problems.append(f"{what}: {details}")
