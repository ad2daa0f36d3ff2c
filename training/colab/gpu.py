"""Which GPU this session got, and what an hour of it costs in compute units."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from training.colab.settings import ColabSettings
from training.colab.surroundings import ColabError

BLACKWELL = ("G4", "RTX PRO 6000", "B200")  # GPUs for which torch's cu128 builds need driver 580 or newer
BLACKWELL_DRIVER = 580


@dataclass(frozen=True)
class Gpu:
    """`name` and `memory_gb` are empty and 0 without a GPU."""

    name: str
    memory_gb: float
    driver: str
    ok: bool  # whether a job can use it
    units_per_hour: float | None  # None: not in colab_setup.yaml
    message: str


def check_gpu(wanted: str = "", settings: ColabSettings | None = None, *, required: bool = True) -> Gpu:
    """The GPU of this session; a warning is printed if it is another than `wanted` (default: `expected_gpu`).

    Raises ColabError if there is none and one is required, or if its driver is too old for any build of torch.
    """
    settings = settings or ColabSettings()
    wanted = wanted or settings.compute.expected_gpu
    name, memory, driver = _listed()
    if not name:
        message = "There is no GPU in this session: Runtime -> Change runtime type -> GPU, then run all cells again."
        if required:
            raise ColabError(message)
        return Gpu("", 0.0, "", False, None, message)
    if any(word in name for word in BLACKWELL) and int(driver.split(".")[0] or 0) < BLACKWELL_DRIVER:
        raise ColabError(
            f"{name} needs driver {BLACKWELL_DRIVER} or newer, and this session has {driver}: choose another GPU in "
            "Runtime -> Change runtime type."
        )
    rate = rate_of(name, settings)
    message = f"{name}, {memory:.0f} GB, driver {driver}"
    if wanted.lower() not in name.lower():
        message += f". WARNING: not the {wanted} that was expected; see how long it takes with `estimate_training`"
    if rate is not None:
        month = settings.subscription.compute_units / rate
        message += f". About {rate:g} compute units an hour: {month:.0f} hours a month ({settings.subscription.tier})"
    print(message + ".")
    return Gpu(name, memory, driver, True, rate, message)


def rate_of(name: str, settings: ColabSettings) -> float | None:
    """Compute units an hour of a GPU, by the longest entry that its name contains; None if there is none."""
    known = [one for one in settings.compute.units_per_hour if one.lower() in name.lower()]
    return settings.compute.units_per_hour[max(known, key=len)] if known else None


def _listed() -> tuple[str, float, str]:
    """(name, memory in GB, driver) of the first GPU; empty without one."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True)
        name, memory, driver = (word.strip() for word in done.stdout.splitlines()[0].split(","))
        return name, float(memory) / 1024, driver
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return "", 0.0, ""
