"""The sealed test split: it is opened only with a purpose, and each opening is recorded before its rows are read."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest

from tests.data.schemas import PARTS
from tests.engine import toy
from training.data import sealed
from training.errors import DataError, HostError, UsageError
from training.stages.splits import load_split
from training.workspace import Workspace


class Reader(toy.ToyRecipe):
    """Rows without files."""

    def encoders(self):
        return {}


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    workspace = Workspace(tmp_path)
    workspace.manifests.mkdir(parents=True)
    for split in ("train", "val", "test"):
        workspace.manifest("toy", split).write_text(f'{{"id": "{split}"}}\n')
    return workspace


def opened(workspace, **options):
    return load_split(toy.recipe(Reader), workspace, "test", schema=PARTS, **options)


def test_it_does_not_open_without_a_purpose(workspace):
    with pytest.raises(UsageError, match="sealed"):
        opened(workspace)
    assert sealed.openings(workspace) == []
    for split in ("train", "val"):
        assert len(load_split(toy.recipe(Reader), workspace, split, schema=PARTS)) == 1
    assert sealed.openings(workspace) == []
    with pytest.raises(ValueError, match="no split"):
        load_split(toy.recipe(Reader), workspace, "tset", schema=PARTS)


def test_every_opening_is_recorded(workspace):
    begin = datetime.now(UTC).replace(microsecond=0)
    assert [row.values["id"] for row in opened(workspace, opening="evaluate", checkpoint_sha256="ab")] == ["test"]
    opened(workspace, opening="once more")
    first, second = sealed.openings(workspace)
    assert (first.run, first.checkpoint_sha256, first.purpose) == ("toy", "ab", "evaluate")
    assert (second.checkpoint_sha256, second.purpose) == ("", "once more")
    assert begin <= datetime.fromisoformat(first.time) <= datetime.now(UTC)
    assert re.fullmatch("[0-9a-f]{64}", first.data_digest) and first.data_digest == second.data_digest
    workspace.manifest("toy", "test").write_text('{"id": "test", "level": 2}\n')
    opened(workspace, opening="other data")
    assert sealed.openings(workspace)[2].data_digest != first.data_digest


def test_an_opening_by_several_ranks_is_recorded_only_by_rank_zero(workspace, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    opened(workspace, opening="evaluate")
    assert sealed.openings(workspace) == []


def test_rows_are_not_read_if_the_opening_cannot_be_recorded(workspace):
    (workspace.root / "runs").write_text("a file where the folder should be")
    with pytest.raises(HostError, match="test_openings"):
        opened(workspace, opening="evaluate")


def test_the_run_of_an_item_reads_the_manifests_of_that_item(workspace):
    recipe = toy.recipe(Reader)
    recipe.item = "one"
    path = workspace.manifests / "toy" / "one_test.jsonl"
    path.parent.mkdir()
    path.write_text('{"id": "of one"}\n')
    rows = load_split(recipe, workspace, "test", schema=PARTS, opening="evaluate")
    assert [row.values["id"] for row in rows] == ["of one"]
    assert sealed.openings(workspace)[0].run == "toy/one"


def test_an_opening_after_an_incomplete_line_is_recorded_and_the_line_is_reported(workspace):
    opened(workspace, opening="first")
    path = workspace.root / "runs" / "test_openings.jsonl"
    path.write_bytes(path.read_bytes() + b'{"time": "20')
    opened(workspace, opening="second")
    lines = path.read_text().splitlines()
    assert [json.loads(lines[n])["purpose"] for n in (0, 2)] == ["first", "second"]
    with pytest.raises(DataError, match=r"test_openings\.jsonl:2 is damaged"):
        sealed.openings(workspace)
