"""The report's sections of captures, from the files of a job."""

from __future__ import annotations

import json

import numpy as np
import pytest

from training.domains.amp.captures import parse_capture
from training.domains.amp.exports.samples import write_samples
from training.domains.amp.report.sections import sections
from training.report.page import write_report
from training.workspace import Workspace

from . import making


def judged(offset: float, instead: bool = False) -> dict:
    tones = [
        {"note": note, "level": level, "f0": 440 * 2 ** ((note - 69) / 12),
         "nmr": {"teacher": 20.0 + offset, "student": -12.0 + offset + note / 50, "T_2": 5.0, "T_4": -9.0},
         "hesr": {"teacher": None, "student": -25.0, "T_2": -20.0}}
        for level in (-20.0, 0.0)
        for note in range(40, 60)
    ]  # fmt: skip
    levels = [one | {"level": level} for level in (-40.0, -20.0, 0.0) for one in tones[:2]]
    return {
        "title": "Anti-aliased capture", "synthetic": False, "rows": {"train": 4, "held_out": 1}, "metrics": {},
        "verdict": {"word": "weak", "why": ["beats the original"]},
        "amp": {"rate": 48_000, "length": 4099, "tones": tones, "levels": levels, "clips": [],
                "oversample_instead": instead},
    }  # fmt: skip


@pytest.fixture
def workspace(tmp_path):
    place = Workspace(tmp_path)
    place.exports.mkdir()
    place.manifests.mkdir(parents=True)
    families = {"amp/quiet": judged(0), "amp/loud & clear": judged(9, instead=True), "curve/bar": {"title": "x"}}
    (place.exports / "metrics.json").write_text(json.dumps({"families": families}))
    return place


def by_name(workspace):
    return {one.name: one for one in sections(workspace)}


def test_the_capture_with_the_most_noise_comes_first(workspace):
    facts = by_name(workspace)["fretboard"].facts
    assert [one["item"] for one in facts["captures"]] == ["loud & clear", "quiet"]
    first = facts["captures"][0]
    assert first["oversample"] and first["before"] == pytest.approx(39) and len(first["charts"]) == 6
    by_level = first["charts"][-1]
    assert "by level" in by_level.title and [len(line.dots) for line in by_level.lines] == [3, 3, 3, 2]
    assert [line.name for line in first["charts"][0].lines] == ["before", "after", "2x oversampling",
                                                               "audible above -10 dB"]  # fmt: skip


def test_players_are_embedded_for_the_captures_that_were_exported(workspace):
    teacher, student = (parse_capture(making.content(making.a1(seed=seed))).network for seed in (0, 1))
    write_samples(teacher, student, [], workspace.exports / "quiet" / "samples" / "amp")
    (heard,) = by_name(workspace)["listen"].facts["captures"]
    (sweep,) = heard["sounds"]
    assert set(sweep["sides"]) == {"before", "after", "difference"} and len(sweep["pictures"]) == 2
    assert all(uri.startswith("data:audio/flac;base64,") for uri in sweep["sides"].values())


def test_the_page_escapes_names_and_shows_costs(workspace, monkeypatch):
    folder = workspace.exports / "quiet"
    folder.mkdir(exist_ok=True)
    rows = [{"block": 64, "teacher": 0.02, "student": 0.02, "T_2": 0.041, "T_4": np.float64(0.08)}]
    (folder / "cost.json").write_text(json.dumps({"rows": rows}))
    text = write_report(workspace).read_text()
    assert "loud &amp; clear" in text and "loud & clear" not in text
    assert "0.0410" in text and 'id="cpu"' in text and "Oversampling by 2 is the better choice" in text


def test_a_smaller_network_is_named_beside_what_playing_it_costs(workspace):
    families = {"amp/quiet": judged(0), "amp/small": judged(0)}
    families["amp/small"]["amp"]["share"] = 0.28
    (workspace.exports / "metrics.json").write_text(json.dumps({"families": families}))
    rows = [{"block": 512, "teacher": 0.02, "student": 0.012, "T_2": 0.041, "T_4": 0.08}]
    for item in ("quiet", "small"):
        (workspace.exports / item).mkdir()
        (workspace.exports / item / "cost.json").write_text(json.dumps({"rows": rows}))
    text = " ".join(write_report(workspace).read_text().split())
    sentence = "small after training is a smaller network</strong>, with 28 % of the weights: 0.60 times the processor"
    assert sentence in text and "quiet after training is" not in text


def test_before_anything_is_there_no_section_is(tmp_path):
    assert by_name(Workspace(tmp_path)) == {}
