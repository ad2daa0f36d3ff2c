"""A complete job on captures of three kinds and a broken file, run once; each test looks at its result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training import cli
from training.domains.amp.captures import read_capture
from training.registry import domains
from training.runner.options import parse
from training.runner.plan import plan_of

from . import making, small

SETTINGS = ("training.max_steps=12", "training.epochs=3", "training.eval_every=3", "optim.lr=3e-3",
            "scheduler.warmup_steps=1", "material.lowest=70", "loss.floor_db=-12", "logging.tensorboard=false",
            "lstm.warmup=256", "judging.clips=1")  # fmt: skip
FILES = {"lead": "lead.nam", "pedal": "pedal.json", "two_sizes": "two_sizes.nam"}


def driven() -> dict[str, Any]:
    """GuitarML's file of an LSTM with an input gain folded in: it aliases."""
    document = making.proteus(skip=0)
    state = document["state_dict"]
    state["rec.weight_ih_l0"] = (np.float32(20) * np.array(state["rec.weight_ih_l0"], np.float32)).tolist()
    return document


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Path:
    """A folder with captures/ and the workspace out/."""
    place = tmp_path_factory.mktemp("amp")
    made = {"lead": small.fitted(), "pedal": driven(), "two_sizes": making.container(),
            "short": making.content(making.a1())[:900]}  # fmt: skip
    for name, content in made.items():
        making.save(place / "captures", name, content)
    making.guitar(place / "di.wav", seconds=4.0)
    words = ["amp", "--cpu", "--preset", "debug", "--captures", str(place / "captures"), "--di", str(place / "di.wav"),
             "--out", str(place / "out"), *(word for one in SETTINGS for word in ("--set", one))]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setattr("training.export.coreml.installed", lambda: False)  # CoreML takes a third of the time
        for step in plan_of(parse(words, domains())).steps:
            if step.name not in ("doctor", "budget"):
                assert cli.main(list(step.command[2:])) == 0, step.name
    return place


def of(job: Path, name: str) -> Any:
    return json.loads((job / "out" / name).read_text(encoding="utf-8"))


def test_good_captures_have_manifests_and_the_broken_one_its_reason(job):
    summary = of(job, "data/manifests/summary.json")
    assert summary["items"] == sorted(FILES)
    assert {name: about["networks"] for name, about in summary["captures"].items()} == {
        "lead": 1, "pedal": 1, "two_sizes": 2}  # fmt: skip
    (line,) = (job / "out/data/manifests/quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["path"].endswith("short.nam") and json.loads(line)["reason"].startswith("truncated")
    for item in FILES:
        assert (job / f"out/data/manifests/amp/{item}_train.jsonl").stat().st_size


def test_each_capture_leaves_as_a_better_file_or_as_the_original_with_the_reason(job):
    families = of(job, "exports/receipt.json")["families"]
    assert set(families) == {f"amp/{item}" for item in FILES}
    for item, name in FILES.items():
        original, better = job / "captures" / name, f"{item}/{Path(name).stem}.aa{Path(name).suffix}"
        files = families[f"amp/{item}"]["files"]
        assert f"{item}/amp_stream.onnx" in files
        if item == "two_sizes":  # random weights, in which nothing can be mended in a dozen updates
            assert (job / "out/exports" / item / name).read_bytes() == original.read_bytes()
            assert better not in files
            assert "its aliases are" in json.dumps(files[f"{item}/{name}"])
            continue
        assert better in files and not (job / "out/exports" / item / name).exists()
        before, after = read_capture(original, 44_100), read_capture(job / "out/exports" / better, 44_100)
        assert after.format == before.format and after.version == before.version and after.same != before.same


def test_the_evaluation_names_what_is_better_and_the_report_has_the_worst_first(job):
    judged = of(job, "exports/metrics.json")["families"]
    excess = {item: judged[f"amp/{item}"]["metrics"]["excess_db"] for item in FILES}
    for item in ("lead", "pedal"):
        assert judged[f"amp/{item}"]["verdict"]["word"] == "weak"
        assert excess[item]["model"]["value"] < excess[item]["baselines"]["teacher"]["value"]
    assert judged["amp/lead"]["amp"]["oversample_instead"], "a dozen updates do less than twice the rate"
    page = (job / "out/exports/report.html").read_text(encoding="utf-8")
    assert "difference on the same notes" in page and "short.nam" in page
    fretboard = page[page.index('id="h-fretboard"') :]
    places = [fretboard.index(f"<h3>{item} ") for item in FILES]
    order = sorted(FILES, key=lambda item: -excess[item]["model"]["value"])
    assert [item for _, item in sorted(zip(places, FILES, strict=True))] == order


def test_a_capture_of_the_job_is_rendered_with_what_was_trained(job):
    sounds = job / "sounds"
    words = ["render", "amp", "--job", job / "out", "--out", sounds, "--capture", job / "captures/lead.nam", "--di",
             job / "di.wav", "--device", "cpu"]  # fmt: skip
    assert cli.main([str(word) for word in words]) == 0
    trained = sounds.with_name("file")
    words[words.index(sounds)] = trained
    words += ["--after", job / "out/exports/lead/lead.aa.nam"]
    assert cli.main([str(word) for word in words]) == 0
    for side in ("before", "after", "difference"):
        assert (sounds / f"{side}.wav").read_bytes() == (trained / f"{side}.wav").read_bytes(), side
    assert (sounds / "before.wav").read_bytes() != (sounds / "after.wav").read_bytes()
