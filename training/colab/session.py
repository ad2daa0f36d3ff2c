"""The time and the compute units that are left, as flags of the runner."""

from __future__ import annotations

import json
import subprocess
import time
from datetime import datetime
from pathlib import Path

from training.colab.gpu import check_gpu
from training.colab.settings import ColabSettings
from training.colab.surroundings import PROJECT, ColabError, default_out, environment_python, session_start


def estimate_training_time_remaining(
    settings: ColabSettings | None = None, *, started: float | None = None, session_hours: float | None = None
) -> float:
    """Hours until Colab ends this session, at the latest; below 0: it may end at any moment.

    Sessions that are idle, or out of compute units, end earlier. `session_hours`: default `max_runtime_hours`.
    """
    settings = settings or ColabSettings()
    hours = settings.subscription.max_runtime_hours if session_hours is None else session_hours
    return hours - (time.time() - session_start(started)) / 3600


def budget_flags(
    finish: bool = True,
    settings: ColabSettings | None = None,
    *,
    out: Path | None = None,
    units: float | None = None,
    started: float | None = None,
    session_hours: float | None = None,
    margin_minutes: float | None = None,
) -> list[str]:
    """Options of ./train_cuda.sh that end a job before this session ends.

    finish=True: the training ends early enough for evaluation, verified exports and the last copy (`--max-hours`).
    finish=False: it is saved and copied just before (`--session-ends`, exit code 75), and the next session continues.
    `units`: at most so many compute units (`--budget-usd`, by the GPU's rate). Raises ColabError if too little time is
    left.
    """
    settings = settings or ColabSettings()
    left = estimate_training_time_remaining(settings, started=started, session_hours=session_hours)
    margin = (settings.session.margin_minutes if margin_minutes is None else margin_minutes) / 60
    if left <= margin:
        raise ColabError(
            f"{max(0.0, left) * 60:.0f} min of this session are left, and its end needs {margin * 60:.0f}: start a new "
            "session (Runtime -> Disconnect and delete runtime), and run all cells again."
        )
    if finish:
        flags = ["--max-hours", f"{used_hours(out or default_out()) + left - margin:.4f}"]
    else:
        ends = datetime.fromtimestamp(time.time() + (left - margin) * 3600).astimezone()
        flags = ["--session-ends", ends.isoformat(timespec="seconds")]
    gpu = check_gpu(settings=settings, required=False)
    if gpu.units_per_hour is not None:
        flags += ["--price-per-hour", f"{gpu.units_per_hour * settings.subscription.usd_per_unit:.4f}"]
    if units is not None:
        if gpu.units_per_hour is None:
            raise ColabError(
                f"units={units:g}: it is not known how many units an hour of {gpu.name or 'no GPU'} costs: add it to "
                "compute.units_per_hour in training/configs/colab_setup.yaml."
            )
        flags += ["--budget-usd", f"{units * settings.subscription.usd_per_unit:.2f}"]
    return flags


def used_hours(out: Path) -> float:
    """Hours that the job in `out` has used so far, over all sessions; 0 if it is new."""
    done = subprocess.run(
        [environment_python(), "-m", "training", "budget", "--json", "--out", str(out)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ColabError(f"The hours used so far are not known:\n{done.stderr.strip()}")
    used = json.loads(done.stdout)
    return 0.0 if used["done"] else float(used["hours"])


def runs_a_month(hours: float, units_per_hour: float, settings: ColabSettings | None = None) -> str:
    """What a run of so many hours costs, in compute units and USD, and how many of them a month allows."""
    plan = (settings or ColabSettings()).subscription
    units = hours * units_per_hour
    if units <= 0:
        raise ColabError(f"hours and units per hour must be above 0, not {hours:g} and {units_per_hour:g}.")
    return (
        f"{units:.0f} compute units ({units * plan.usd_per_unit:.2f} USD); {plan.compute_units / units:.0f} such runs "
        f"of {plan.compute_units:g} units a month ({plan.tier}, {plan.cost_per_month_usd:g} USD, {plan.prices_of})"
    )
