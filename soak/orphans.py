"""Row 23: the runner, its supervisor or the stage below it is killed alone, in a job of the real train_cuda.sh.

That job runs this module in place of its supervisor and its training, so that a mutant applies to both:
python -m soak.orphans supervise OPTIONS... | train FAMILY ROOT
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soak.harness import MUTANT, Mutant, Row, Soak, Trial, TrialResult, patched, result_of
from soak.processes import Child, expect, forked, start
from training import parent
from training.engine.process import signals
from training.workspace import PROJECT

VICTIMS = ("the runner", "the supervisor", "the stage")
WITHIN = 10.0  # seconds from the kill until nothing of the job is left
STEP_SECONDS = 0.2  # of a step before the kill, so that 24 steps take longer than noticing that the parent has ended
AT_ONCE = 3  # trials at the same time: each mostly waits for imports
#: Three trials of one, three of the other, in turns. The family that is fitted by rounds comes first, as it needs half
#: of the imports.
FAMILIES = ("boosted", "toy")
STEPS = 24  # of both
#: A save before the first step, after an evaluation, and at the request to stop.
SETTINGS: dict[str, dict[str, Any]] = {
    "toy": {"training": {"save_minutes": 10.0}},
    "boosted": {"training": {"save_minutes": 10.0, "max_steps": STEPS, "eval_every": 6}},
}

#: Replaces the Python of a job: its supervisor and its training are this module, its other stages do nothing.
PYTHON = """#!/bin/sh
case "$2 $3" in
    'training.runner.supervisor '*) shift 2; exec {python} -m soak.orphans supervise "$@" ;;
    'training train') exec {python} -m soak.orphans train {family} '{root}' ;;
    'training '*) exit 0 ;;
esac
exec {python} "$@"
"""


# -- a trial -------------------------------------------------------------------------------------------------------


def killed_alone(trial: Trial) -> None:
    """Kill one of the three processes after a random step; then run the same command again."""
    family, victim = _kind(trial.index)
    job = Job(trial.folder / "run", family)
    goal = trial.random.randint(1, 5)
    label = f"{victim} killed in step {goal + 1} of {family}"
    process = job.start()
    try:
        processes = job.wait_for_step_after(goal, process, label)
        at = VICTIMS.index(victim)
        if victim == "the stage":
            job.slow.unlink()
        processes[at].kill()
        if victim != "the stage":
            _expect_stopped(job, processes, at, label)
        code = process.wait(120)
    finally:
        for one in job.processes:
            one.kill()
    expect(code == {"the runner": -9, "the supervisor": 137, "the stage": 0}[victim], f"{label}: {code}\n{job.output}")
    expect(victim != "the stage" or "restart 1 of" in job.log.read_text(), f"{label}: not started again\n{job.output}")
    job.slow.unlink(missing_ok=True)
    again = job.start().wait(120)
    expect(again == 0, f"{label}: the same command then ended with {again}\n{job.output}")
    _expect_same(job, trial.soak.folder / family)


def _kind(index: int) -> tuple[str, str]:
    """(family, victim) of a trial."""
    return FAMILIES[index // len(VICTIMS) % len(FAMILIES)], VICTIMS[index % len(VICTIMS)]


def _expect_same(job: Job, complete: Path) -> None:
    from soak.runs import expect_same, saved

    expect_same(job.root, complete, job.family)
    one, other = (saved(root, job.family).get("fitted") for root in (job.root, complete))
    expect(one is other or bytes(one.numpy()) == bytes(other.numpy()), "the fitted states differ")


def _expect_stopped(job: Job, processes: list[Process], killed: int, label: str) -> None:
    """Every process below the killed one must end in time, with the step under way saved and no further one."""
    from soak.runs import step_of

    began, at = time.monotonic(), job.begun
    for process in processes[killed + 1 :]:
        process.wait(WITHIN - (time.monotonic() - began))
    took, step = time.monotonic() - began, step_of(job.root, job.family)
    print(f"{label}: ended {took:.1f} s later, saved at step {step}")
    label = f"{label}; {took:.1f} s later step {step} was saved\n{job.output}"
    expect(not any(process.lives for process in processes[killed + 1 :]), f"a process continues unattended: {label}")
    expect(step < STEPS, f"trained to its end unattended: {label}")
    expect(step >= max(at, job.begun), f"step {job.begun + 1} had begun, and is lost: {label}")


class Process:
    """A process that is not a child of this one. Signals go through a pidfd, as its number could be given to another
    process once it has ended."""

    def __init__(self, number: int):
        self.number = number
        self.handle = os.pidfd_open(number)

    @property
    def lives(self) -> bool:
        return not select.select([self.handle], [], [], 0)[0]

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, signal.SIGKILL)

    def wait(self, seconds: float) -> None:
        select.select([self.handle], [], [], max(0.0, seconds))


@dataclass
class Job:
    """`./train_cuda.sh --only train` of a toy, which writes the steps that it begins to `root`/begun."""

    root: Path
    family: str

    def __post_init__(self) -> None:
        self.root.mkdir()
        self.python, self.slow, self.log = (self.root.parent / name for name in ("python", "slow", "output"))
        self.python.write_text(PYTHON.format(python=sys.executable, family=self.family, root=self.root))
        self.python.chmod(0o755)
        self.slow.touch()
        self.processes: list[Process] = []

    def start(self) -> subprocess.Popen:
        words = ["--native", "--cpu", "--skip-manifests", "--skip-midi", "--only", "train", "--out", self.root]
        environment = {**os.environ, "ATHANOR_PYTHON": str(self.python), "ATHANOR_RESTART_PAUSES": "0.1"}
        with self.log.open("a") as log:
            return subprocess.Popen(
                [PROJECT / "train_cuda.sh", *words], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait_for_step_after(self, step: int, runner: subprocess.Popen, label: str) -> list[Process]:
        """Wait until the step after `step` has begun; returns the runner, the supervisor and the stage."""
        until = time.monotonic() + 120
        while self.begun < step:
            expect(runner.poll() is None and time.monotonic() < until, f"{label}: the step never began\n{self.output}")
            time.sleep(0.005)
        stage = int((self.root / "begun").read_text().split()[0])
        supervisor = int(Path("/proc", str(stage), "stat").read_text().rpartition(")")[2].split()[1])
        self.processes = [Process(number) for number in (runner.pid, supervisor, stage)]
        return self.processes

    @property
    def begun(self) -> int:
        """The step that began last, counted from 0; -1: none."""
        with contextlib.suppress(FileNotFoundError, IndexError):
            return int((self.root / "begun").read_text().splitlines()[-1].split()[1])
        return -1

    @property
    def output(self) -> str:
        """The end of what it printed."""
        return self.log.read_text(errors="replace")[-2000:]


def _run(soak: Soak) -> Iterator[TrialResult]:
    for family in {_kind(index)[0] for index in soak.indices}:
        ended = forked(_uninterrupted, soak.folder / family, family, seconds=300)
        if ended.code != 0:
            yield TrialResult(f"the reference run ({family})", False, ended.tail, judged=False)
            return
    waiting = list(soak.indices)
    running: dict[int, Child] = {}
    try:
        while waiting or running:
            while waiting and len(running) < AT_ONCE:
                index = waiting.pop(0)
                (soak.folder / str(index)).mkdir()
                trial = Trial(index, soak.random(index), soak.folder / str(index), soak)
                running[index] = start(killed_alone, trial)
            index = next(iter(running))
            ended = running.pop(index).wait(300)
            yield result_of(f"{index} ({', '.join(_kind(index))})", ended)
            shutil.rmtree(soak.folder / str(index), ignore_errors=True)
    finally:
        for child in running.values():  # a mutant was caught: wait until the other trials have ended their processes
            child.wait(300)


def _uninterrupted(root: Path, family: str) -> None:
    if family == "toy":
        from soak.runs import train

        train(root, **SETTINGS[family])
    else:
        from tests.engine import toy_fitted

        root.mkdir()
        toy_fitted.run(root, _boosted(root)[0], **SETTINGS[family])


# -- what the job runs ---------------------------------------------------------------------------------------------


def _train(family: str, root: Path) -> int:
    """`python -m training train FAMILY`."""
    from tests import toys
    from training import cli
    from training.stages import splits

    kind, rows, settings = (_boosted if family == "boosted" else _toy)(root)
    globals()[kind.__name__] = kind  # the registry imports recipes by the name of their module
    toys.add(kind)
    splits.load_split = lambda recipe, workspace, split, **roots: rows[split]
    (root / "config.yaml").write_text(json.dumps(settings))  # JSON is YAML, too
    return cli.main(["train", family, "--config", str(root / "config.yaml"), "--device", "cpu", "--out", str(root)])


def _boosted(root: Path) -> tuple[type, Any, dict[str, Any]]:
    from tests.engine import toy_fitted

    class Grown(toy_fitted.BoostedRecipe):
        chunk = 1

        def advance(self, state: Any, rounds: int) -> Any:
            _begin(root, len(state.stumps))
            return super().advance(state, rounds)

    Grown.__qualname__ = "Grown"
    base = toy_fitted.BASE
    return Grown, toy_fitted.SPLITS, base | {"training": base["training"] | SETTINGS["boosted"]["training"]}


def _toy(root: Path) -> tuple[type, Any, dict[str, Any]]:
    from soak.runs import RICH, SAMPLES, VAL_SAMPLES, Toy, merged
    from tests.engine import toy

    class Stepped(Toy):
        def before_loss(self, step: int) -> None:
            _begin(root, step)

    Stepped.__qualname__ = "Stepped"
    rows = {"train": toy.rows(SAMPLES), "val": toy.rows(VAL_SAMPLES, 1000)}
    return Stepped, rows, merged(toy.BASE, merged(RICH, SETTINGS["toy"]))


def _begin(root: Path, step: int) -> None:
    """Record that a step begins, and make it slow until the trial has killed its process."""
    with (root / "begun").open("a") as file:
        file.write(f"{os.getpid()} {step}\n")
    if (root.parent / "slow").exists():
        time.sleep(STEP_SECONDS)


def _as_module(what: str, *words: str) -> int:
    if what == "train":
        return _train(words[0], Path(words[1]))
    from training.runner import supervisor

    return supervisor.main(words)


def _mutant_under_test() -> Any:
    """The fault of the mutant that the harness is testing; without one, a context that does nothing."""
    title = os.environ.get(MUTANT, "").partition(":")[2]
    return next((mutant.fault() for mutant in ROWS[0].mutants if mutant.name == title), nullcontext())


ROWS = (
    Row(
        23, "the runner, its supervisor or the stage is killed alone, in a job of train_cuda.sh",
        f"what is below it saves the step under way and ends within {WITHIN:g} s (a killed stage is started again); "
        "the same command then ends with the same bits",
        _run, full=12, small=3,
        mutants=(
            Mutant("no one follows its parent", patched(parent, "_follow", lambda *_: None), 1, "unattended"),
            Mutant("the supervisor alone follows", patched(signals, "follow", lambda asked: None), 2, "unattended"),
        ),
    ),
)  # fmt: skip

if __name__ == "__main__":
    sys.modules["soak.orphans"] = sys.modules["__main__"]  # the registry imports the recipes under this name
    with _mutant_under_test():
        sys.exit(_as_module(*sys.argv[1:]))
