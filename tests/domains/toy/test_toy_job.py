"""The toy domain uses the complete contract: the results of a job, and of running the same command again."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.toy_domain.readings import SCHEMA
from training import cli
from training.data.identity import leaking_ids
from training.data.sealed import openings
from training.engine.checkpoints.checkpoint_file import read
from training.errors import DataError
from training.registry import load_recipe
from training.stages.fan_out import quarantined
from training.stages.fork_server import ForkServer
from training.stages.splits import load_split
from training.workspace import Workspace

from .conftest import ROOT, Toy

DEVICES = ("ampere", "bar", "celsius")


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_a_job_exports_a_model_per_item_one_for_all_a_blend_and_one_receipt(done):
    receipt = done.json("exports/receipt.json")
    assert set(receipt["families"]) == {*(f"curve/{device}" for device in DEVICES), "boost"}
    assert receipt["synthetic"] is True
    assert {entry["title"] for entry in receipt["families"].values()} == {"Curve", "Boost"}  # pages add the item
    for device in DEVICES:
        files = receipt["families"][f"curve/{device}"]["files"]
        assert files[f"{device}/curve.cal"]["kind"] == "artefact" and f"{device}/curve.onnx" in files
    assert receipt["families"]["boost"]["files"]["boost.onnx"]["kind"] == "onnx"
    assert set(done.json("runs/blend.json")) == {"curve", "boost"}
    metrics = done.json("exports/metrics.json")["families"]
    assert all("test" in metrics[run] for run in receipt["families"])


def test_a_checkpoint_holds_trained_parameters_and_best_satisfies_the_constraint(done):
    content = read(done.out / "checkpoints" / "curve" / "bar" / "best.pt")
    assert content["frozen"]["tensors"] == 2 and not [name for name in content["model"] if name.startswith("features.")]
    assert set(content["metrics"]) >= {"val_loss", "worst", "peak"}
    assert (done.out / "checkpoints" / "curve" / "bar" / "checkpoint_step_16.pt").exists()


def test_the_report_and_the_card_have_the_domains_sections(done):
    page = (done.out / "exports" / "report.html").read_text(encoding="utf-8")
    assert "Weights of the families" in page and "ampere" in page and "sessions" in page
    texts = ("held-out sessions can measure", "--readings DIR</code>", 'id="verdict"', 'id="blend"', 'id="cost"')
    order = [page.index(text) for text in texts]
    assert order == sorted(order) and "a calibration curve for each of three devices" in page[: order[2]]
    card = (done.out / "exports" / "README.md").read_text(encoding="utf-8")
    assert "Corrects the readings of a device" in card
    assert "licence of the base model:\n\n- sines; licence: CC0-1.0 (LICENSE)\n" in card
    assert done.json("exports/receipt.json")["families"]["boost"]["base"] is None  # which has none


def test_the_console_explains_a_demo_before_its_verdict(fresh, done_once, capsys):
    """When its data is made, all of it; before each verdict, what it shows. A verdict on real data has no such text."""
    assert fresh.run("prepare") == 0
    output = capsys.readouterr().out
    for expected in (
        "this is a demo, on data made by rules", "What it shows:   A program made its data by rules",
        "a calibration curve for each of three devices", "./train_cuda.sh toy --readings DIR",
    ):  # fmt: skip
        assert expected in output, expected
    done = Toy(done_once)
    assert done.run("evaluate boost") == 0
    output = capsys.readouterr().out
    assert output.index("This is a demo. A program made its data by rules") < output.index("Boost: WEAK")


def test_the_same_command_does_nothing_twice_and_opens_the_sealed_split_no_second_time(done_once, capsys):
    done = Toy(done_once)  # in its place: manifests name files by absolute paths
    parts = [done.out / name for name in ("checkpoints", "runs/nodes")]
    before, opened = [contents(part) for part in parts], len(openings(Workspace(done.out)))
    assert opened == 4
    for name, command in done.steps().items():
        if name not in ("doctor", "verify", "budget"):
            assert cli.main(command) == 0, name
    assert [contents(part) for part in parts] == before
    assert len(openings(Workspace(done.out))) == opened
    assert capsys.readouterr().out.count("done before") == 3


def test_a_changed_artefact_does_not_verify(done, capsys):
    path = done.out / "exports" / "bar" / "curve.cal"
    path.write_text(path.read_text().replace("0.", "0.9", 1))
    assert done.run("verify") == 4
    assert "bar/curve.cal" in capsys.readouterr().err


def test_a_device_that_fails_is_quarantined_and_the_others_are_trained(fresh, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "readings"
    assert fresh.run("prepare") == 0
    demo = fresh.out / "data" / "demo_readings"
    demo.rename(folder)
    (folder / "ampere.csv").unlink()
    (folder / "dead.csv").write_text("".join("0.0,1.0\n" for _ in range(160)))  # a scale of zero: no finite output
    words = ("--readings", folder)
    assert fresh.run("prepare", *words) == 0
    monkeypatch.setenv("ATHANOR_RESTARTS", "0")
    assert fresh.run("train curve", *words) == 0
    failed = quarantined(Workspace(fresh.out))
    assert set(failed) == {"curve/dead"} and failed["curve/dead"]["exit"] == 5
    assert "curve/dead: quarantined" in capsys.readouterr().out
    assert all((fresh.out / "checkpoints" / "curve" / device / "best.pt").exists() for device in DEVICES[1:])
    assert fresh.run("evaluate curve", *words) == 0, "quarantined runs are skipped"


def test_a_forked_item_that_is_killed_is_started_again_under_the_supervisor(fresh, capsys, monkeypatch):
    """The others are forked from one process, and are not started a second time."""
    started = []

    def start(self, command, environment):
        process = fork(self, command, environment)
        started.append(command[4])
        if command[4] == "curve/bar":
            process.send_signal(signal.SIGKILL)
        return process

    fork = ForkServer.start
    monkeypatch.setattr(ForkServer, "start", start)
    assert fresh.run("prepare") == 0
    assert fresh.run("train curve") == 0
    assert started == [f"curve/{device}" for device in DEVICES] and quarantined(Workspace(fresh.out)) == {}
    assert (
        "curve/bar: train ended with exit code 137; it is started again in a new interpreter."
        in capsys.readouterr().out
    )
    assert all((fresh.out / "checkpoints" / "curve" / device / "best.pt").exists() for device in DEVICES)


def test_a_curve_that_begins_as_a_line_is_judged_before_it_is_trained(fresh):
    assert fresh.run("prepare") == 0
    words = ["--out", str(fresh.out), "--device", "cpu", "--preset", "debug"]
    assert cli.main(["train", "boost", *words]) == 0
    first = {}
    for device, line in (("bar", "true"), ("celsius", "false")):
        assert cli.main(["train", f"curve/{device}", *words, "--set", f"model.line={line}"]) == 0
        (path,) = (fresh.out / "runs" / "curve" / device).glob("*/metrics.jsonl")
        records = map(json.loads, path.read_text().splitlines())
        first[device] = next(record["step"] for record in records if record["kind"] == "validation")
    assert first["bar"] == 0 < first["celsius"]


def test_a_damaged_file_is_quarantined_with_its_reason_and_an_empty_folder_refused(fresh, tmp_path, capsys):
    folder = tmp_path / "readings"
    folder.mkdir()
    assert fresh.run("doctor", "--readings", folder) == DataError.exit_code
    assert "holds no .csv file" in capsys.readouterr().err
    good = "".join(f"{i / 64},{i / 32}\n" for i in range(64))
    (folder / "good.csv").write_text(good)
    (folder / "bad.csv").write_text(good + "1,2,3\n")
    assert fresh.run("prepare", "--readings", folder) == 0
    (line,) = (fresh.out / "data" / "manifests" / "quarantine.jsonl").read_text().splitlines()
    assert "bad.csv" in line and "line 65 has 3 columns" in line
    assert fresh.json("data/manifests/summary.json")["items"] == ["good"]


def test_a_path_may_be_a_folder_or_a_file_and_a_command_may_take_no_words(fresh, tmp_path, capsys):
    path = tmp_path / "alone.csv"
    path.write_text("".join(f"{i / 64},{i / 32}\n" for i in range(64)))
    assert fresh.run("prepare", "--readings", path) == 0
    capsys.readouterr()
    assert cli.main(["devices", "toy", "--out", str(fresh.out)]) == 0
    assert capsys.readouterr().out == "alone\n"
    with pytest.raises(SystemExit):
        cli.main(["prepare", "--domain", "toy", "--readings", str(tmp_path / "none"), "--out", str(fresh.out)])
    assert f"'{tmp_path / 'none'}' is neither a file nor a folder" in capsys.readouterr().err


@pytest.mark.parametrize("victim", ["predict-curve", "blend"])
def test_a_plan_killed_in_a_node_gives_the_same_bytes_when_repeated(done, victim):
    """SIGKILL while the node runs, then the same commands again."""
    wanted = {
        name: contents(done.out / "runs")[name] for name in contents(done.out / "runs") if "predictions" in name.name
    }
    wanted_blend = (done.out / "runs" / "blend.json").read_bytes()
    for path in ((done.out / "runs" / "nodes") / f"{victim}.json", done.out / "runs" / "blend.json"):
        path.unlink()
    environment = {**os.environ, "ATHANOR_TOY_SLOW_NODE": str(done.out / "begun")}
    command = [sys.executable, "-m", "training", *done.steps()[victim]]
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    while not (done.out / "begun").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not ((done.out / "runs" / "nodes") / f"{victim}.json").exists()
    for name in ("predict-curve", "predict-boost", "blend"):
        assert done.run(name) == 0
    assert (done.out / "runs" / "blend.json").read_bytes() == wanted_blend
    now = contents(done.out / "runs")
    assert all(now[name] == content for name, content in wanted.items())


def test_a_node_runs_again_when_its_input_or_output_has_changed(done, capsys):
    predictions = done.out / "runs" / "predictions_boost.json"
    predictions.write_text(predictions.read_text().replace("0.", "0.1", 1))
    assert done.run("blend") == 0 and "done before" not in capsys.readouterr().out  # its input
    assert done.run("predict-boost") == 0 and "done before" not in capsys.readouterr().out  # its output
    assert done.run("blend") == 0 and done.run("blend") == 0
    assert capsys.readouterr().out.count("done before") == 1


def test_independent_nodes_run_concurrently_in_processes(done, capsys):
    for path in (done.out / "runs" / "nodes").glob("*.json"):
        path.unlink()
    blend = (done.out / "runs" / "blend.json").read_bytes()
    words = ["--domain", "toy", "--out", str(done.out), "--device", "cpu", "--at-once", "2"]
    assert cli.main(["node", "blend", "predict-curve", "predict-boost", *words]) == 0
    out = capsys.readouterr().out
    assert "[predict-curve] " in out and "[predict-boost] " in out
    assert (done.out / "runs" / "blend.json").read_bytes() == blend
    (done.out / "checkpoints" / "boost" / "best.pt").unlink()
    (done.out / "checkpoints" / "boost" / "last.pt").unlink()
    for path in (done.out / "checkpoints" / "boost").glob("*.pt"):
        path.unlink()
    assert cli.main(["node", "predict-curve", "predict-boost", *words]) == 2
    assert "Node predict-boost ended with exit code 2" in capsys.readouterr().err


def test_a_family_of_a_fan_out_gives_the_same_bytes_after_a_kill(done, known, monkeypatch):
    """A fitted one: tests/engine/test_fitted.py."""
    monkeypatch.setattr(sys, "executable", known)  # a killed process of `warm_python` ends a moment later
    common = ["--out", str(done.out), "--device", "cpu", "--preset", "debug", "--kill-seed", "1"]
    assert cli.main(["prove-resume", "curve/bar", *common, "--steps", "12", "--kills", "1"]) == 0


def test_an_option_of_the_domain_changes_the_settings_of_a_training(fresh):
    assert fresh.run("prepare") == 0
    words = ["train", "curve/bar", "--preset", "debug", "--width", "3", "--device", "cpu", "--out", str(fresh.out)]
    assert cli.main(words) == 0
    content = read(fresh.out / "checkpoints/curve/bar/best.pt")
    assert content["settings"]["model"]["width"] == 3 and content["model"]["layers.0.weight"].shape == (3, 3)


def test_a_domain_reads_configuration_files_of_other_programs(fresh, tmp_path, capsys):
    assert fresh.run("prepare") == 0
    (tmp_path / "old.width").write_text("6 0.25")
    words = ["train", "curve/bar", "--config", str(tmp_path / "old.width"), "--device", "cpu", "--out", str(fresh.out)]
    assert cli.main([*words, "--epochs", "9", "--set", "training.log_every=1"]) == 0
    assert capsys.readouterr().out.count("old.width: the width is 6") == 1
    assert read(fresh.out / "checkpoints/curve/bar/best.pt")["settings"]["model"]["width"] == 6
    (log,) = (fresh.out / "runs/curve/bar").glob("*/metrics.jsonl")
    steps = [record for record in map(json.loads, log.read_text().splitlines()) if record["kind"] == "train"]
    rising = math.ceil(len(steps) * 0.25)  # a share of the steps, whose number the file does not know
    rates = [record["lr"] for record in steps]
    assert rising > 2 and rates.index(max(rates)) == rising - 1 and rates[0] == pytest.approx(max(rates) / rising)


def test_a_run_continues_with_another_value_of_a_setting_that_decides_about_no_weight(done, capsys):
    words = ["train", "curve/bar", "--preset", "debug", "--device", "cpu", "--out", str(done.out)]
    assert cli.main([*words, "--set", "table.name=bar.txt"]) == 0
    assert "was trained before" in capsys.readouterr().out
    assert cli.main([*words, "--width", "5"]) == 0
    assert "model.width: 8 -> 5" in capsys.readouterr().out


def test_an_option_of_an_export_changes_a_setting_that_decides_about_no_weight_and_no_other(done, capsys):
    words = ["export", "curve/bar", "--out", str(done.out), "--output-dir", str(done.out / "others")]
    assert cli.main([*words, "--table", "other.cal"]) == 0
    assert (done.out / "others/bar/other.cal").exists() and not (done.out / "others/bar/curve.cal").exists()
    assert cli.main([*words, "--width", "5"]) == 2
    assert "do not fit the checkpoint of curve/bar, which was trained with model.width: 8" in capsys.readouterr().err


def test_a_command_of_the_domain_uses_a_trained_model(done, capsys):
    words = ["correct", "toy", "0.1", "0.2", "--out", str(done.out)]
    assert cli.main([*words, "--of", "bar"]) == 0
    assert len([float(line) for line in capsys.readouterr().out.splitlines()]) == 2
    assert cli.main(words) == 2 and "--of DEVICE is needed" in capsys.readouterr().err
    assert cli.main([*words, "--of", "bar", "--width", "8"]) == 0
    assert cli.main([*words, "--of", "bar", "--width", "5"]) == 2
    assert "trained with model.width: 8" in capsys.readouterr().err


def test_a_command_that_writes_a_file_takes_its_name_as_out_and_the_folder_as_job(done, tmp_path, capsys):
    path = tmp_path / "table.csv"
    assert cli.main(["tabulate", "toy", "--of", "bar", "--job", str(done.out), "--out", str(path)]) == 0
    table = [line.split(",") for line in path.read_text().splitlines()]
    assert [float(reading) for reading, _ in table] == [number / 10 for number in range(11)]
    assert cli.main(["correct", "toy", "0.3", "--of", "bar", "--out", str(done.out)]) == 0
    assert capsys.readouterr().out.strip() == table[3][1]
    with pytest.raises(SystemExit):
        cli.main(["tabulate", "toy", "--of", "bar", "--job", str(done.out)])
    assert "--out" in capsys.readouterr().err


def test_a_shared_file_is_in_all_splits_and_no_leak(done):
    """Every row names the file of the limits; with the key not shared, all held-out rows would be refused."""
    keys = tuple(dataclasses.replace(key, shared=False) for key in SCHEMA.paths)
    schema = dataclasses.replace(SCHEMA, paths=keys, version=SCHEMA.version + 1)
    recipe = load_recipe("boost", "debug")
    splits = {split: load_split(recipe, Workspace(done.out), split, say=lambda _: None) for split in ("train", "val")}
    assert leaking_ids(splits) == []
    splits = {split: list(rows) for split, rows in splits.items()}  # rows without a manifest, whose schema is given
    assert leaking_ids(splits, SCHEMA) == []
    assert len(leaking_ids(splits, schema)) == len(splits["val"])
