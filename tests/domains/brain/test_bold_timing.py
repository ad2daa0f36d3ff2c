"""The TR: flag before sidecar before header, conflicts reported, nonsense refused."""

from __future__ import annotations

import json
import math

import pytest

from training.domains.brain.bold.timing import repetition
from training.errors import DataError, UsageError


@pytest.fixture
def sidecar(tmp_path):
    path = tmp_path / "sub-01_bold.json"
    path.write_text(json.dumps({"RepetitionTime": 2.0}))
    return path


def test_the_flag_counts_before_the_sidecar_and_that_before_the_header(sidecar):
    assert repetition(1.5, sidecar, 3.0, 3.0).seconds == 1.5
    assert repetition(None, sidecar, 3.0, 3.0).seconds == 2.0
    assert repetition(None, None, 3.0, 3.0).seconds == 3.0


def test_a_conflict_names_both_sources(sidecar):
    notes = repetition(None, sidecar, 1.0, 1.0).notes
    assert notes == ("TR: sub-01_bold.json gives 2 s, header gives 1 s; sub-01_bold.json is used.",)
    assert len(repetition(1.5, sidecar, 1.0, 1.0).notes) == 2
    assert repetition(2.0, sidecar, 2.001, 2.001).notes == ()


def test_milliseconds_marked_as_seconds_are_refused_with_the_remedy():
    with pytest.raises(DataError, match=r"2000 s by the header.*give --tr 2\b"):
        repetition(None, None, 2000.0, 2000.0)


def test_a_header_without_a_unit_counts_only_if_it_is_a_usual_tr():
    assert repetition(None, None, math.nan, 1.5).seconds == 1.5
    with pytest.raises(DataError, match=r"2000.*without a unit.*--tr"):
        repetition(None, None, math.nan, 2000.0)
    with pytest.raises(DataError, match="--tr"):
        repetition(None, None, 0.0, 0.0)


def test_a_flag_out_of_range_is_a_wrong_usage():
    with pytest.raises(UsageError, match=r"--tr 1500 .*in seconds"):
        repetition(1500.0, None, 1.5, 1.5)


def test_a_damaged_sidecar_is_named(tmp_path):
    path = tmp_path / "a.json"
    for content in ("{", '{"RepetitionTime": "2"}', "[]"):
        path.write_text(content)
        with pytest.raises(DataError, match=r"a\.json"):
            repetition(None, path, 1.5, 1.5)
