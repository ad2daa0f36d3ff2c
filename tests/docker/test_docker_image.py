"""The image: what it contains, what it must not contain, and how long a rebuild takes."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from .conftest import HOME, NOTHING, tools

inspect = ["docker", "image", "inspect"]


def image_of(name: str) -> dict:
    return json.loads(subprocess.check_output([*inspect, name]))[0]


def in_image(image: str, *command: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    words = ["docker", "run", "--rm", "--pull=never", *options, image, *command]
    return subprocess.run(words, capture_output=True, text=True, timeout=300)


def test_the_image_runs_as_an_ordinary_user_and_contains_no_secret_and_no_data(image, checkout, record_property):
    about = image_of(image)
    config = about["Config"]
    record_property("figure", f"image {about['Size'] / 1e9:.2f} GB; {checkout.timings}")
    assert config["User"] not in ("", "0", "root", "0:0")
    assert config["Entrypoint"] == ["tini", "--"]
    assert config["Healthcheck"]["Test"][-1].endswith("health.py")
    assert config["Labels"]["org.opencontainers.image.title"] == "Athanor"
    assert config["Labels"]["org.opencontainers.image.version"] not in ("", "unknown")
    assert config["Labels"]["athanor.inputs"]
    assert "ExposedPorts" not in config

    left = in_image(
        image, "sh", "-c",
        "find / -xdev '(' -name '*.whl' -o -name '.env*' -o -name '.git' -o -name 'pip.conf' ')' 2> /dev/null;"
        f"ls {HOME}/code; find / -xdev -perm -4000 -newer {HOME}/requirements/core.lock 2> /dev/null;"
        "find / -xdev -type f -perm -0002 2> /dev/null",
    ).stdout.split()  # fmt: skip
    # ensurepip's bundled wheels are Python's own
    assert [x for x in left if "ensurepip" not in x and "python-wheels" not in x] == [
        "requirements", "scripts", "train_cuda.sh", "training",
    ]  # fmt: skip
    history = subprocess.check_output(["docker", "history", "--no-trunc", image], text=True)
    for name in ("ATHANOR_CA_BUNDLE", "ATHANOR_PIP_CONF"):
        assert checkout.environment.get(name, "never") not in history


def test_a_change_of_the_code_is_rebuilt_in_seconds_and_no_change_builds_nothing(image, checkout, record_property):
    before = image_of(image)
    done = checkout.runner("--cpu", *NOTHING)
    assert done.returncode == 0 and "Building" not in done.stdout
    assert image_of(image)["Id"] == before["Id"]

    source = checkout.folder / "training" / "errors.py"
    text = source.read_text()
    try:
        source.write_text(text + "\n# another line\n")
        skipped = checkout.runner("--cpu", "--skip-build", *NOTHING)
        assert skipped.returncode == 0 and "other sources" in skipped.stdout
        assert image_of(image)["Id"] == before["Id"]

        began = time.monotonic()
        built = checkout.runner("--cpu", *NOTHING)
        seconds = time.monotonic() - began
        assert built.returncode == 0 and "Building" in built.stdout
        changed = image_of(image)
        assert changed["RootFS"]["Layers"][:6] == before["RootFS"]["Layers"][:6], "a dependency layer was made again"
        assert "another line" in in_image(image, "tail", "-n1", f"{HOME}/code/training/errors.py").stdout
        record_property("figure", f"source change: rebuilt, and `doctor` run, in {seconds:.1f} s")
        assert seconds < 30
    finally:
        source.write_text(text)
        checkout.runner("--cpu", *NOTHING)


def test_skip_build_without_an_image_is_an_error(image, checkout):
    done = checkout.runner("--cpu", "--skip-build", *NOTHING, ATHANOR_IMAGE="athanor:never-built")
    assert done.returncode == 6
    assert "there is no image athanor:never-built" in done.stderr


@pytest.mark.parametrize("uid", ["1000", "54321"])
def test_the_image_alone_runs_as_any_user(image, uid):
    """As a pod's template: without a checkout and without Docker inside, the runner runs natively, and numba finds its
    cache."""
    done = in_image(
        image, f"{HOME}/code/train_cuda.sh", "--cpu", *NOTHING,
        options=("--user", f"{uid}:{uid}", "--cap-drop=ALL", "--tmpfs=/workspace:mode=1777"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Running natively: this is a container already." in done.stdout
    assert f"uid {uid} can write" in done.stdout
    read_only = ("--read-only", "--tmpfs=/tmp:exec,mode=1777", "--user", f"{uid}:{uid}")
    code = "import librosa, getpass, torch; librosa.util.frame; print(getpass.getuser(), torch.ones(2).sum().item())"
    done = in_image(image, "python", "-c", code, options=read_only)
    assert done.stdout.split()[-2:] == ["athanor", "2.0"], done.stderr


def test_torch_compile_finds_its_compiler_in_a_read_only_container(image):
    code = "import torch; f = torch.compile(lambda x: (x.sin() + 1).sum()); print(round(float(f(torch.zeros(8))), 3))"
    options = ("--read-only", "--tmpfs=/tmp:exec,mode=1777", "--cap-drop=ALL", "--user=54321:54321")
    done = in_image(image, "python", "-c", code, options=options)
    assert done.stdout.strip() == "8.0", done.stderr[-2000:]


def test_a_container_ends_soon_after_docker_stop(image):
    name = tools.run("docker", "run", "--detach", "--rm", image, "sleep", "600").stdout.strip()
    began = time.monotonic()
    tools.run("docker", "stop", "--time", "60", name)
    assert time.monotonic() - began < 20
