"""A fitted family is saved, stopped, resumed, budgeted and logged like a stepped one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.engine import toy_fitted as toy
from tests.ranks import two_ranks
from tests.toys import register
from tests.warm import PID
from training.engine.checkpoints.checkpoint_file import read
from training.errors import Interrupted, TrainingError, UsageError
from training.stages import timing
from training.stages.estimate import estimate
from training.stages.evaluate import evaluate
from training.stages.prove_resume import prove_resume
from training.stages.trained import load_trained
from training.workspace import Workspace

COMMAND = [sys.executable, str(Path(toy.__file__))]


@pytest.fixture(autouse=True)
def no_rounds_done():
    toy.BoostedRecipe.grown.clear()


def saved(root: Path, name: str = "last.pt") -> dict:
    return read(root / "checkpoints" / "boosted" / name)


def kind(**attributes) -> type[toy.BoostedRecipe]:
    return type("Here", (toy.BoostedRecipe,), attributes)


def records(trained) -> list[dict]:
    return [json.loads(line) for line in (trained.run / "metrics.jsonl").read_text().splitlines()]


def assert_same(one: Path, other: Path) -> None:
    for name in ("last.pt", "best.pt"):
        mine, theirs = saved(one, name), saved(other, name)
        assert mine["fitted"].numpy().tobytes() == theirs["fitted"].numpy().tobytes(), name
        for part in ("early_stopping", "metrics"):
            assert mine[part] == theirs[part], (name, part)
        mine, theirs = mine["progress"], theirs["progress"]
        assert {**mine, "seconds": 0} == {**theirs, "seconds": 0}, name


def test_a_run_does_every_round_once_and_keeps_what_a_stepped_one_keeps(tmp_path):
    trained = toy.run(tmp_path, training={"save_every": 20, "save_steps": 15})
    assert (trained.step, trained.finished) == (42, "every planned step is done")
    assert toy.BoostedRecipe.grown == list(range(42))
    names = {path.name for path in trained.last.parent.glob("*.pt")}
    # the newest three of what 20 and 15 rounds name; chunks end at 5, 10, ..., 40, 42
    wanted = {"checkpoint_epoch_20.pt", "checkpoint_step_30.pt", "checkpoint_epoch_40.pt"}
    assert names == {"last.pt", "before_last.pt", "best.pt"} | wanted
    content = saved(tmp_path)
    assert content["kind"] == "fitted" and content["model"] == {} and content["optimizer"] is None
    validated = [record["step"] for record in records(trained) if record["kind"] == "validation"]
    assert validated == [*range(5, 41, 5), 42]
    assert toy.run(tmp_path).already


def test_evaluations_and_log_lines_follow_their_intervals_in_rounds(tmp_path):
    trained = toy.run(tmp_path, training={"eval_every": 20, "eval_steps": 15, "log_every": 10})
    validated = [record["step"] for record in records(trained) if record["kind"] == "validation"]
    assert validated == [15, 20, 30, 40, 42]
    logged = [record["step"] for record in records(trained) if record["kind"] == "train"]
    assert logged == [10, 20, 30, 40, 42]


def test_a_stop_signal_saves_the_state_and_the_run_resumes_from_it(tmp_path):
    with pytest.raises(Interrupted, match="round 15/42"):
        toy.run(tmp_path / "stopped", kind(signal_at=12))
    assert saved(tmp_path / "stopped")["progress"]["step"] == 15
    toy.BoostedRecipe.grown.clear()
    toy.run(tmp_path / "stopped")
    assert toy.BoostedRecipe.grown == list(range(15, 42))
    toy.run(tmp_path / "straight")
    assert_same(tmp_path / "stopped", tmp_path / "straight")


def test_killed_at_random_rounds_it_ends_in_the_same_bytes(tmp_path, warm_python):
    toy.run(tmp_path / "straight", training={"save_minutes": 1e-5})
    chance, root, kills = random.Random(3), tmp_path / "killed", 0
    words = [warm_python, "-m", toy.__name__, "--out", str(root), "--set", "training.save_minutes=1e-5"]
    pid = tmp_path / "pid"
    environment = {**os.environ, "TOY_SECONDS": "0.03", "OMP_NUM_THREADS": "1", PID: str(pid)}
    for kill_round in (6, 17, 31):
        pid.write_text("")
        process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)
        while process.poll() is None and (_step(root) < kill_round or not pid.read_text()):
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.15))  # as long as a chunk takes
        os.kill(int(pid.read_text()), signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills == 3
    assert subprocess.run(words, env=environment, stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert_same(root, tmp_path / "straight")


def test_with_two_ranks_the_first_one_fits_and_both_end(tmp_path, warm_python):
    two_ranks(warm_python, tmp_path, "tests.engine.toy_fitted", "--out", str(tmp_path / "two"))
    toy.run(tmp_path / "one")
    assert_same(tmp_path / "two", tmp_path / "one")


def _step(root: Path) -> int:
    logs = list(root.glob("runs/boosted/*/metrics.jsonl"))
    lines = logs[0].read_bytes().rpartition(b"\n")[0].splitlines() if logs else []
    return json.loads(lines[-1])["step"] if lines else 0


def test_a_changed_setting_sets_the_run_aside_and_more_rounds_continue(tmp_path):
    toy.run(tmp_path)
    longer = toy.run(tmp_path, training={"max_steps": 60})
    assert longer.step == 60 and toy.BoostedRecipe.grown == list(range(60))
    toy.run(tmp_path, training={"max_steps": 60}, model={"shrinkage": 0.1})
    assert len(list((tmp_path / "checkpoints/boosted/previous").iterdir())) == 1
    assert toy.BoostedRecipe.grown == [*range(60), *range(60)]


def test_it_ends_with_its_budget_and_continues_under_a_larger_one(tmp_path):
    allowed = iter([100.0, 100.0, 0.0])
    trained = toy.run(tmp_path, left=lambda: next(allowed, 0.0), limit=100.0)
    assert trained.finished == "the budget is used up" and 5 <= trained.step < 42 and trained.step % 5 == 0
    assert saved(tmp_path)["metrics"]["stumps"] == trained.step  # it was evaluated at its end
    assert toy.run(tmp_path, left=lambda: 1e9, limit=100.0).already
    more = toy.run(tmp_path, left=lambda: 1e9, limit=200.0)
    assert (more.step, more.finished) == (42, "every planned step is done")


def test_it_stops_early_and_keeps_the_best(tmp_path):
    """With a metric for which higher is better, once it no longer rises by `min_delta`."""
    stopping = {"enabled": True, "patience": 2, "monitor": "stumps", "direction": "higher", "min_delta": 6.0}
    trained = toy.run(tmp_path, training={"early_stopping": stopping})
    # 5 is the first; 10 is no improvement by 6, 15 is; 20 is not, 25 is ...: never two in a row
    assert trained.finished == "every planned step is done" and trained.metrics["stumps"] == 42
    stopping["min_delta"] = 100.0
    early = toy.run(tmp_path / "early", training={"early_stopping": stopping})
    assert early.step == 15 and "early stopping: stumps has not improved" in early.finished
    assert early.metrics["stumps"] == 15  # best.pt follows the value itself


def test_a_loss_that_is_not_a_number_is_an_error(tmp_path):
    with pytest.raises(TrainingError, match="round 20/42 val_loss is nan"):
        toy.run(tmp_path, kind(nan_at=20))
    assert "stumps" in saved(tmp_path, "best.pt")["metrics"]


def test_a_metric_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(UsageError, match="monitor: `colour` is not a validation metric of Boosted; its metrics are"):
        toy.run(tmp_path, training={"early_stopping": {"monitor": "colour"}})


def test_a_saved_model_is_evaluated_against_a_baseline_that_is_fitted_once(tmp_path, monkeypatch):
    contexts = []

    class Judged(toy.BoostedRecipe):
        def evaluate(self, context):
            contexts.append(context)
            slow = self.with_settings(self.settings.model_copy(update={"model": toy.Trees(shrinkage=0.01)}))
            self.baselines = [context.train_baseline(slow, "slow", None, 10) for _ in range(2)]
            return super().evaluate(context)

    monkeypatch.setattr(sys.modules[__name__], "Judged", Judged, raising=False)
    Judged.__module__, Judged.__qualname__ = __name__, "Judged"
    register(monkeypatch, Judged)
    splits = {name: [type(row)(row.values | {"id": row.place}, row.place) for row in some]
              for name, some in toy.SPLITS.items()}  # fmt: skip
    monkeypatch.setattr("training.stages.splits.load_split", lambda recipe, space, split, **_: splits[split])
    toy.run(tmp_path, Judged)
    trained = load_trained("boosted", Workspace(tmp_path))
    x, _ = toy.table(toy.SPLITS["val"], 0.5)
    assert len(trained.model.stumps) == trained.content["progress"]["step"]
    toy.BoostedRecipe.grown.clear()
    result = evaluate("boosted", Workspace(tmp_path), device="cpu")
    assert result["verdict"]["word"] == "weak" and contexts[0].steps == 42
    assert (contexts[0].model.predict(x) == trained.model.predict(x)).all()
    assert toy.BoostedRecipe.grown == list(range(10))  # once, though it was requested twice
    again = load_trained("boosted", Workspace(tmp_path)).recipe
    baseline = contexts[0].train_baseline(
        again.with_settings(again.settings.model_copy(update={"model": toy.Trees(shrinkage=0.01)})), "slow", None, 10
    )
    assert 0 < len(baseline.stumps) <= 10 and toy.BoostedRecipe.grown == list(range(10))


def test_an_estimate_times_a_few_chunks_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_SECONDS", "0.002")
    looks = []  # at the host's speed, each of which takes longer than such a chunk
    monkeypatch.setattr(timing, "slowness", lambda: looks.append(1) or 1.0)
    monkeypatch.setattr(timing, "LOOKS", 0.0)
    settings = {"training": {"max_steps": 1000, "eval_every": 100}}
    estimated = estimate(
        toy.recipe(**settings), Workspace(tmp_path), device="cpu", load=toy.SPLITS.__getitem__
    )  # fmt: skip
    assert (estimated.begin, estimated.steps, estimated.evaluations) == (0, 1000, 10)
    assert 0.002 <= estimated.step < 0.1 and estimated.timed < 1000
    assert len(looks) == timing.PLACES * timing.ROUNDS < estimated.timed / toy.BoostedRecipe.chunk
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_prove_resume_compares_the_bytes(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TOY_SECONDS", "0.03")
    register(monkeypatch, toy.BoostedRecipe)
    (tmp_path / "data").mkdir()
    found = prove_resume("boosted", Workspace(tmp_path), command=COMMAND, steps=40, kills=1, seed=5)
    assert found.none and found.tensors == 2 and "Equal, bit for bit" in capsys.readouterr().out
