"""From manifest rows to arrays: features of every run, and the standardised BOLD of every subject.

Everything that is fitted (features, drift, spread) is fitted on training rows alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from training.domains.brain.bold.files import natural
from training.domains.brain.bold.values import Normaliser, columns, raw
from training.domains.brain.features.bank import Bank, joined
from training.domains.brain.features.haemodynamics import with_response
from training.domains.brain.rows import BOLD_PATH, MASK_PATH, STIMULUS_PATH, UNSEEN
from training.domains.brain.splits.blocks import smallest_gap
from training.domains.brain.stimulus import bins
from training.errors import DataError

if TYPE_CHECKING:
    from training.data.encode import Encoder
    from training.data.rows import Row


def encoders() -> Mapping[str, Encoder]:
    """The encoders of every family of the domain."""
    from training.domains.brain.bold import masks, reading

    return {BOLD_PATH: reading.ENCODER, STIMULUS_PATH: bins.ENCODER, MASK_PATH: masks.OWN}


def seen(rows: Sequence[Row]) -> Sequence[Row]:
    """The rows without those of subjects who are left out of training (--hold-out-subject)."""
    some = [row for row in rows if UNSEEN not in row.values]
    return rows if len(some) == len(rows) else some


def unseen(rows: Sequence[Row]) -> list[Row]:
    """The rows of subjects who are left out of training."""
    return [row for row in rows if UNSEEN in row.values]


@dataclass(frozen=True, eq=False)
class RunRows:
    """The rows of one run: spans of each subject, and the records."""

    name: str
    tr: float
    volumes: int
    stimulus: bins.Stimulus
    spans: Mapping[str, tuple[tuple[int, int], ...]]  # subject -> [begin, end) in order of time
    bold: Mapping[str, Mapping[str, np.ndarray]]  # subject -> record


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a split by run."""

    runs: Mapping[str, RunRows]
    subjects: tuple[str, ...]
    voxels: np.ndarray  # int32 [V]
    shape: tuple[int, ...]
    affine: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Rows:
        """Raises DataError for rows of several masks."""
        if len({row.values[MASK_PATH] for row in rows}) != 1:
            raise DataError("The rows name several masks; all rows of a manifest have one. Run prepare again.")
        by_run: dict[str, list[Row]] = {}
        for row in rows:
            by_run.setdefault(row.values["run"], []).append(row)
        mask = rows[0].records[MASK_PATH]
        subjects = sorted({row.values["subject"] for row in rows}, key=natural)
        runs = {name: _run(name, by_run[name]) for name in sorted(by_run, key=natural)}
        return cls(runs, tuple(subjects), np.array(mask["index"]), tuple(np.array(mask["shape"]).tolist()),
                   np.array(mask["affine"]))  # fmt: skip

    def spans(self) -> list[tuple[str, int, int]]:
        """(run, begin, end) of every row, each once."""
        return sorted({(name, *span) for name, run in self.runs.items() for of in run.spans.values() for span in of})

    def repeated(self) -> dict[str, str]:
        """Run -> the first of the runs that show the same part of the film: itself, if it is no repeat."""
        first: dict[float, str] = {}
        return {name: first.setdefault(run.stimulus.onset, name) for name, run in self.runs.items()}

    def held(self) -> list[tuple[str, int, int]]:
        """The blocks of held-out rows that all subjects of the rows have: the units of the bootstrap. Raises DataError
        if there is none."""
        found = [
            (name, begin, end) for name, begin, end in self.spans()
            if all((begin, end) in self.runs[name].spans.get(subject, ()) for subject in self.subjects)
        ]  # fmt: skip
        if not found:
            raise DataError(
                "No held-out block is there for all subjects: each run is missing for one of them. Leave out the "
                "subjects without a run that the others have."
            )
        return found


def _run(name: str, rows: Sequence[Row]) -> RunRows:
    spans: dict[str, list[tuple[int, int]]] = {}
    for row in rows:
        spans.setdefault(row.values["subject"], []).append((int(row.values["begin"]), int(row.values["end"])))
    first = rows[0]
    return RunRows(
        name, float(first.values["tr"]), int(first.values["volumes"]), bins.of(first.records[STIMULUS_PATH]),
        {subject: tuple(sorted(of)) for subject, of in spans.items()},
        {row.values["subject"]: row.records[BOLD_PATH] for row in rows},
    )  # fmt: skip


def index_of(spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """The volumes of some spans, int64 ascending."""
    return np.concatenate([np.arange(begin, end) for begin, end in spans])


def stretches(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans that follow each other without a gap are joined."""
    out: list[tuple[int, int]] = []
    for begin, end in spans:
        if out and out[-1][1] == begin:
            out[-1] = (out[-1][0], end)
        else:
            out.append((begin, end))
    return out


@dataclass(frozen=True, eq=False)
class Material:
    """Training rows with what is fitted on them. All arrays of a subject are in the order of its runs."""

    train: Rows
    bank: Bank
    normalisers: dict[tuple[str, str], Normaliser] = field(default_factory=dict)  # (subject, run), made on first use

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Material:
        """Fit the features on training rows. Raises DataError if nothing in the stimulus changes."""
        train = Rows.of(rows)
        every = [*train.runs.values()]
        index = [np.unique(np.concatenate([index_of(of) for of in run.spans.values()])) for run in every]
        try:
            bank = Bank.fitted([run.stimulus for run in every], index)
        except ValueError as error:
            raise DataError(f"{error}.") from None
        return cls(train, bank)

    @cached_property
    def features(self) -> dict[str, np.ndarray]:
        """Features of every run that has training rows, not convolved: float32 [T, F]."""
        return {name: joined(self.bank(run.stimulus)) for name, run in self.train.runs.items()}

    @cached_property
    def responses(self) -> dict[str, np.ndarray]:
        """Features convolved with the response, and with its derivative, of every run: float32 [T, 2 F]."""
        return {name: with_response(of, self.train.runs[name].tr) for name, of in self.features.items()}

    def normaliser(self, subject: str, run: str) -> Normaliser:
        """The drift and spread of a subject's run, by its training rows. Raises DataError if it has none."""
        key = (subject, run)
        if key not in self.normalisers:
            of = self.train.runs.get(run)
            if of is None or subject not in of.spans:
                raise DataError(f"subject {subject} has no training rows in run {run}: its spread is not known.")
            rows = index_of(of.spans[subject])
            values = self._raw(of, subject, 0, of.volumes)
            self.normalisers[key] = Normaliser.fitted(values, rows, of.tr)
        return self.normalisers[key]

    def _raw(self, run: RunRows, subject: str, begin: int, end: int) -> np.ndarray:
        record = run.bold[subject]
        return raw(record, columns(record, self.train.voxels), begin, end)

    def bold(self, rows: Rows, subject: str, run: str, begin: int, end: int) -> np.ndarray:
        """Standardised BOLD of a subject at some volumes: float32 [t, V]."""
        of = rows.runs[run]
        values = self._raw(of, subject, begin, end)
        return self.normaliser(subject, run)(values, of.tr, begin, of.volumes)

    def fitting(self, subject: str) -> tuple[np.ndarray, np.ndarray, list[int]]:
        """Of a subject's training rows: convolved features float32 [n, 2 F], BOLD float32 [n, V], and the lengths of
        the contiguous stretches."""
        x, y, lengths = [], [], []
        for name, run in self.train.runs.items():
            for begin, end in stretches(run.spans.get(subject, ())):
                x.append(self.responses[name][begin:end])
                y.append(self.bold(self.train, subject, name, begin, end))
                lengths.append(end - begin)
        return np.concatenate(x), np.concatenate(y), lengths

    def gap(self, rows: Rows) -> int | None:
        """The fewest volumes between a training row and one of these rows."""
        return smallest_gap(self.train.spans(), rows.spans())

    def slices(self) -> dict[str, list[int]]:
        """Band -> the columns of `responses` that belong to it (the response and its derivative)."""
        out, at = {}, 0
        total = sum(self.bank.widths.values())
        for band, width in self.bank.widths.items():
            own = range(at, at + width)
            out[band] = [*own, *(total + number for number in own)]
            at += width
        return out


class Fitted:
    """The material of training rows and what was fitted on them, kept for the next split that is judged."""

    def __init__(self) -> None:
        self.key: tuple[str, ...] = ()
        self.material: Material | None = None
        self.models: dict[str, Any] = {}  # filled by who fits them

    def of(self, rows: Sequence[Row]) -> Material:
        """The material of the rows; `models` is empty if they are others than before."""
        key = tuple(str(row.values["id"]) for row in rows)
        if self.material is None or key != self.key:
            self.key, self.material, self.models = key, Material.of(rows), {}
        return self.material
