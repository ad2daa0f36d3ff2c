"""Training in a notebook on Google Colab: what its cells call. docs/training_colab_setup.md explains the steps.

    environment = setup_colab_environment(persist="drive")
    start_training("market", "--preset", "full")     # returns at the first step
    follow_training()                                # until the end; the drive is kept mounted
    finish()                                         # uploaded, compared: "safe"

Uses the standard library only: the packages of the notebook's kernel stay as they are, and the training runs in the
project's own environment (training/colab/).
"""

from __future__ import annotations

import re
from pathlib import Path

from training.colab.checkpoints import CheckpointManager
from training.colab.data import upload_data_files
from training.colab.drive import mount_google_drive
from training.colab.gpu import check_gpu
from training.colab.jobs import TrainingJob, finish_job, follow_job, job_of, start_job
from training.colab.processes import CommandFailed, run
from training.colab.session import budget_flags, estimate_training_time_remaining, runs_a_month
from training.colab.settings import ColabSettings, load_settings
from training.colab.setup import (
    Environment,
    setup_checkpointing,
    setup_colab_environment,
    setup_environment,
    setup_wandb,
)
from training.colab.surroundings import PROJECT, ColabError, detect_colab, environment_python

__all__ = [
    "CheckpointManager",
    "ColabError",
    "ColabSettings",
    "CommandFailed",
    "Environment",
    "TrainingJob",
    "budget_flags",
    "check_gpu",
    "detect_colab",
    "environment_python",
    "estimate_training",
    "estimate_training_time_remaining",
    "finish",
    "follow_training",
    "load_settings",
    "mount_google_drive",
    "run",
    "runs_a_month",
    "setup_checkpointing",
    "setup_colab_environment",
    "setup_environment",
    "setup_wandb",
    "start_training",
    "upload_data_files",
]

_current: list[TrainingJob] = []  # the job of this notebook


def start_training(
    domain: str,
    *options: object,
    persist: str = "drive",
    out: str | Path | None = None,
    ends: str = "finish",
    units: float | None = None,
    wandb: str = "",
    settings: ColabSettings | None = None,
) -> TrainingJob:
    """Start ./train_cuda.sh DOMAIN in the background; returns at its first step.

    `options`: further ones of the runner. `ends`: "finish": verified exports before this session ends; "save": it
    trains until then and is saved, for a next session; "open": no limit. `units`: at most so many compute units.
    `wandb`: a project of Weights & Biases. Raises ColabError if too little time is left, CommandFailed if it ends with
    an error.
    """
    settings = settings or load_settings()
    job = job_of(settings, persist, None if out is None else Path(out))
    if ends not in ("finish", "save", "open"):
        raise ColabError(f"ends takes 'finish', 'save' or 'open', not '{ends}'.")
    words = [domain, *map(str, options), "--native", "--out", str(job.out)]
    if job.persist:
        words += ["--persist", job.persist]
    if ends != "open":
        words += budget_flags(ends == "finish", settings, out=job.out, units=units)
    keyed = (wandb or "--from-wandb" in words) and setup_wandb()
    if wandb and keyed:
        words += ["--wandb", wandb]
    _current[:] = [start_job(job, words)]
    return job


def follow_training(job: TrainingJob | None = None) -> int:
    """Print the output of the job until it ends, and keep its drive mounted; returns 0, or 75: run all cells again."""
    return follow_job(job or _job())


def finish(unassign: bool = False, job: TrainingJob | None = None) -> int:
    """Wait for the job, upload everything, mount the drive again and compare; prints "safe" only then. `unassign`: end
    this session afterwards."""
    return finish_job(job or _job(), unassign)


def estimate_training(
    domain: str, *options: object, settings: ColabSettings | None = None, out: Path | None = None
) -> int:
    """Time a few real steps, and print hours and compute units of this run on this GPU."""
    settings = settings or load_settings()
    job = job_of(settings, "none", out)
    gpu = check_gpu(settings=settings, required=False)
    rate, plan = gpu.units_per_hour, settings.subscription
    price = [] if rate is None else ["--price-per-hour", f"{rate * plan.usd_per_unit:.4f}"]
    words = [domain, *map(str, options), "--native", "--out", job.out, "--estimate", *price]
    printed: list[str] = []
    code = run([PROJECT / "train_cuda.sh", *words], printed=printed)
    usd = sum(float(amount) for amount in re.findall(r"; ([0-9.]+) USD at", "".join(printed)))
    if rate is not None and usd > 0:
        print(f"This run: {runs_a_month(usd / (rate * plan.usd_per_unit), rate, settings)}.")
    return code


def _job() -> TrainingJob:
    """The job of this notebook, also after its kernel was restarted."""
    if not _current:
        job = job_of(load_settings(), "none")
        command = job.state()["command"]
        job.persist = command[command.index("--persist") + 1] if "--persist" in command else ""
        _current.append(job)
    return _current[0]
