"""The provenance of a checkpoint: code, settings, data and hardware that produced it."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import training
from training.engine.process.distributed import Ranks
from training.host import available_cpus, cpu_name
from training.settings import RunSettings

#: Settings of lengths, intervals and places: a run may be resumed with other values of them. Batch size and
#: accumulation are compared as their product (BatchPlan.global_batch).
NEUTRAL = (
    "training.epochs", "training.min_epochs", "training.max_steps", "training.max_minutes", "training.early_stopping",
    "training.resume_from", "training.log_every", "training.eval_every", "training.save_every", "training.keep",
    "training.save_minutes", "training.save_steps", "training.eval_steps", "training.appraise_rows",
    "training.appraise_seconds", "training.hang_minutes", "training.compile", "training.grad_accum_steps", "logging",
    "export", "data.train_manifest", "data.val_manifest", "data.batch_size", "data.num_workers", "data.prefetch_factor",
    "data.cache_dir",
)  # fmt: skip


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted keys."""
    out: dict[str, Any] = {}
    for key, value in settings.items():
        out.update(flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return out


def decisive_settings(settings: dict[str, Any], resumable: Sequence[str] = ()) -> dict[str, Any]:
    """The settings (plain, nested) in which a checkpoint and the run that continues it must agree, by dotted key.
    `resumable`: RunSettings.resumable of the family."""
    return {
        key: value
        for key, value in flat(settings).items()
        if not any(key == neutral or key.startswith(neutral + ".") for neutral in (*NEUTRAL, *resumable))
    }


def plain(settings: RunSettings) -> dict[str, Any]:
    """Settings as plain nested values."""
    return settings.model_dump(mode="json")


def digest(values: Any) -> str:
    """SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@cache
def code_version() -> str:
    """The version of the package, and the first digits of a SHA-256 over its source files."""
    package = Path(training.__file__).parent
    sha256 = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        sha256.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{training.__version__}+{sha256.hexdigest()[:12]}"


def hardware(ranks: Ranks) -> dict[str, Any]:
    """The hardware and system of this host."""
    return {
        "device": torch.cuda.get_device_name(ranks.device) if ranks.device.type == "cuda" else "CPU",
        "processes": ranks.world,
        "cpu": cpu_name(),
        "cpus": available_cpus(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def provenance(
    settings: RunSettings, ranks: Ranks, *, data_digest: str, synthetic: bool, run_id: str
) -> dict[str, Any]:
    """The constant part of a checkpoint's `provenance`; the run adds `seconds`."""
    return {
        "run_id": run_id,
        "data_digest": data_digest,
        "settings_digest": digest(plain(settings)),
        "code_version": code_version(),
        "seed": settings.seed,
        "synthetic": synthetic,
        "libraries": {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__},
        "hardware": hardware(ranks),
    }
