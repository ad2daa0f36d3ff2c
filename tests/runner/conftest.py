"""Simulated hosts: stand-ins for Python, Docker and nvidia-smi that record the arguments of each call."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .supervised import Supervised

PROJECT = Path(__file__).resolve().parents[2]

DOCKER = r"""#!/usr/bin/env bash
# one file a call, arguments separated by NUL, so that any character survives; renamed when complete: a test reads
printf '%s\0' "$@" > "$RECORD/../call-$$"
mv "$RECORD/../call-$$" "$RECORD/docker-$(printf %03d "$(ls "$RECORD" | wc -l)")"
case "$1 ${2:-}" in
    'version '*) [[ -z ${ENGINE_SAYS:-} ]] || { echo "$ENGINE_SAYS" >&2; exit 1; }; echo 28.0.0 ;;
    'image inspect') [[ -n ${IMAGE_INPUTS:-} ]] || exit 1; echo "$IMAGE_INPUTS" ;;
    'buildx version') exit "${BUILDX:-0}" ;;
    'buildx build') exit "${BUILD_ENDS:-0}" ;;
    'run '*)
        if [[ " $* " == *' -m training.runner '* ]]; then # the image plans: with its variables, and with a Python
            while [[ $1 != -S ]]; do
                [[ $1 != --env || $2 != *=* ]] || export "$2"
                shift
            done
            PYTHONPATH=$PROJECT exec "$REAL_PYTHON" "$@"
        fi
        if [[ " $* " == *' --entrypoint true '* ]]; then
            [[ -z ${PROBE_SAYS:-} ]] || { echo "$PROBE_SAYS" >&2; exit 125; }
            exit 0
        fi
        if [[ " $* " == *" ${HOLD_AT:-nothing} "* ]]; then # a container that continues whatever becomes of its client
            echo $$ > "$RECORD/../holds"
            for ((i = 0; i < 5000; i++)); do [[ ! -e $RECORD/../let-go ]] || break; sleep 0.02; done
            exit 75
        fi
        [[ " $* " != *" $FAIL_AT "* ]] || exit "$FAIL_WITH" ;;
esac
"""

NVIDIA_SMI = r"""#!/usr/bin/env bash
[[ -z ${SMI_FAILS:-} ]] || { echo "$SMI_FAILS"; exit 9; }
case $1 in
    --query-gpu=driver_version) printf '%s\n' "$DRIVER" ;;
    --query-gpu=compute_cap) printf '%b\n' "${CAPABILITY:-8.6}" ;;
esac
"""


#: A command as `python -m training` is one: it follows its parent; the first request to stop leaves `saved`.
FOLLOWS = f"""
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {str(PROJECT)!r})
from training.engine.process.signals import follow_parent, install_handlers
here = Path(os.environ["HERE"])

def save():
    (here / "saved.part").write_text((here / "requests").read_text().split()[0])
    (here / "saved.part").rename(here / "saved")

def stop(number, _frame):
    with (here / "requests").open("a") as file:
        print(signal.Signals(number).name, file=file)
    if len((here / "requests").read_text().split()) == 1:
        save()
        sys.exit(75)

def wait():
    (here / "ready.part").write_text(str(os.getpid()))
    (here / "ready.part").rename(here / "ready")
    for _ in range(12000):  # no failed test leaves it behind for good
        time.sleep(0.01)

install_handlers(stop)
follow_parent()
"""


def alive(pid: int) -> bool:
    """Whether the process is there, and is no zombie."""
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Host:
    """A folder that stands for a host: `tools` comes first on PATH, `root` is where signs of drivers are looked for."""

    def __init__(self, folder: Path):
        self.path = f"{folder / 'tools'}:/usr/bin:/bin"
        self.folder, self.tools, self.root, self.record = (folder / x for x in ("", "tools", "root", "record"))
        for path in (self.tools, self.root, self.record):
            path.mkdir(parents=True, exist_ok=True)
        # a separate checkout: the real one may have wheels in wheelhouse/
        self.project = folder / "project"
        (self.project / "wheelhouse").mkdir(parents=True)
        shutil.copytree(PROJECT / "training", self.project / "training", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(PROJECT / "scripts", self.project / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(PROJECT / "requirements", self.project / "requirements")
        for name in ("train_cuda.sh", "Dockerfile.cuda", ".dockerignore"):
            shutil.copy2(PROJECT / name, self.project / name)

    def has(self, name: str, text: str = "#!/bin/sh\nexit 0\n") -> None:
        (self.tools / name).write_text(text)
        (self.tools / name).chmod(0o755)

    def without(self, *names: str) -> None:
        """Make all programs of this machine available except those whose names begin with `names`."""
        for folder in ("/bin", "/usr/bin"):
            for program in Path(folder).iterdir():
                if not program.name.startswith(names) and not (self.tools / program.name).exists():
                    (self.tools / program.name).symlink_to(program)
        self.path = str(self.tools)

    def has_docker(self) -> None:
        self.has("docker", DOCKER)

    def has_gpu(self) -> None:
        vendor = self.root / "sys/bus/pci/devices/0000:01:00.0/vendor"
        vendor.parent.mkdir(parents=True)
        vendor.write_text("0x10de\n")

    def has_driver(self, version: str = "580.65.06") -> None:
        if not (self.root / "sys").exists():
            self.has_gpu()
        (self.root / "proc/driver/nvidia").mkdir(parents=True)
        (self.root / "proc/driver/nvidia/version").write_text(f"NVRM version: NVIDIA UNIX Module {version}\n")
        self.has("nvidia-smi", NVIDIA_SMI.replace("$DRIVER", f"${{DRIVER:-{version}}}"))

    def run(self, *arguments: object, **environment: str) -> tuple[subprocess.CompletedProcess, list[list[str]]]:
        """Run the runner on this host -> (the completed process, the arguments of each call of Docker)."""
        words, clean = self.command(*arguments, **environment)
        done = subprocess.run(words, env=clean, cwd=self.folder, capture_output=True, text=True, timeout=300)
        return done, self.calls()

    def start(self, *arguments: object, **environment: str) -> subprocess.Popen:
        """The runner, leader of a session, once a stage's container runs: see HOLD_AT of DOCKER."""
        words, clean = self.command(*arguments, **environment)
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(words, env=clean, cwd=self.folder, start_new_session=True, text=True, **pipes)
        self.wait_for(lambda: (self.folder / "holds").exists() and (self.folder / "holds").read_text())
        return process

    @staticmethod
    def wait_for(condition, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"the condition did not hold within {seconds:.0f} s"
            time.sleep(0.01)

    def calls(self) -> list[list[str]]:
        """The arguments of each call of Docker."""
        return [p.read_bytes().decode().split("\0")[:-1] for p in sorted(self.record.iterdir())]

    def command(self, *arguments: object, **environment: str) -> tuple[list[str], dict[str, str]]:
        """The runner's arguments and environment on this host; deletes the records of earlier calls."""
        for old in self.record.iterdir():
            old.unlink()
        dropped = ("ATHANOR_", "TORCH_", "WANDB_", "HF_", "CUDA_", "KUBERNETES_", "container", "SUDO_", "DOMAINS")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
        clean |= {"PATH": self.path, "ATHANOR_HOST_ROOT": str(self.root), "RECORD": str(self.record)}
        clean |= {"FAIL_AT": "nothing", "FAIL_WITH": "0", "REAL_PYTHON": sys.executable, "PROJECT": str(self.project)}
        clean |= environment
        return [str(self.project / "train_cuda.sh"), *map(str, arguments)], clean


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def stages(calls):
    """The calls that run a stage, and the verbs that they run."""
    runs = [call for call in calls if call[0] == "run" and "training" in call]
    return runs, [call[call.index("training") + 1] for call in runs]


def value(call, option):
    return call[call.index(option) + 1]


@pytest.fixture
def supervised(tmp_path):
    return Supervised(tmp_path)
