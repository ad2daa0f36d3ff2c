"""One engine, one copy of the project and one image for all container tests, which are skipped with a visible message
if there is no engine."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
CALLER = 4242  # the uid and gid that the tests' commands run as, when root runs the tests
HOME = "/usr/local/lib/athanor"

_spec = importlib.util.spec_from_file_location("docker_engine", Path(__file__).with_name("engine.py"))
tools = importlib.util.module_from_spec(_spec)
sys.modules["docker_engine"] = tools
_spec.loader.exec_module(tools)


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.docker)


@pytest.fixture(scope="session")
def place():
    """place(name) -> a new folder that an ordinary user can read: pytest's temporary folders are closed to others."""
    with tempfile.TemporaryDirectory(prefix="athanor-docker-") as top:
        Path(top).chmod(0o755)

        def new(name: str) -> Path:
            folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=top))
            folder.chmod(0o755)
            return folder

        yield new


@pytest.fixture(scope="session")
def engine(place, pytestconfig):
    try:
        engine = tools.Engine(place("engine"))
    except tools.NoEngine as error:
        capture = pytestconfig.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            print(f"\n!! NO CONTAINER TEST RUNS ON THIS HOST: {error}\n", file=sys.stderr, flush=True)
        pytest.skip(str(error))
    yield engine
    engine.stop()


class Checkout:
    """A fresh copy of the project, in a folder with an awkward name, that belongs to an ordinary user."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.uid = CALLER if os.geteuid() == 0 else os.getuid()
        self.timings: dict[str, float] = {}
        self.environment: dict[str, str] = {}

    def own(self, *paths: Path) -> None:
        for path in paths:
            if os.geteuid() == 0:
                subprocess.run(["chown", "-R", f"{self.uid}:{self.uid}", str(path)], check=True)

    def command(self, *command: object) -> list[str]:
        """The command line that runs `command` as the ordinary user, who may use Docker."""
        words = [str(c) for c in command]
        if os.geteuid() != 0:
            return words
        group = Path("/var/run/docker.sock").stat().st_gid
        return ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", f"--groups={group}", *words]

    def options(self, **environment: str) -> dict:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("ATHANOR_", "TORCH_", "WANDB_"))}
        everything = {**clean, "HOME": str(self.folder.parent), **self.environment, **environment}
        return {"env": everything, "cwd": self.folder, "text": True, "stdin": subprocess.DEVNULL}

    def run(self, *command: object, timeout: float = 600, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(*command), capture_output=True, timeout=timeout, **self.options(**environment)
        )

    def start(self, *command: object, **environment: str) -> subprocess.Popen:
        options = self.options(**environment)
        return subprocess.Popen(self.command(*command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)

    def runner(self, *arguments: object, **options) -> subprocess.CompletedProcess:
        return self.run(self.folder / "train_cuda.sh", "--docker", *arguments, **options)


@pytest.fixture(scope="session")
def checkout(engine, place):
    top = place("home")
    folder = top / 'a "fresh", odd clone'
    ask = ["git", "-C", str(PROJECT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.check_output(ask, text=True).split("\0")[:-1]:
        if (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, folder / name)
    checkout = Checkout(folder)
    try:
        checkout.environment = tools.build_settings(folder, place("settings"))
    except tools.NoEngine as error:
        pytest.skip(str(error))
    checkout.environment["ATHANOR_IMAGE"] = "athanor:tested"
    checkout.own(top)
    return checkout


@pytest.fixture(scope="session")
def image(checkout):
    """The image, built by the runner, which then runs no stage but `doctor`."""
    began = time.monotonic()
    done = checkout.runner("--cpu", *NOTHING, timeout=1200)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    checkout.timings["build and look"] = round(time.monotonic() - began, 1)
    yield "athanor:tested"
    # images that lost their name when a test rebuilt the image after a change of the code
    subprocess.run(["docker", "image", "prune", "--force", "--filter", "label=athanor.inputs"], capture_output=True)


NOTHING = ("--skip-manifests", "--skip-spectocloud", "--skip-midi", "--skip-export")


@pytest.fixture(scope="session")
def trained(checkout, image):
    """The result of a job with the debug preset, started by the runner in the checkout."""
    began = time.monotonic()
    done = checkout.runner("--cpu", "--preset", "debug", timeout=900)
    checkout.timings["the debug job"] = round(time.monotonic() - began, 1)
    return done


@pytest.fixture
def workspace(checkout, trained, place):
    """A writable copy of the prepared data (manifests, stores, demo corpus) without checkpoints. Its manifests name the
    files of the checkout, so a run in it needs the options for the roots."""
    folder = place("work") / "out"
    for name in ("data", "cache"):
        shutil.copytree(checkout.folder / name, folder / name)
    checkout.own(folder.parent)
    return folder


def pytest_terminal_summary(terminalreporter):
    for item in terminalreporter.stats.get("passed", []):
        for name, text in item.user_properties:
            if name == "figure":
                terminalreporter.write_line(f"figure: {text}")
