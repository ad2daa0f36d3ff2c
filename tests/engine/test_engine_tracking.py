"""What a run tells: files first, and no tracker can stop it."""

import io
import json
import sys
import types

import pytest
import yaml

from tests.engine import toy
from training.engine.tracking import duration
from training.errors import UsageError


def test_a_line_a_record_and_the_settings(tmp_path, capsys):
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


def test_operations_are_told_where_a_recipe_counts_them(tmp_path):
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


def test_a_bar_only_on_a_terminal(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    toy.run(tmp_path / "a")
    assert "18/18" in terminal.getvalue() or "/18" in terminal.getvalue()
    monkeypatch.setattr(sys, "stderr", pipe := io.StringIO())
    toy.run(tmp_path / "b")
    assert "/18" not in pipe.getvalue()


class FakeWandb(types.ModuleType):
    def __init__(self, failing=False):
        super().__init__("wandb")
        self.options, self.logged, self.finished, self.failing = {}, [], False, failing

    def init(self, **options):
        self.options = options
        return self

    def log(self, values, step):
        if self.failing:
            raise ConnectionError("unreachable")
        self.logged.append((step, values))

    def finish(self):
        self.finished = True


def test_wandb_gets_every_record_offline_too(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", fake := FakeWandb())
    trained = toy.run(tmp_path, logging={"wandb": "offline", "wandb_project": "songs"}, training={"epochs": 1})
    assert fake.options["mode"] == "offline" and fake.options["project"] == "songs" and fake.finished
    assert fake.options["id"] == trained.run.name and fake.options["config"]["optim"]["lr"] == 0.01
    assert [step for step, _ in fake.logged] == [1, 2, 3, 4, 5, 6, 6]
    assert fake.logged[-1][1]["validation/val_loss"] == trained.metrics["val_loss"]


def test_an_unreachable_tracker_stops_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb(failing=True))
    trained = toy.run(tmp_path, logging={"wandb": "online"})
    assert trained.step == 18
    assert (trained.run / "log.txt").read_text().count("W&B failed and is off") == 1
    assert len((trained.run / "metrics.jsonl").read_text().splitlines()) == 21


def test_wandb_that_is_not_installed_is_refused_before_anything(tmp_path, monkeypatch):
    monkeypatch.setattr("training.engine.tracking.importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install wandb"):
        toy.run(tmp_path, logging={"wandb": "online"})
    assert not list(tmp_path.rglob("*.pt"))


def test_durations():
    assert [duration(s) for s in (0.4, 61, 3723)] == ["0:00", "1:01", "1:02:03"]
