"""A complete job of the toy domain, run once, verb by verb; each test works on a copy."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from training import cli
from training.registry import domains
from training.runner.options import parse
from training.runner.plan import plan_of

PLACE = "tests.toy_domain.domain:TOY"
ROOT = Path(__file__).resolve().parents[3]


class Toy:
    """Runs commands of the plan in one output folder."""

    def __init__(self, out: Path):
        self.out = out

    def steps(self, *words: object) -> dict[str, list[str]]:
        plan = plan_of(
            parse(["toy", "--cpu", "--preset", "debug", "--out", str(self.out), *map(str, words)], domains())
        )
        return {step.name: list(step.command[2:]) for step in plan.steps}

    def run(self, name: str, *words: object) -> int:
        """Run a step of the plan; returns its exit code."""
        return cli.main(self.steps(*words)[name])

    def job(self, *words: object) -> None:
        for name, command in self.steps(*words).items():
            assert cli.main(command) == 0, name

    def json(self, name: str):
        return json.loads((self.out / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")  # not longer: other tests need the real interpreter
def known(warm_python):
    """Register the domain in this process and in its child processes; returns the interpreter without `warm_python`."""
    interpreter = sys.executable
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(warm_python))
        patch.setenv("ATHANOR_DOMAINS", PLACE)
        patch.setenv("PYTHONPATH", f"{ROOT}:{os.environ.get('PYTHONPATH', '')}")
        patch.setenv("OMP_NUM_THREADS", "1")
        yield interpreter


@pytest.fixture(scope="module")
def done_once(known, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("toy") / "out"
    Toy(out).job()
    return out


@pytest.fixture
def done(done_once, tmp_path) -> Toy:
    shutil.copytree(done_once, tmp_path / "out")
    return Toy(tmp_path / "out")


@pytest.fixture
def fresh(known, tmp_path) -> Toy:
    return Toy(tmp_path / "out")
