"""Writes the demo's bars, with the true state beside them for the evaluation alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.data.files import write_atomic
from training.data.identity import MARKER
from training.domain import Job
from training.domains.market.bars.times import MINUTE
from training.domains.market.demo.world import MINUTES, NAMES, make

START = 19_366 * 1_440  # 2023-01-09, a Monday
FOLDER = "demo_bars"


def open_minutes(count: int, start: int = START) -> np.ndarray:
    """The first `count` minutes (int64, since 1970) of a market with the hours of a future: from Sunday 23:00 to Friday
    22:00 UTC, with a pause from 22:00 to 23:00."""
    minute = start + np.arange(2 * count + 10_080)
    of_week, hour = (minute - 4 * 1_440) % 10_080, minute % 1_440 // 60
    weekend = (of_week >= 4 * 1_440 + 22 * 60) & (of_week < 6 * 1_440 + 23 * 60)
    return minute[~weekend & (hour != 22)][:count]


def make_demo(job: Job) -> dict[str, Path]:
    """PLANTED_1m.parquet and NULL_1m.parquet, each with SYMBOL_state.npz; the folder is marked as synthetic."""
    import polars as pl

    folder = job.workspace.root / "data" / FOLDER
    if (folder / MARKER).is_file():  # written last, so the demo is complete
        return {"bars": folder}
    folder.mkdir(parents=True, exist_ok=True)
    count = MINUTES if job.options.get("minutes") is None else int(job.options["minutes"])
    minute = open_minutes(count)
    for name in NAMES:
        world = make(minute, job.seed, has_direction=name == "PLANTED")
        bars = {column: getattr(world, column) for column in ("open", "high", "low", "close", "volume")}
        time = pl.Series(minute * MINUTE).cast(pl.Datetime("ns", "UTC"))
        pl.DataFrame({"time": time, **bars}).write_parquet(folder / f"{name}_1m.parquet")
        np.savez(state_path(folder, name), time=minute * MINUTE, direction=world.direction, level=world.level)
    write_atomic(folder / MARKER, b'{"synthetic": true}\n')
    job.say(f"  made {count:,} one-minute bars of {' and '.join(NAMES)} in {job.workspace.relative(folder)}")
    return {"bars": folder}


def state_path(folder: Path, symbol: str) -> Path:
    """Where the hidden state of a demo's market is."""
    return folder / f"{symbol}_state.npz"
