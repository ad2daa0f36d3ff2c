"""A folder of captures and guitar becomes manifests; what cannot be used is listed, and the rest is used."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile

from training.data.schema import SPLITS
from training.domain import Job
from training.domains.amp.guitar import DI, clip, decode
from training.domains.amp.prepare import prepare
from training.errors import DataError, UsageError
from training.export.layout import safe_item
from training.workspace import Workspace

from . import making


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def run(tmp_path, lines):
    """prepare() with options; returns the summary."""
    workspace = Workspace(tmp_path / "out")

    def call(**options):
        given = {"captures": tmp_path / "captures", "di": tmp_path / "di.wav", "only": None, "sample_rate": None,
                 "val_split": 0.2}  # fmt: skip
        prepare(Job(workspace, given | options, workers=1, say=lines.append))
        return json.loads((workspace.manifests / "summary.json").read_text())

    making.guitar(tmp_path / "di.wav")
    return call


def rows(tmp_path, name: str) -> dict[str, list[dict]]:
    folder = tmp_path / "out" / "data" / "manifests"
    paths = {split: folder / f"{name}_{split}.jsonl" for split in SPLITS}
    return {
        split: [json.loads(line) for line in path.read_text().splitlines()]
        for split, path in paths.items()
        if path.is_file()
    }


def quarantined(tmp_path) -> dict[str, str]:
    text = (tmp_path / "out" / "data" / "manifests" / "quarantine.jsonl").read_text()
    return {(one := json.loads(line))["path"].rsplit("/", 1)[1]: one["reason"] for line in text.splitlines()}


def test_twelve_files_of_which_three_are_broken_and_one_is_a_double(tmp_path, run, lines):
    folder = tmp_path / "captures"
    for number, kind in enumerate(("a1", "a1", "a2", "lstm", "proteus", "container", "a2", "lstm")):
        making.save(folder / "pack", f"{kind}_{number}", making.ALL[kind](seed=number))
    making.save(folder, "double", making.a1(seed=0) | {"metadata": {}})
    making.save(folder, "short", making.content(making.a1(seed=20))[:900])
    making.save(folder, "wild", making.a1(seed=21) | {"weights": [1e38] * 10})
    making.save(folder, "foreign.json", b'{"songs": []}')
    summary = run()
    assert len(summary["items"]) == 8
    reasons = quarantined(tmp_path)
    assert set(reasons) - {"a1_0.nam", "double.nam"} == {"short.nam", "wild.nam", "foreign.json"}
    assert reasons["short.nam"].startswith("truncated") and "1e+38" in reasons["wild.nam"]
    (double,) = (reason for name, reason in reasons.items() if name in ("a1_0.nam", "double.nam"))
    assert double.startswith("the same weights as")
    assert any("8 captures, 4 quarantined" in line for line in lines)
    of = rows(tmp_path, f"amp/{summary['items'][0]}")
    assert (len(of["train"]), len(of["val"])) == (4, 1), "six clips: one held out, and one between unused"
    assert max(row["end"] for row in of["train"]) < min(row["begin"] for row in of["val"])


def test_the_same_data_again_changes_no_file(tmp_path, run, lines):
    making.save(tmp_path / "captures", "one", making.a1())
    run()
    files = {path: path.read_bytes() for path in (tmp_path / "out" / "data").rglob("*") if path.is_file()}
    lines.clear()
    run()
    assert {path: path.read_bytes() for path in files} == files
    assert any("unchanged in" in line for line in lines)


def test_any_file_name_becomes_the_name_of_a_run(tmp_path, run):
    """Runs, checkpoints and exports are folders of these names, which are also words of commands."""
    names = ("-rf", "golden", "a b", "a_b", "Überdrive \"hot\" 🎸", "五月", "new\nline", "x" * 240)
    for number, name in enumerate(names):
        making.save(tmp_path / "captures", f"{name}.nam", making.a1(seed=number))
    items = run()["items"]
    assert {"rf", "golden_2", "a_b", "a_b_2", "berdrive__hot", "new_line", "x" * 80} < set(items) and len(items) == 8
    assert all(item.isascii() and safe_item(item) for item in items)


def test_the_file_that_marks_a_folder_as_synthetic_is_no_refused_capture(tmp_path, run):
    making.save(tmp_path / "captures", "one", making.a1())
    making.save(tmp_path / "captures", "synthetic.json", b'{"synthetic": true}')
    summary = run()
    assert summary["items"] == ["one"] and summary["quarantined"] == [] and summary["synthetic"]


def test_only_names_captures_by_a_pattern(tmp_path, run):
    for number, name in enumerate(("JCM 800", "JCM 900", "Twin")):
        making.save(tmp_path / "captures", name, making.a1(seed=number))
    assert run(only="jcm*")["items"] == ["JCM_800", "JCM_900"]
    with pytest.raises(UsageError, match="--only x\\*: none of the 3 files"):
        run(only="x*")


def test_a_given_rate_is_that_of_captures_without_one(tmp_path, run, lines):
    making.save(tmp_path / "captures", "p", making.proteus())
    making.save(tmp_path / "captures", "n", making.a1())
    assert {name: of["rate"] for name, of in run(sample_rate=96_000)["captures"].items()} == {"p": 96_000, "n": 48_000}
    assert rows(tmp_path, "amp/p")["val"][0]["rate"] == 96_000
    assert run()["captures"]["p"]["rate"] == 44_100
    assert any("no sample rate inside: 44,100 Hz" in line for line in lines)
    with pytest.raises(UsageError, match="--sample-rate is in Hz"):
        run(sample_rate=44.1)


def test_without_a_usable_capture_every_reason_is_in_the_error(tmp_path, run):
    making.save(tmp_path / "captures", "silent", making.a1(arrays=[making.a1_array(1, 2, 1, [1])]))
    document = making.a1(arrays=[making.a1_array(1, 2, 1, [1])])
    making.save(tmp_path / "captures", "silent", document | {"weights": [0.0] * len(document["weights"])})
    loud = making.a1(seed=5)
    loud["config"]["head_scale"] = loud["weights"][-1] = 1e5
    making.save(tmp_path / "captures", "loud", loud)
    making.save(tmp_path / "captures", "foreign.json", b"{}")
    with pytest.raises(DataError) as error:
        run()
    text = str(error.value)
    assert "None of the 3 files" in text and "no capture: an empty object" in text
    assert "silent.nam: is silent" in text and "loud.nam: its output for a tone reaches" in text
    assert error.value.exit_code == 3


def test_a_capture_that_never_settles_is_used_and_its_drift_reported(tmp_path, run, lines):
    """An LSTM that forgets nothing and adds a little with every sample."""
    document = making.lstm(hidden=1, layers=1)
    document["weights"] = [0.0] * len(document["weights"])
    rows_ = np.zeros((4, 2))
    rows_[2, 0] = 0.01  # the new value follows the input
    document["weights"][:8] = rows_.reshape(-1).tolist()
    document["weights"][8:12] = [5.0, 20.0, 5e-6, 5.0]  # enter, forget nothing, add, leave
    document["weights"][14:16] = [1.0, 0.0]
    making.save(tmp_path / "captures", "drifts", document)
    making.save(tmp_path / "captures", "settles", making.a1())
    summary = run()
    assert any("it drifts" in note for note in summary["captures"]["drifts"]["notes"])
    assert not any("drift" in note for note in summary["captures"]["settles"]["notes"])


def test_without_guitar_plucks_are_made_once_and_marked(tmp_path, run, lines):
    making.save(tmp_path / "captures", "one", making.a1())
    summary = run(di=None)
    (path,) = summary["di"]
    assert "plucks" in path and summary["di"][path]["seconds"] == 60
    before = (tmp_path / "out" / "data" / "plucks").stat().st_mtime_ns
    run(di=None)
    assert (tmp_path / "out" / "data" / "plucks").stat().st_mtime_ns == before
    assert sum("synthetic plucks" in line for line in lines) == 1


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: making.guitar(path, seconds=1.5), "1.50 s; at least 2 s are needed"),
        (lambda path: making.guitar(path, peak=0.0), "is silent"),
        (lambda path: soundfile.write(path, np.clip(3 * np.sin(np.arange(200_000) / 9), -1, 1), 48_000), "is clipped"),
        (lambda path: soundfile.write(path, np.full(200_000, np.nan), 48_000, "FLOAT"), "not finite"),
        (lambda path: path.write_bytes(b"RIFF0000WAVEjunk"), "cannot be decoded"),
    ],
)
def test_guitar_that_cannot_be_used_is_refused(make, reason, tmp_path, run):
    make(tmp_path / "di.wav")
    making.save(tmp_path / "captures", "one", making.a1())
    with pytest.raises(DataError, match=reason):
        run()


def test_one_bad_recording_of_a_folder_is_left_out(tmp_path, run):
    folder = tmp_path / "recordings"
    folder.mkdir()
    making.guitar(folder / "good.wav", seconds=4)
    (folder / "bad.wav").write_bytes(b"nothing")
    making.save(tmp_path / "captures", "one", making.a1())
    assert [path.rsplit("/", 1)[1] for path in run(di=folder)["di"]] == ["good.wav"]
    assert "cannot be decoded" in quarantined(tmp_path)["bad.wav"]


class Row:
    def __init__(self, record, begin, end):
        self.records, self.values = {"di_path": record}, {"begin": begin, "end": end}


def test_a_clip_is_the_left_channel_at_the_rate_of_the_capture(tmp_path):
    """A resampled clip is that part of the resampled recording: its edges do not ring."""
    path = making.guitar(tmp_path / "a.wav", seconds=3, rate=44_100, channels=2)
    record = decode(path)
    assert record["channels"] == 2 and np.abs(record["sound"]).max() > 0.4, "the right channel is silent"
    time = np.arange(48_000) / 48_000 + 1
    expected = 0.5 * np.sin(2 * np.pi * 196 * time) * np.exp(-3 * (time % 0.5))
    got = clip(Row(record, 1, 2), 48_000)
    assert got.shape == (48_000,) and got.dtype == np.float32
    inside = np.abs((time % 0.5) - 0.25) < 0.24  # away from the jumps of the envelope
    assert np.abs(got - expected)[inside].max() < 2e-3
    assert np.abs(clip(Row(record, 0, 1), 44_100) - record["sound"][:44_100]).max() == 0
    assert len(clip(Row(record, 2, 3), 48_000)) == 48_000


def test_decoders_run_in_the_sandbox_with_a_version():
    assert DI.version and DI.function is decode
