"""A folder of a film, its annotations and BOLD as a data set of single volumes."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from training.data.rows import Row, select
from training.domain import Job
from training.domains.brain.domain import BRAIN
from training.domains.brain.features.haemodynamics import convolve, kernel
from training.domains.brain.material import Material, Rows, index_of
from training.domains.brain.prepare import prepare
from training.errors import DataError, UsageError
from training.registry import load_recipe
from training.stages.splits import load_split
from training.workspace import Workspace

FILMS = (".m4v", ".mp4", ".mkv", ".avi", ".mov")
WORDS = (".xlsx", ".tsv", ".csv", ".srt", ".vtt")
PREPARED = "prepared"  # the workspace in the data folder
SPLITS = ("train", "val")
MODES = ("per_subject", "cross_subject")
_BANDS = {"video": "pixels", "audio": "sound", "text": "words"}


class SherlockDataset(Dataset):
    """Volumes of one split, with what was seen and heard.

    An item has video float32 [2304] (24 x 32 RGB, 0 to 1), audio float32 [32] (log-mel), text float32 [W] (counts of
    words), fmri float32 [V] (without drift, standardised by training rows), subject_id int (from 1; 0: the mean of all)
    and tr_index int (in the run). A modality that the film has no source for is missing: nothing is invented.

    Args:
        data_dir: a folder with a film (.m4v, .mp4 ...), annotations (.xlsx, .tsv, .csv, .srt, .vtt) or both, and a
            folder of .nii or .nii.gz files, one for each subject and run. What is made of them is kept in `prepared`
            there.
        subjects: "all", or their numbers or names.
        split: train or val: blocks of time with gaps. The test is sealed: `python -m training evaluate --test` opens
            it.
        apply_hrf: stimulus convolved with Glover's response, so that it goes with the BOLD of its row.
        mode: per_subject; or cross_subject: the mean BOLD of all subjects.
        preprocess: prepare the data if that is not done; False: they must be prepared.

    Raises UsageError, DataError.
    """

    def __init__(
        self, data_dir: str | Path = "data/", subjects: str | Sequence[int | str] = "all", split: str = "train",
        apply_hrf: bool = True, mode: str = "per_subject", preprocess: bool = True,
    ):  # fmt: skip
        if split not in SPLITS:
            raise UsageError(f'split="{split}": it is train or val. The test is sealed: it is judged once, by '
                             "`python -m training evaluate autoencoder --test`.")  # fmt: skip
        if mode not in MODES:
            raise UsageError(f'mode="{mode}": it is one of {", ".join(MODES)}.')
        self.data_dir, self.split, self.apply_hrf, self.mode = Path(data_dir), split, apply_hrf, mode
        self.workspace = Workspace(self.data_dir / PREPARED)
        if preprocess:
            with _alone(self.workspace.root):
                prepare(Job(self.workspace, files_of(self.data_dir), say=_say))
        elif not self.workspace.manifest("brain", "train").is_file():
            raise DataError(f"{self.workspace.manifests} has no manifests: use preprocess=True once.")
        recipe = load_recipe("autoencoder", "debug")
        rows = {name: load_split(recipe, self.workspace, name, schema=BRAIN.schema(), say=_say) for name in SPLITS}
        self.splits = {name: _chosen(of, subjects) for name, of in rows.items()}
        self.material = Material.of(self.splits["train"])
        self.rows = Rows.of(self.splits[split])
        self.stimuli = {name: self._stimulus(name) for name in self.rows.runs}
        self.items = [
            (subject, name, volume) for name, run in self.rows.runs.items()
            for subject in (run.spans if mode == "per_subject" else [""])
            for volume in self._volumes(name, subject).tolist()
        ]  # fmt: skip
        self._known: dict[tuple[str, str], np.ndarray] = {}

    def _volumes(self, run: str, subject: str) -> np.ndarray:
        spans = self.rows.runs[run].spans
        if subject:
            return index_of(spans[subject])
        common = [set(index_of(of).tolist()) for of in spans.values()]
        return np.array(sorted(set.intersection(*common)), np.int64)

    def _stimulus(self, run: str) -> dict[str, np.ndarray]:
        of = self.rows.runs[run].stimulus
        found = {name: np.array(of.bands[band]) for name, band in _BANDS.items() if band in of.bands}
        if "video" in found:
            found["video"] = found["video"] / 255
        if self.apply_hrf:  # 0 before the first volume would be black and silent: the mean counts there
            means = {name: values.mean(0) for name, values in found.items()}
            found = {
                name: convolve(values - means[name], kernel(of.tr)) + means[name] for name, values in found.items()
            }
        return {name: np.ascontiguousarray(values, np.float32) for name, values in found.items()}

    def _bold(self, run: str, subject: str) -> np.ndarray:
        key = run, subject
        if key not in self._known:
            names = [subject] if subject else list(self.rows.runs[run].spans)
            volumes = self.rows.runs[run].volumes
            self._known[key] = np.mean([self.material.bold(self.rows, one, run, 0, volumes) for one in names], 0)
        return self._known[key]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        subject, run, volume = self.items[index]
        out: dict[str, Any] = {
            name: torch.from_numpy(values[volume]) for name, values in self.stimuli[run].items()
        }  # fmt: skip
        out["fmri"] = torch.from_numpy(self._bold(run, subject)[volume])
        out["subject_id"] = self.material.train.subjects.index(subject) + 1 if subject else 0
        out["tr_index"] = volume
        return out


MultimodalDataset = SherlockDataset


def files_of(folder: Path) -> dict[str, Path]:
    """The options of the brain domain for the files of a folder. Raises DataError, naming what is missing."""
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}. Name one with a film, annotations and a folder of .nii.gz.")
    every = sorted(folder.iterdir())
    films = [path for path in every if path.suffix.lower() in FILMS]
    words = [path for path in every if path.suffix.lower() in WORDS]
    bold = [path for path in every if path.is_dir() and any(path.glob("*.nii*"))]
    for what, found, most in (("film", films, 1), ("file of annotations", words, 1), ("folder of BOLD", bold, 1)):
        if len(found) > most:
            raise DataError(f"{folder} has more than one {what}: {', '.join(path.name for path in found)}. Keep one.")
    if not bold:
        raise DataError(f"{folder} has no folder with .nii or .nii.gz files, such as sherlock_nii/.")
    if not films and not words:
        raise DataError(f"{folder} has neither a film ({' '.join(FILMS)}) nor annotations ({' '.join(WORDS)}).")
    named = {"movie": films, "annotations": words, "fmri": bold}
    return {option: found[0] for option, found in named.items() if found}


def _chosen(rows: Sequence[Row], subjects: str | Sequence[int | str]) -> Sequence[Row]:
    if subjects == "all":
        return rows
    of = [row.values["subject"] for row in rows]
    wanted = {str(one) for one in ([subjects] if isinstance(subjects, str | int) else subjects)}
    found = {name for name in of if name in wanted or name.lstrip("0") in wanted}
    if len(found) < len(wanted):
        raise UsageError(f"subjects={sorted(wanted)}: the data have {', '.join(sorted(set(of)))}.")
    return select(rows, np.array([number for number, name in enumerate(of) if name in found]))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process of several at a time: the first prepares the data, the others find them prepared."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _say(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        print(text)


__all__ = ["MultimodalDataset", "SherlockDataset", "files_of"]
