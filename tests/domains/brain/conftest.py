"""A small simulated laboratory for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training.data.identity import MARKER
from training.data.rows import Row
from training.domain import Job
from training.domains.brain.demo.making import write_world
from training.domains.brain.demo.world import World, simulate
from training.domains.brain.domain import BRAIN
from training.domains.brain.encoding.recipe import EncodingRecipe
from training.domains.brain.encoding.settings import EncodingSettings
from training.domains.brain.prepare import prepare
from training.domains.brain.rows import BOLD_PATH
from training.stages.splits import load_split
from training.workspace import Workspace

VOLUMES, SUBJECTS, TR, SIDE = 300, 3, 1.5, 13
SETTINGS = EncodingSettings(
    model={"rank": 6, "width": 8, "dropout": 0.0}, warm_start={"searches": 2}, windows={"volumes": 32},
    data={"batch_size": 2},
)  # fmt: skip


def job_of(folder: Path, **options) -> tuple[Job, list[str]]:
    """A job in `folder`/work on the files of the laboratory, and the lines that it prints."""
    lines: list[str] = []
    return Job(Workspace(folder / "work"), options, workers=1, say=lines.append), lines


def options_of(folder: Path) -> dict[str, Path]:
    return {"movie": folder / "film.mp4", "annotations": folder / "words.tsv", "fmri": folder / "bold"}


@pytest.fixture(scope="session")
def world() -> World:
    return simulate(VOLUMES, SUBJECTS, 5, tr=TR, side=SIDE)


@pytest.fixture(scope="session")
def laboratory(tmp_path_factory, world) -> Path:
    """film.mp4, words.tsv, mask.nii.gz and bold/sub-0k_bold.nii.gz."""
    folder = tmp_path_factory.mktemp("laboratory")
    write_world(folder, world)
    (folder / MARKER).write_text('{"synthetic": true}\n')
    return folder


@pytest.fixture(scope="session")
def prepared(laboratory) -> tuple[Job, list[str]]:
    """The laboratory after prepare."""
    job, lines = job_of(laboratory, **options_of(laboratory))
    prepare(job)
    return job, lines


@pytest.fixture(scope="session")
def splits(prepared) -> dict[str, list[Row]]:
    """The rows of train, val and test, with their records in memory, so that tests can change copies of them."""
    job, _ = prepared
    recipe = EncodingRecipe(SETTINGS)
    out = {}
    for split in ("train", "val", "test"):
        opening = "a test" if split == "test" else ""
        rows = load_split(recipe, job.workspace, split, schema=BRAIN.schema(), opening=opening, workers=1, say=str)
        out[split] = [rows[number] for number in range(len(rows))]
    return out


@pytest.fixture(scope="module")
def constants(recipe, splits):
    """Of the module's own fixture `recipe`."""
    return recipe.fit_constants(splits["train"])


@pytest.fixture
def model(recipe, constants):
    torch.manual_seed(0)
    return recipe.build(constants).eval()


def changed(rows: Sequence[Row], spans: Sequence[tuple[int, int]]) -> list[Row]:
    """The rows with random values at some volumes of all files of BOLD."""
    known = {}
    random = np.random.default_rng(0)
    out = []
    for row in rows:
        path = row.values[BOLD_PATH]
        if path not in known:
            record = {name: np.array(row.records[BOLD_PATH][name]) for name in row.records[BOLD_PATH]}
            for begin, end in spans:
                record["data"][begin:end] = random.integers(-30_000, 30_000, record["data"][begin:end].shape)
            known[path] = record
        out.append(replace(row, records={**row.records, BOLD_PATH: known[path]}))
    return out


def halved(rows: Sequence[Row]) -> list[Row]:
    """Each row as two blocks: an interval needs four, and the laboratory's test has two."""
    out = []
    for row in rows:
        begin, end = row.values["begin"], row.values["end"]
        middle = (begin + end) // 2
        out += [replace(row, values={**row.values, "begin": a, "end": b}) for a, b in ((begin, middle), (middle, end))]
    return out
