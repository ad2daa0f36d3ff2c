"""The schema of a manifest row: some volumes of one run of one subject, with the stimulus that belongs to them.

`begin` and `end` count volumes from the first one of the run. The core refuses held-out rows that overlap a training
row of the same file of BOLD, or of the same stimulus in another subject.
"""

from __future__ import annotations

import math
from typing import Any

from training.data.schema import ID, Key, PathKey, Schema, is_number, text

BOLD_PATH, STIMULUS_PATH, MASK_PATH = "bold_path", "stimulus_path", "mask_path"
UNSEEN = "unseen"  # true: of a subject who is left out of training; its training rows fit its own head alone
REGIONS = "regions"  # SHA-256 of the file of regions beside the mask; missing without --atlas


def _seconds(name: str) -> Key:
    """A key that holds a positive number of seconds."""

    def check(value: Any) -> float:
        if not is_number(value) or not value > 0 or not math.isfinite(value):
            raise ValueError(f"`{name}` should be a positive number of seconds; it is {value!r}")
        return float(value)

    return Key(check)


def _count(name: str) -> Key:
    """A key that holds a whole number from 1 up."""

    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"`{name}` should be a whole number from 1 up; it is {value!r}")
        return value

    return Key(check)


def _yes(value: Any) -> bool:
    if value is not True:
        raise ValueError(f"`{UNSEEN}` is true, or left out; it is {value!r}")
    return value


SCHEMA = Schema(
    place="training.domains.brain.rows:SCHEMA",
    paths=(
        PathKey(BOLD_PATH, root="fmri"),
        PathKey(STIMULUS_PATH, folder="data/stimulus"),
        PathKey(MASK_PATH, folder="data", shared=True),
    ),
    keys={
        "subject": text("subject"),
        "run": text("run"),
        "tr": _seconds("tr"),
        "volumes": _count("volumes"),  # of the run that are used
        # the place of the subject and of the run among all of the data set, from 1, and how many there are: a split may
        # have fewer of them
        "subject_number": _count("subject_number"),
        "subjects": _count("subjects"),
        "run_number": _count("run_number"),
        "runs": _count("runs"),
        REGIONS: text(REGIONS),
        UNSEEN: Key(_yes),
    },
    required=("subject", "run", "tr", "volumes", "subject_number", "subjects", "run_number", "runs"),
    names=(ID, REGIONS),  # no model depends on the regions by which results are listed
    spans={BOLD_PATH: ("begin", "end"), STIMULUS_PATH: ("begin", "end")},
    group="block",  # "1 val 0": the volumes of a block of time are in one split, for all subjects
    example='{"bold_path": ..., "stimulus_path": ..., "mask_path": ..., "subject": "01", "run": "1", "tr": 1.5, '
    '"volumes": 900, "subject_number": 1, "subjects": 4, "run_number": 1, "runs": 1, "begin": 0, "end": 64, '
    '"block": "1 train 0"}',
)
