"""A complete job on captures of three kinds and a broken one, run once; each test looks at its result."""

from __future__ import annotations

import json

import pytest
import soundfile
import torch

from training import cli
from training.registry import domains
from training.runner.options import parse
from training.runner.plan import plan_of

from . import making, small

ITEMS = {"Both": ".nam", "Proteus": ".json", "WaveNet": ".nam"}
#: Updates that help a network whose gain was folded; the others hardly alias, and are handed back as they were.
SETTINGS = ("training.max_steps=12", "scheduler.warmup_steps=1", "optim.lr=3e-3", "data.batch_size=16",
            "material.samples=96", "material.lowest=60", "material.highest=108", "material.quietest=-30",
            "loss.floor_db=-12", "loss.nmr=0.04", "loss.esr=2", "training.eval_every=2")  # fmt: skip


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    room = tmp_path_factory.mktemp("amp")
    captures = room / "captures"
    making.save(captures, "WaveNet", small.fitted())
    making.save(captures, "Both", making.container(seed=5))
    making.save(captures, "Proteus", making.proteus(seed=7))
    making.save(captures, "broken", making.content(making.a1())[:700])
    making.guitar(room / "di.wav", seconds=8)
    words = ["amp", "--captures", str(captures), "--di", str(room / "di.wav"), "--cpu", "--preset", "debug",
             "--out", str(room / "out")]  # fmt: skip
    for setting in SETTINGS:
        words += ["--set", setting]
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)  # the variable is read once, and an LSTM's steps are too short for two
        for step in plan_of(parse(words, domains())).steps:
            if step.name != "doctor":
                assert cli.main(list(step.command[2:])) == 0, step.name
    torch.set_num_threads(threads)
    return room / "out"


def of(out, name: str):
    return json.loads((out / name).read_text(encoding="utf-8"))


def test_every_capture_is_a_run_and_the_broken_one_is_named_with_its_reason(out):
    runs = of(out, "exports/receipt.json")["families"]
    assert set(runs) == {f"amp/{item}" for item in ITEMS}
    assert [entry["synthetic"] for entry in runs.values()] == [False] * 3
    (bad,) = map(json.loads, (out / "data/manifests/quarantine.jsonl").read_text().splitlines())
    assert bad["path"].endswith("broken.nam") and "truncated" in bad["reason"]
    assert all(list((out / "runs/amp" / item).iterdir()) for item in ITEMS)


def test_a_capture_that_was_helped_is_written_and_the_others_are_handed_back_as_they_were(out):
    for item, ending in ITEMS.items():
        folder = out / "exports" / item
        files = {path.name for path in folder.iterdir()}
        assert {"amp_stream.onnx", "cost.json"} <= files
        trained, original = f"{item}.aa{ending}" in files, f"{item}{ending}" in files
        assert (trained, original) == (item == "WaveNet", item != "WaveNet"), files
        if original:
            given = (out.parent / "captures" / f"{item}{ending}").read_bytes()
            assert (folder / f"{item}{ending}").read_bytes() == given
    assert (out / "exports/Both/amp_stream_1.onnx").is_file()
    about = of(out, "exports/WaveNet/WaveNet.aa.nam")["metadata"]["athanor"]
    assert about["excess_after_db"] < about["excess_before_db"] and about["hesr_db"] < -15


def test_an_export_that_was_changed_does_not_verify(out, capsys):
    path = out / "exports/WaveNet/WaveNet.aa.nam"
    before = path.read_bytes()
    try:
        path.write_bytes(before.replace(b"0.5.4", b"0.7.0", 1))
        assert cli.main(["verify", str(out / "exports")]) == 4
        assert path.name in capsys.readouterr().err
    finally:
        path.write_bytes(before)


def test_the_report_lets_hear_before_and_after_and_lists_the_worst_capture_first(out):
    page = (out / "exports/report.html").read_text(encoding="utf-8")
    for expected in ('id="listen"', 'id="fretboard"', 'id="cpu"', 'id="captures"', "data:audio/flac", "truncated"):
        assert expected in page, expected
    section = page[page.index('id="fretboard"') :]
    # the one with a folded gain has the most noise left, though it was helped
    assert section.index("WaveNet") < min(section.index(item) for item in ("Both", "Proteus"))
    assert "Captures have owners" in (out / "exports/README.md").read_text(encoding="utf-8")


def test_render_writes_before_after_and_difference_in_24_bits(out, capsys):
    room = out.parent
    words = ["render", "amp", "--capture", str(room / "captures/WaveNet.nam"), "--di", str(room / "di.wav"),
             "--out", str(room / "sounds"), "--job", str(out)]  # fmt: skip
    assert cli.main(words) == 0
    for side in ("before", "after", "difference"):
        about = soundfile.info(room / "sounds" / f"{side}.wav")
        assert (about.subtype, about.samplerate, about.frames) == ("PCM_24", 48_000, 8 * 48_000)
    capsys.readouterr()
    making.save(room, "other", making.a1(seed=99))
    assert cli.main([*words[:3], str(room / "other.nam"), *words[4:]]) == 2
    assert "other.nam has not been trained in" in capsys.readouterr().err
