"""A Docker engine, a base image and build settings for the tests, on any host.

A running engine is used if there is one. Otherwise, as root on a Debian host, one is installed from Debian's packages
and started. No image registry is used: debootstrap makes the base image.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

BASE = "local/debian:bookworm"
PACKAGES = ("docker.io", "docker-cli", "docker-buildx", "docker-compose")
#: Debian 12's engine is too old for the Dockerfile: these packages, and only these, come from Debian 13.
SOURCES = """Types: deb
URIs: {mirror}
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
PREFERENCES = "Package: *\nPin: release n=trixie\nPin-Priority: 100\n"


class NoEngine(Exception):
    """This host cannot run an engine; the message states why."""


def run(*command: object, **options) -> subprocess.CompletedProcess:
    """Run a command, with its output captured as text. Raises AssertionError with that output if it fails."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, command))}\nexit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def is_running() -> bool:
    """Whether an engine answers on this host."""
    try:
        return subprocess.run(["docker", "version"], capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def install() -> None:
    """Install the engine, BuildKit and Compose from Debian's packages. Raises NoEngine if that is not possible."""
    have = shutil.which("dockerd") and all(
        subprocess.run(["docker", plugin, "version"], capture_output=True).returncode == 0
        for plugin in ("buildx", "compose")
    )
    if have:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NoEngine("no Docker engine answers, and only root on Debian can install one here")
    release = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines() if "=" in line
    )
    if release.get("ID", "").strip('"') != "debian":
        raise NoEngine("no Docker engine answers, and this is not a Debian host: install Docker Engine and start it")
    suffix = ""
    if release.get("VERSION_CODENAME") == "bookworm":
        sources = SOURCES.format(mirror=debian_mirror())
        Path("/etc/apt/sources.list.d/docker-tests.sources").write_text(sources, encoding="ascii")
        Path("/etc/apt/preferences.d/docker-tests").write_text(PREFERENCES, encoding="ascii")
        suffix = "/trixie"
    quiet = {"env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
    run("apt-get", "update", "-qq", **quiet)
    packages = [name + suffix for name in PACKAGES]
    run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages, "iptables", **quiet)


def debian_mirror() -> str:
    """The URL of the Debian mirror that this host uses. Raises NoEngine if none is configured."""
    folder = Path("/etc/apt/sources.list.d")
    for path in (Path("/etc/apt/sources.list"), *sorted(folder.glob("*.sources")), *sorted(folder.glob("*.list"))):
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        found = re.search(r"^(?:deb\s.*?|URIs:\s*)(https?://\S+/debian)/?(?:\s|$)", text, re.MULTILINE)
        if found:
            return found[1]
    raise NoEngine("no Debian mirror is named in /etc/apt")


class Engine:
    """The engine of this test session. `fake_gpu`: whether it was started with a stand-in for NVIDIA's toolkit."""

    def __init__(self, folder: Path):
        self.process: subprocess.Popen | None = None
        self.fake_gpu = False
        if is_running():
            return
        install()
        if os.geteuid() != 0:
            raise NoEngine("no Docker engine answers, and only root can start one")
        # The engine looks for this program once, when it starts, and then accepts `--gpus`. The real program gives the
        # container access to the GPU; this one does nothing.
        tools = folder / "bin"
        tools.mkdir()
        hook = tools / "nvidia-container-runtime-hook"
        hook.write_text("#!/bin/sh\ncat > /dev/null\nexit 0\n", encoding="ascii")
        hook.chmod(0o755)
        tools.chmod(0o755)
        self.log = folder / "dockerd.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                ["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}:/usr/sbin:/sbin"},
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while not is_running():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise NoEngine(f"dockerd does not start here: {self.log.read_text()[-600:]}")
            time.sleep(0.2)
        self.fake_gpu = True

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()


def base_image(folder: Path) -> str:
    """The name of an image with Python 3.11: ATHANOR_TEST_BASE_IMAGE, or one that is made from Debian's packages."""
    given = os.environ.get("ATHANOR_TEST_BASE_IMAGE")
    if given:
        return given
    if subprocess.run(["docker", "image", "inspect", BASE], capture_output=True).returncode == 0:
        return BASE
    if os.geteuid() != 0:
        raise NoEngine(f"there is no image {BASE}, and only root can make it; or set ATHANOR_TEST_BASE_IMAGE")
    if shutil.which("debootstrap") is None:
        run("apt-get", "install", "-y", "-qq", "--no-install-recommends", "debootstrap")
    root = folder / "root"
    packages = "--include=python3,python3-venv,ca-certificates"
    run("debootstrap", "--variant=minbase", packages, "bookworm", root, debian_mirror())
    leave = ["--exclude=./var/cache/apt/archives/*.deb", "--exclude=./var/lib/apt/lists/*"]
    with subprocess.Popen(["tar", "-C", str(root), *leave, "-c", "."], stdout=subprocess.PIPE) as tar:
        run("docker", "import", "-", BASE, stdin=tar.stdout)
    shutil.rmtree(root)
    return BASE


def build_settings(project: Path, folder: Path) -> dict[str, str]:
    """Environment variables that the build needs on this host: pip's mirror and certificates, as pip is configured
    here, and the source of torch's CPU build."""
    settings = {"BASE_IMAGE": base_image(folder), "ATHANOR_BUILD_PROGRESS": "plain"}
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    output = subprocess.run([*pip, "config", "list"], capture_output=True, text=True).stdout
    lines = (line.partition("=") for line in output.splitlines())
    known = {key.split(".", 1)[1]: value.strip("'") for key, _, value in lines}
    certificates = known.get("cert") or os.environ.get("SSL_CERT_FILE")
    if certificates:
        settings["ATHANOR_CA_BUNDLE"] = certificates
    lines = ["[global]", "timeout = 180"]
    if known.get("index-url", "").startswith("http"):
        lines.append(f"index-url = {known['index-url']}")
    conf = folder / "pip.conf"
    conf.write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings["ATHANOR_PIP_CONF"] = str(conf)

    torch = next(x for x in (project / "requirements/core.lock").read_text().splitlines() if x.startswith("torch=="))
    ask = ["install", "--quiet", "--dry-run", "--no-deps", "--ignore-installed", "--report", "-", torch]
    report = subprocess.run([*pip, *ask], capture_output=True, text=True)
    chosen = json.loads(report.stdout)["install"][0] if report.returncode == 0 else None
    # If pip here would install a build with CUDA, the runner's default stays: PyTorch's index of CPU builds.
    if chosen and chosen["metadata"]["version"].endswith("+cpu"):
        fetch = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version=3.11"]
        run(*pip, *fetch, "--dest", project / "wheelhouse", torch)
        settings["TORCH_INDEX"] = ""
    return settings
