"""Row 22: what a container may do, and what it leaves behind. The trials are the tests of tests/docker, on the
container engine that they find or start; under a mutant they run on a copy of the project without one safeguard."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

from soak.harness import Mutant, Row, Soak, TrialResult
from training.workspace import PROJECT

#: The project whose tests are run, and which of them (empty: all). A mutant's fault changes both.
_project, _chosen = PROJECT, ()

MAY = "tests/docker/test_docker_runs.py::test_what_a_container_may_do_and_how_it_stops"
SERVICES = "tests/docker/test_docker_compose.py::test_the_services_are_as_confined_as_the_runners_containers"


def _run(soak: Soak) -> Iterator[TrialResult]:
    report = soak.folder / "report.xml"
    ended = _pytest(*(_chosen or ["tests/docker"]), "-m", "docker", f"--junitxml={report}", seconds=2400)
    if not report.exists():
        yield TrialResult("all", False, ended[-2000:], judged=False)
        return
    for test in ElementTree.parse(report).iter("testcase"):
        failures = [child for child in test if child.tag in ("failure", "error")]
        if test.find("skipped") is not None:  # it needs something that this host does not have (two GPUs, say)
            continue
        seen = "\n".join(f"{child.get('message')}\n{child.text}" for child in failures)
        yield TrialResult(str(test.get("name")), not failures, seen[-2000:])


def _pytest(*arguments: str, seconds: float) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *arguments]
    done = subprocess.run(
        command, cwd=_project, env=os.environ | {"PYTHONPATH": str(_project)}, timeout=seconds, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.stdout


@cache
def _unable() -> str:
    """Why the row cannot be run here: the tests skip with that reason if there is no container engine."""
    output = _pytest("tests/docker/test_docker_image.py", "-k", "ordinary_user", "-m", "docker", "-rs", seconds=1800)
    return "" if "1 passed" in output else output.strip().splitlines()[-1] if "skipped" in output else ""


def without(name: str, old: str, new: str, chosen: str) -> Callable[[], AbstractContextManager[None]]:
    """A fault: a copy of the project with `new` in place of `old` in the file `name`, of which only the test `chosen`
    runs. Raises LookupError if `old` is not in the file."""

    @contextmanager
    def fault() -> Iterator[None]:
        global _project, _chosen
        with tempfile.TemporaryDirectory(prefix="athanor-soak-") as folder:
            copy = Path(folder) / "project"
            _copy(copy)
            text = (copy / name).read_text()
            if old not in text:
                raise LookupError(f"{name} does not contain: {old}")
            (copy / name).write_text(text.replace(old, new))
            _project, _chosen = copy, (chosen,)
            try:
                yield
            finally:
                _project, _chosen = PROJECT, ()

    return fault


def _copy(target: Path) -> None:
    """Copy the tracked files, into a new git repository: the tests use `git ls-files` to find the project's files."""
    names = subprocess.check_output(["git", "-C", str(PROJECT), "ls-files", "-z"], text=True).split("\0")[:-1]
    for name in names:
        if (PROJECT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, target / name)
    subprocess.run(["git", "-C", str(target), "init", "-q"], check=True)
    subprocess.run(["git", "-C", str(target), "add", "-A"], check=True)


@cache
def _count() -> int:
    """How many container tests there are."""
    files: Sequence[Path] = sorted((PROJECT / "tests" / "docker").glob("test_*.py"))
    return sum(line.startswith("def test_") for path in files for line in path.read_text().splitlines())


ROWS = (
    Row(
        22, "container: users, capabilities, file systems, ports, the owner of outputs, the W&B key",
        "non-root, no capabilities, read-only root, no-new-privileges, ports on 127.0.0.1, no root-owned output; the "
        "key in no log, argv, layer or receipt",
        _run, full=_count(), small=_count(), unable=_unable,
        mutants=(
            Mutant("a root that can be written", without("scripts/docker.sh", "--read-only --tmpfs", "--tmpfs", MAY),
                   sign="ReadonlyRootfs"),
            Mutant("capabilities are kept", without("scripts/docker.sh", "--cap-drop=ALL ", "", MAY), sign="CapDrop"),
            Mutant("new privileges", without("scripts/docker.sh", "--security-opt=no-new-privileges ", "", MAY),
                   sign="SecurityOpt"),
            Mutant("a service with privileges", without(
                "docker-compose.yml", 'security_opt: ["no-new-privileges:true"]', "security_opt: []", SERVICES)),
        ),
    ),
)  # fmt: skip
