"""A complete job on small captures of three kinds and a broken one, run once; each test looks at its result."""

from __future__ import annotations

import json

import pytest
import soundfile

from training import cli
from training.registry import domains
from training.runner.options import parse
from training.runner.plan import plan_of

from . import making

ITEMS = ("A1", "Both", "Proteus")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    room = tmp_path_factory.mktemp("amp")
    captures = room / "captures"
    # loud enough to alias: the input is multiplied by 30
    document = making.a1(seed=3)
    document["weights"][:4] = [30 * value for value in document["weights"][:4]]
    making.save(captures, "A1", document)
    making.save(captures, "Both", making.container(seed=5))
    making.save(captures, "Proteus", making.proteus(seed=7))
    making.save(captures, "broken", making.content(making.a1())[:700])
    making.guitar(room / "di.wav", seconds=8)
    words = ["amp", "--captures", str(captures), "--di", str(room / "di.wav"), "--cpu", "--preset", "debug", "--out",
             str(room / "out")]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        for step in plan_of(parse(words, domains())).steps:
            if step.name != "doctor":
                assert cli.main(list(step.command[2:])) == 0, step.name
    return room / "out"


def of(out, name: str):
    return json.loads((out / name).read_text(encoding="utf-8"))


def test_every_capture_is_a_run_and_the_broken_one_is_named(out):
    runs = of(out, "exports/receipt.json")["families"]
    assert set(runs) == {f"amp/{item}" for item in ITEMS}
    assert [entry["synthetic"] for entry in runs.values()] == [False] * 3
    assert "truncated" in (out / "data/manifests/quarantine.jsonl").read_text()
    assert all(list((out / "runs/amp" / item).iterdir()) for item in ITEMS)


def test_every_export_has_a_file_for_players_onnx_and_costs(out):
    for item, ending in zip(ITEMS, (".nam", ".nam", ".json"), strict=True):
        folder = out / "exports" / item
        files = {path.name for path in folder.iterdir()}
        assert {"amp_stream.onnx", "cost.json"} <= files
        assert files & {f"{item}{ending}", f"{item}.aa{ending}"}
    assert (out / "exports/Both/amp_stream_1.onnx").is_file()


def test_an_export_that_was_changed_does_not_verify(out, capsys):
    (path,) = (out / "exports/A1").glob("A1*.nam")
    before = path.read_bytes()
    try:
        path.write_bytes(before.replace(b"0.5.4", b"0.7.0", 1))
        assert cli.main(["verify", str(out / "exports")]) == 4
        assert path.name in capsys.readouterr().err
    finally:
        path.write_bytes(before)


def test_the_report_lets_hear_before_and_after_and_lists_the_captures(out):
    page = (out / "exports/report.html").read_text(encoding="utf-8")
    for expected in ('id="listen"', 'id="fretboard"', 'id="cpu"', 'id="captures"', "data:audio/flac", "truncated"):
        assert expected in page, expected
    assert "Captures have owners" in (out / "exports/README.md").read_text(encoding="utf-8")


def test_render_writes_before_after_and_difference_in_24_bits(out, capsys):
    room = out.parent
    words = ["render", "amp", "--capture", str(room / "captures/A1.nam"), "--di", str(room / "di.wav"),
             "--out", str(room / "sounds"), "--job", str(out)]  # fmt: skip
    assert cli.main(words) == 0
    for side in ("before", "after", "difference"):
        about = soundfile.info(room / "sounds" / f"{side}.wav")
        assert (about.subtype, about.samplerate, about.frames) == ("PCM_24", 48_000, 8 * 48_000)
    capsys.readouterr()
    making.save(room, "other", making.a1(seed=99))
    assert cli.main([*words[:3], str(room / "other.nam"), *words[4:]]) == 2
    assert "other.nam has not been trained in" in capsys.readouterr().err
