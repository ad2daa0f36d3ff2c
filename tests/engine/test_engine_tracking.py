"""The logs of a run: files, TensorBoard and W&B, none of which can stop it."""

import errno
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from tests.engine import toy
from tests.engine.disks import Mounted
from training.engine.tracking import tracker as tracking
from training.engine.tracking import wandb_process
from training.engine.tracking.append_only import AppendOnlyFile
from training.errors import HostError, Interrupted, UsageError
from training.settings import Logging


def test_a_run_writes_log_lines_metrics_and_its_settings(tmp_path, capsys):
    trained = toy.run(tmp_path, training={"log_every": 4})
    log = (trained.run / "log.txt").read_text().splitlines()
    assert log == capsys.readouterr().out.splitlines()
    (line,) = [text for text in log if text.startswith("step 8/18")]
    for part in ("epoch 2/3", "loss ", "error ", "size ", "grad ", "lr ", "samples/s", " left"):
        assert part in line
    records = [json.loads(text) for text in (trained.run / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if r["kind"] == "train"] == [4, 8, 12, 16, 18]
    assert [r["step"] for r in records if r["kind"] == "validation"] == [6, 12, 18]
    assert {"loss", "error", "size", "grad_norm", "lr", "samples_per_second", "input_wait", "skipped"} <= set(
        records[0]
    )
    settings = yaml.safe_load((trained.run / "settings.yaml").read_text())
    assert toy.ToySettings.model_validate(settings) == toy.recipe(training={"log_every": 4}).settings


def test_tflops_are_logged_where_a_recipe_counts_flops(tmp_path):
    class Counting(toy.ToyRecipe):
        def flops(self, model, batch):
            return 2e12 * len(batch["x"])

    trained = toy.run(tmp_path, Counting, training={"epochs": 1})
    record = json.loads((trained.run / "metrics.jsonl").read_text().splitlines()[0])
    assert record["tflops"] == pytest.approx(2 * record["samples_per_second"])
    assert "TFLOP/s" in (trained.run / "log.txt").read_text()


def test_tensorboard_events_hold_losses_and_metrics(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trained = toy.run(tmp_path, logging={"tensorboard": True})
    events = EventAccumulator(str(trained.run))
    events.Reload()
    assert {"train/loss", "train/lr", "validation/val_loss"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("validation/val_loss")] == [6, 12, 18]


def test_a_progress_bar_is_shown_on_a_terminal_only(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    toy.run(tmp_path / "a")
    assert "18/18" in terminal.getvalue() or "/18" in terminal.getvalue()
    monkeypatch.setattr(sys, "stderr", pipe := io.StringIO())
    toy.run(tmp_path / "b")
    assert "/18" not in pipe.getvalue()


PROJECT = Path(__file__).resolve().parents[2]
FAKE_WANDB = """
import json, os, pathlib, signal, sys, time
calls = open(os.environ["FAKE_WANDB"], "a", buffering=1)
tell = lambda what, **values: calls.write(json.dumps({"what": what, "pid": os.getpid(), **values}) + chr(10))
fault = os.environ.get("FAKE_FAULT", "")
def misbehave(where):
    if fault == "raises in " + where: raise ConnectionError("unreachable")
    if fault == "hangs in " + where: time.sleep(600)
    if fault == "dies in " + where: os.kill(os.getpid(), signal.SIGKILL)
    if fault == "leaves in " + where: sys.exit(3)
class Run:
    url = "https://wandb.example/run"
    def log(self, values, step): misbehave("log"); tell("log", step=step, values=values)
    def finish(self): misbehave("finish"); tell("finish")
def init(**options): tell("init", options=options); print("chatter"); misbehave("init"); return Run()
"""


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    """A fake wandb package that writes its calls to a file; `wandb(fault)` trains with a fault in it."""
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / "wandb.py").write_text(FAKE_WANDB)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("FAKE_WANDB", str(calls := tmp_path / "calls.jsonl"))
    monkeypatch.setattr(wandb_process, "LAST_SECONDS", 1.0)
    monkeypatch.setattr(tracking, "LAST_SECONDS", 1.0)
    monkeypatch.setattr(tracking, "HURRIED_SECONDS", 0.2)

    def run(fault="", **settings):
        monkeypatch.setenv("FAKE_FAULT", fault)
        trained = toy.run(tmp_path / "out", **settings)
        calls.touch()
        return trained, [json.loads(line) for line in calls.read_text().splitlines()]

    return run


def test_wandb_gets_every_record(wandb, monkeypatch):
    monkeypatch.setattr(tracking, "LAST_SECONDS", 60.0)
    trained, calls = wandb(logging={"wandb": "offline", "wandb_project": "songs"}, training={"epochs": 1})
    options = calls[0]["options"]
    assert options["mode"] == "offline" and options["project"] == "songs" and calls[-1]["what"] == "finish"
    assert options["id"] == trained.run.name and options["config"]["optim"]["lr"] == 0.01
    logged = [entry for entry in calls if entry["what"] == "log"]
    assert [entry["step"] for entry in logged] == [1, 2, 3, 4, 5, 6, 6]
    assert logged[-1]["values"]["validation/val_loss"] == trained.metrics["val_loss"]
    assert "W&B: https://wandb.example/run" in (trained.run / "log.txt").read_text()


@pytest.mark.parametrize("where", ["init", "log", "finish"])
@pytest.mark.parametrize("how", ["raises", "hangs", "dies", "leaves"])
def test_a_wandb_failure_does_not_stop_the_run_and_is_reported_once(wandb, how, where):
    trained, calls = wandb(f"{how} in {where}", logging={"wandb": "online"})
    assert trained.step == 18
    assert (trained.run / "log.txt").read_text().count("W&B failed and is off") == 1
    assert len((trained.run / "metrics.jsonl").read_text().splitlines()) == 21
    for pid in {entry["pid"] for entry in calls}:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_hung_wandb_process_never_blocks_the_run(tmp_path, monkeypatch):
    """More data than a pipe holds, for a process that reads nothing."""
    (tmp_path / "wandb.py").write_text("import time; time.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(wandb_process, "MOST_WAITING", 300_000)
    output = []
    hung = wandb_process.WandbProcess({}, output.append)
    began = time.monotonic()
    for step in range(10_000):
        hung.record(step, {"train/loss": 0.5})
    assert time.monotonic() - began < 5.0
    assert len(output) == 1 and "takes no more records" in output[0]
    hung.close()


@pytest.mark.skipif(sys.platform != "linux", reason="processes that end with their parent")
def test_a_killed_run_leaves_no_wandb_process(tmp_path):
    (tmp_path / "wandb.py").write_text(
        "import os, time\nopen(os.environ['PID'], 'w').write(str(os.getpid()) + '.')\ntime.sleep(600)"
    )
    code = (
        "import sys, time; from training.engine.tracking.wandb_process import WandbProcess; "
        "WandbProcess({}, print); time.sleep(600)"
    )
    place = {**os.environ, "PYTHONPATH": f"{tmp_path}:{PROJECT}", "PID": str(tmp_path / "pid")}
    run = subprocess.Popen([sys.executable, "-c", code], env=place)
    pid_file, until = tmp_path / "pid", time.monotonic() + 30
    while time.monotonic() < until and not (pid_file.is_file() and pid_file.read_text().endswith(".")):
        time.sleep(0.01)
    run.kill()
    run.wait()
    pid = int(pid_file.read_text()[:-1])
    with pytest.raises(FileNotFoundError):
        for _ in range(1000):
            Path(f"/proc/{pid}").stat()
            time.sleep(0.01)


def test_a_stopped_run_ends_soon_although_wandb_hangs(wandb, monkeypatch):
    monkeypatch.setattr("training.engine.tracking.tracker.LAST_SECONDS", 40.0)
    began = time.monotonic()
    with pytest.raises(Interrupted):
        wandb("hangs in finish", kind=toy.stopped(step=3), logging={"wandb": "online"})
    assert time.monotonic() - began < 30


def test_wandb_that_is_not_installed_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr("training.engine.tracking.tracker.importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install wandb"):
        toy.run(tmp_path, logging={"wandb": "online"})
    assert not list(tmp_path.rglob("*.pt"))


class Losing(toy.ToyRecipe):
    """At one step, calls `what` with the folder of the run."""

    at, what = 5, staticmethod(lambda folder: None)

    def losses(self, model, batch, progress):
        if progress.step == self.at:
            (folder,) = self.runs.iterdir()
            type(self).what(folder)
        return super().losses(model, batch, progress)


@pytest.mark.parametrize("what", [shutil.rmtree, lambda folder: (folder / "metrics.jsonl").unlink()])
def test_deleted_log_files_are_created_again_with_their_content(tmp_path, what):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    kind = type("Gone", (Losing,), {"what": staticmethod(what), "runs": tmp_path / "runs" / "toy"})
    trained = toy.run(tmp_path, kind, logging={"tensorboard": True})
    records = [json.loads(line) for line in (trained.run / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if record["kind"] == "train"] == list(range(1, 19))
    assert "step 1/18" in (trained.run / "log.txt").read_text()
    events = EventAccumulator(str(trained.run))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 19))


def test_data_that_a_full_disk_refused_is_written_once_there_is_space(tmp_path, monkeypatch):
    file = AppendOnlyFile(tmp_path / "metrics.jsonl")
    real, room = os.write, [10]

    def write(handle, data):
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = real(handle, bytes(data[: room[0]]))
        room[0] -= taken
        return taken

    monkeypatch.setattr(os, "write", write)
    for line in (b"one\n", b"two\n", b"three\n", b"four\n"):
        file.write(line)
    assert file.failed.errno == errno.ENOSPC and file.path.read_bytes() == b"one\ntwo\nth"
    room[0] = 1000
    file.write(b"five\n")
    assert file.failed is None and file.path.read_bytes() == b"one\ntwo\nthree\nfour\nfive\n"


def test_two_threads_write_complete_lines(tmp_path, monkeypatch):
    """The saving thread logs a line while the training thread logs one."""
    file, real = AppendOnlyFile(tmp_path / "log"), os.write
    other = threading.Thread(target=lambda: file.write(b"the saver's line\n"))

    def slow(handle: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", real)
        with memoryview(data) as held:  # as the system call does
            other.start()
            other.join(0.1)
            return real(handle, held[:4])

    monkeypatch.setattr(os, "write", slow)
    file.write(b"the training's line\n")
    other.join()
    file.close()
    assert (tmp_path / "log").read_text() == "the training's line\nthe saver's line\n"


@pytest.fixture
def full_logs(tmp_path):
    """The logs are on a separate disk, which is full."""
    (tmp_path / "out").mkdir()
    disk = Mounted(tmp_path / "out" / "runs", 1 << 20)
    disk.fill(left=0)
    yield disk
    disk.close()


def test_a_run_whose_log_disk_is_full_finishes_and_reports_it_once(full_logs, tmp_path, capsys):
    """It is full from the first step on."""
    trained = toy.run(tmp_path / "out", logging={"tensorboard": True})
    assert trained.best.exists() and trained.step == 18
    lines = capsys.readouterr().out.splitlines()
    (line,) = [text for text in lines if "cannot be written (No space left on device)" in text]
    assert str(trained.run) in line
    assert any("The last records are not in" in line for line in lines)
    assert any(line.startswith("step 18/18") for line in lines)


def test_logs_are_complete_once_a_full_disk_has_space_again(full_logs, tmp_path, capsys):
    folder = full_logs.folder / "toy" / "r"
    settings = {"seed": 1, "note": "x" * 5000}
    with tracking.Tracker(folder, settings, Logging(), title="Toy", step=0, active=True) as tracker:
        for step in (1, 2, 3):
            tracker.record("train", step, {"loss": 1.0})
        tracker.rewind(2)
        (full_logs.folder / "other people's").unlink()
        tracker.record("train", 3, {"loss": 2.0})
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(record["step"], record["loss"]) for record in records] == [(1, 1.0), (2, 1.0), (3, 2.0)]
    assert yaml.safe_load((folder / "settings.yaml").read_text()) == settings
    output = capsys.readouterr().out
    assert output.count("cannot be written") == 1 and output.count("no record is missing") == 1
    assert (folder / "log.txt").read_text() == output


def test_logs_that_cannot_be_written_for_another_reason_are_refused_at_the_start(tmp_path):
    """An error that is not temporary: exit 6 before the first step, with the name of the file."""
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(HostError, match=r"Cannot write .*runs.*Not a directory"):
        tracking.Tracker(tmp_path / "runs" / "r", {}, Logging(), title="Toy", step=0, active=True)


def test_records_beyond_a_step_are_dropped_even_on_a_full_disk(full_logs, tmp_path):
    """A resumed run drops them, for which it must not need disk space."""
    (full_logs.folder / "other people's").unlink()
    path = full_logs.folder / "metrics.jsonl"
    path.write_text("".join(json.dumps({"kind": "train", "step": step}) + "\n" for step in range(1, 400)) + '{"ki')
    full_logs.fill(left=0)
    tracking.Tracker(full_logs.folder, {}, Logging(), title="Toy", step=300, active=True).close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == list(range(1, 301))
