"""Music's sections of the report: pieces, clouds, emotions, the corpus."""

from __future__ import annotations

import base64
import json
import re

import numpy as np

from tests.domains.music.report import job
from tests.report.reading import assert_markup_is_text, read
from training.domains.music.report.samples import packed
from training.registry import domain
from training.workspace import Workspace


def test_the_page_shows_pieces_clouds_emotions_the_corpus_and_doubtful_labels(tmp_path):
    text = read(job.make(tmp_path)).text
    for expected in (
        "happy 4", "Quarantined files: 1", "midi: trained on, held out 4, 2", "tempo % +3 -12", "sad happy It is fast.",
        "Scores without a recording: 1", "The preview plays its beginning.", "Target: from its notes",
        "12 held-out songs; 1,044 were trained on. The difference to a baseline is taken song by song.",
    ):  # fmt: skip
        assert expected in text, expected
    assert "Spectocloud: effect of each emotion" in text and "MIDI generator: effect of each emotion" not in text


def test_pieces_and_clouds_follow_the_verdict_and_the_demo_is_explained_before_it(tmp_path):
    workspace = job.make(tmp_path)
    ids = [a["id"] for t, a in read(workspace).elements if t == "section"]
    assert ids == [
        "verdict",
        "listen",
        "clouds",
        "cost",
        "curves",
        "metrics",
        "emotions",
        "corpus",
        "exports",
        "receipt",
    ]
    source = (workspace.exports / "report.html").read_text()
    body = source[source.index("<body") :]
    assert body.index("<h1>") < body.index("Its music was composed by rules") < body.index('id="verdict"')


def test_names_from_files_are_escaped(tmp_path):
    workspace = job.make(tmp_path)
    # Scripts: the clouds' data and music's script. Escaped texts: song, file, emotion, baseline, meaning, why, note.
    source = assert_markup_is_text(workspace, scripts=2, least=12)
    data = re.search(r'id="cloud-data">(.*?)</script>', source, re.S)
    assert json.loads(data[1])[0]["song"] == job.EVIL


def test_the_page_loads_no_other_resources(tmp_path):
    for tag, attributes in read(job.make(tmp_path)).elements:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            value = attributes.get(name, "#")
            assert value.startswith(("#", "data:")), (tag, name, value[:60])


def test_pairs_that_were_aligned_are_counted_and_listed(tmp_path):
    text = read(job.make(tmp_path)).text
    assert "pairs read through a time map 1" in text
    assert "4.00 s late" in text and "too short" in text


def test_a_damaged_piece_is_named_and_the_rest_is_shown(tmp_path):
    workspace = job.make(tmp_path)
    (workspace.exports / "samples" / "midi_generator" / "happy.mid").write_bytes(b"no MIDI")
    (workspace.manifests / "audit.json").write_text("{")
    text = read(workspace).text
    assert "happy.mid" in text and "audit.json cannot be read" in text
    assert "Target: from its notes" in text and "happy 4" in text


def test_sections_without_data_are_left_out(tmp_path):
    assert domain("music").sections(Workspace(tmp_path)) == ()
    workspace = Workspace(tmp_path)
    workspace.manifests.mkdir(parents=True)
    (workspace.manifests / "summary.json").write_text(json.dumps({"audio_files": 3, "emotions": {"sad": 3}}))
    (workspace.manifests / "midi_train.jsonl").touch()
    reader = read(workspace)
    assert "recordings 3" in reader.text and "sad 3" in reader.text
    assert not {"listen", "clouds", "emotions"} & {a.get("id") for _, a in reader.elements}


def test_clouds_are_packed_to_thirteen_bytes_per_particle_and_can_be_unpacked():
    cloud = np.random.default_rng(1).random((1200, 10)).astype(np.float32)
    raw = base64.b64decode(packed(cloud, np.zeros(3), np.ones(3)))
    assert len(raw) == 13 * 1200
    places = np.frombuffer(raw[: 6 * 1200], "<u2").reshape(-1, 3) / 65535
    colours = np.frombuffer(raw[6 * 1200 : 10 * 1200], np.uint8).reshape(-1, 4) / 255
    assert np.abs(places - cloud[:, :3]).max() < 1e-4 and np.abs(colours - cloud[:, 3:7]).max() < 3e-3
