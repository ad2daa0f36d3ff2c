"""Runs the alarms over all runs, on training rows, and keeps what they found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from training.domains.brain.alarms import subjects
from training.domains.brain.alarms.clock import ClockCheck, clock_check
from training.domains.brain.alarms.lag import LagScan, Stretch, scan, stretch
from training.domains.brain.bold.values import Normaliser, columns, raw
from training.domains.brain.features.bank import Bank, joined
from training.domains.brain.splits.blocks import Block
from training.domains.brain.stimulus.bins import Stimulus

SUBJECTS = 24  # of a run, at most, that are compared, and whose mean is scanned
VOXELS = 3_000  # of each, evenly from the mask


def train_rows(blocks: Sequence[Block], split: str = "train") -> np.ndarray:
    """The volumes of a split, int64 ascending."""
    return np.concatenate([np.arange(one.begin, one.end) for one in blocks if one.split == split])


def run_alarms(
    stimuli: Mapping[str, Stimulus], records: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]], voxels: np.ndarray,
    blocks: Mapping[str, Sequence[Block]],
) -> dict[str, Any]:  # fmt: skip
    """Scan every run. `records`: run -> subject -> its BOLD.

    Returns {"runs": {name: {lag, stretch, clock ...}}, "alarms": [sentences], "remarks": [sentences]}.
    """
    bank = Bank.fitted([*stimuli.values()], [train_rows(blocks[name]) for name in stimuli])
    some = voxels[np.linspace(0, len(voxels) - 1, min(VOXELS, len(voxels))).astype(int)]
    out: dict[str, Any] = {"runs": {}, "alarms": [], "remarks": []}
    for name, stimulus in stimuli.items():
        features, rows = joined(bank(stimulus)), train_rows(blocks[name])
        held = train_rows(blocks[name], "val")
        bolds = []
        names = [*records[name]][:SUBJECTS]
        for record in (records[name][subject] for subject in names):
            values = raw(record, columns(record, some), 0, len(stimulus))
            bolds.append(Normaliser.fitted(values, rows, stimulus.tr)(values, stimulus.tr))
        mean = np.mean(bolds, 0)
        found = scan(features, mean, rows, stimulus.tr)
        speed = stretch(features, mean, rows, stimulus.tr, found.best if found.found else 0)
        clock = clock_check(bolds[0], rows, held)
        out["runs"][name] = _plain(found, speed, clock)
        if len(bolds) >= subjects.LEAST:
            found_of = zip(names, subjects.scans(bolds, rows, stimulus.tr), strict=True)
            late = [subjects.sentence(subject, one) for subject, one in found_of]
            out["alarms"] += [f"run {name}: {one}" for one in late if one]
        _sort(out, f"run {name}", found, speed, clock)
    return out


def _sort(out: dict[str, Any], name: str, found: LagScan, speed: Stretch | None, clock: ClockCheck) -> None:
    """Sentences into alarms and remarks. A stretch also moves the best lag: it is the reason of both if the run begins
    aligned."""
    stretched = speed is not None and speed.present
    for sentence, is_alarm in (
        (found.sentence(), not found.aligned and not (stretched and not speed.shifted)),
        (speed.sentence() if speed else "", stretched),
        (clock.sentence(), clock.leaks),
    ):
        if sentence:
            out["alarms" if is_alarm else "remarks"].append(f"{name}: {sentence}")


def _plain(found: LagScan, speed: Stretch | None, clock: ClockCheck) -> dict[str, Any]:
    return {
        "lag": {"best": found.best, "seconds": round(found.best * found.tr, 3), "aligned": found.aligned,
                "shifts": list(found.shifts), "r": [round(r, 4) for r in found.r]},
        "stretch": None if speed is None else round(speed.rate, 4),
        "clock_r": round(clock.r, 4),
    }  # fmt: skip
