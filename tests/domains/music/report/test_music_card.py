"""Music's part of the model card."""

from __future__ import annotations

import yaml

from tests.domains.music.report import job
from training.registry import domain
from training.report.card import write_card


def test_the_card_describes_music_and_its_families(tmp_path):
    _, front, text = write_card(job.make(tmp_path, synthetic=False)).read_text(encoding="utf-8").split("---\n", 2)
    front = yaml.safe_load(front)
    assert front["tags"] == ["music", "audio", "midi", "onnx", "athanor"]
    (result,) = front["model-index"][0]["results"]
    assert result["task"]["name"] == "sound and emotion to a cloud of particles"
    assert result["dataset"]["name"] == "Held-out songs"
    assert "to a cloud of 1,200 particles" in text and "- The emotion is an input." in text
    assert "the owner's music; not published" in text and "the rights in the music" in text


def test_every_family_has_a_text():
    music = domain("music")
    for family in music.families:
        text = music.card(family.name)
        assert text.about.endswith(".") and text.task and text.limits
    assert music.card("another") is None
