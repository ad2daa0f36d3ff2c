"""Windows of volumes, each encoded once for all subjects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from training.domains.brain.bold.values import columns, raw, slow_cosines
from training.domains.brain.material import stretches
from training.domains.brain.rows import BOLD_PATH, MASK_PATH, STIMULUS_PATH
from training.domains.brain.stimulus import bins
from training.errors import DataError

if TYPE_CHECKING:
    from training.data.rows import Row


class BoldWindows:
    """Samples of at most `window` volumes of one run. In training, each epoch moves the borders of the windows.
    `overlap`: volumes that a window shares with the next, for a model that looks as many ahead.

    An item has, for B bands, H volumes of history, T of the window, S subjects, V voxels and K cosines:
    band_<name> float32 [H + T, F]; known float32 [H + T], 0 before the begin of the run; basis float32 [T, K]; run
    int64; bold float32 [S, T, V], raw values; present float32 [S, T], 1 where the subject has the volume.
    """

    def __init__(self, rows: Sequence[Row], window: int, history: int, seed: int, training: bool,
                 overlap: int = 0):  # fmt: skip
        if not len(rows):
            raise DataError("There is no row to make windows of.")
        self.window, self.history, self.seed, self.training = window, history, seed, training
        self.stride, self.overlap = window - overlap, overlap
        first = rows[0].values
        self.subjects, self.voxels = int(first["subjects"]), np.array(rows[0].records[MASK_PATH]["index"])
        self.stimuli: dict[int, bins.Stimulus] = {}
        self.volumes: dict[int, int] = {}
        self.records: dict[tuple[int, int], Mapping[str, np.ndarray]] = {}
        spans: dict[int, dict[int, list[tuple[int, int]]]] = {}
        for row in rows:
            run, subject = int(row.values["run_number"]) - 1, int(row.values["subject_number"]) - 1
            self.stimuli.setdefault(run, bins.of(row.records[STIMULUS_PATH]))
            self.volumes[run] = int(row.values["volumes"])
            self.records.setdefault((subject, run), row.records[BOLD_PATH])
            spans.setdefault(run, {}).setdefault(subject, []).append((row.values["begin"], row.values["end"]))
        self.present = {
            run: self._mask(run, {subject: stretches(sorted(one)) for subject, one in of.items()})
            for run, of in spans.items()
        }
        tr = next(iter(self.stimuli.values())).tr
        self.bases = {run: slow_cosines(count, tr).astype(np.float32) for run, count in self.volumes.items()}
        self.cosines = cosines_of(rows)
        self.places = self._places()
        self.columns: dict[tuple[int, int], np.ndarray] = {}

    def _mask(self, run: int, spans: Mapping[int, Sequence[tuple[int, int]]]) -> np.ndarray:
        out = np.zeros((self.subjects, self.volumes[run]), bool)
        for subject, of in spans.items():
            for begin, end in of:
                out[subject, begin:end] = True
        return out

    def _places(self) -> list[tuple[int, int, int, int]]:
        """(run, first, begin, last): the window that begins at `begin`, within the stretch from `first` to `last`."""
        out = []
        for run, present in sorted(self.present.items()):
            edges = np.flatnonzero(np.diff(np.concatenate([[0], present.any(0).astype(int), [0]])))
            for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
                out += [(run, first, begin, last) for begin in range(first, last - self.overlap, self.stride)]
        return out

    def __len__(self) -> int:
        return len(self.places)

    def item(self, epoch: int, index: int) -> dict[str, np.ndarray]:
        run, first, begin, last = self.places[index]
        if self.training and last - first > self.window:
            random = np.random.default_rng((self.seed, epoch, index))
            begin = int(np.clip(begin + random.integers(0, self.stride), first, last - self.window))
        end = min(begin + self.window, last)
        out = self._stimulus(run, begin)
        basis = np.zeros((self.window, self.cosines), np.float32)
        basis[: end - begin, : self.bases[run].shape[1]] = self.bases[run][begin:end]
        bold = np.zeros((self.subjects, self.window, len(self.voxels)), np.float32)
        present = np.zeros((self.subjects, self.window), np.float32)
        for subject in range(self.subjects):
            own = self.present[run][subject, begin:end]
            if own.any():
                present[subject, : end - begin] = own
                bold[subject, : end - begin] = self._bold(subject, run, begin, end)
        return out | {"basis": basis, "run": np.array(run), "bold": bold, "present": present}

    def _stimulus(self, run: int, begin: int) -> dict[str, np.ndarray]:
        """The stimulus from `history` volumes before a window to its end."""
        stimulus = self.stimuli[run]
        at = np.arange(begin - self.history, begin + self.window)
        known = (at >= 0) & (at < len(stimulus))
        place = np.clip(at, 0, len(stimulus) - 1)
        out = {f"band_{band}": stimulus.bands[band][place] for band in stimulus.bands}
        return out | {"known": known.astype(np.float32)}

    def _bold(self, subject: int, run: int, begin: int, end: int) -> np.ndarray:
        key = subject, run
        if key not in self.columns:
            self.columns[key] = columns(self.records[key], self.voxels)
        return raw(self.records[key], self.columns[key], begin, end)

    def collate(self, items: Sequence[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(np.stack([item[name] for item in items])) for name in items[0]}


def cosines_of(rows: Sequence[Row]) -> int:
    """The number of slow cosines of the longest run of the rows."""
    longest = max(int(row.values["volumes"]) for row in rows)
    return slow_cosines(longest, float(rows[0].values["tr"])).shape[1]
