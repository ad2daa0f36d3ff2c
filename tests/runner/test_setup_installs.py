"""scripts/setup_env.sh with the real uv and pip, on wheels of a few lines: both install the same set, and a torch of
the host is borrowed without its neighbours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from .conftest import PROJECT

UV = next((str(x) for x in [Path(sys.prefix) / "bin/uv", shutil.which("uv")] if x and Path(x).is_file()), None)
needs_uv = pytest.mark.skipif(UV is None, reason="this environment was made without uv")
INSTALLERS = [pytest.param("uv", marks=needs_uv), "pip"]


def files_of(name: str, version: str, requires: tuple[str, ...] = (), modules: dict[str, str] | None = None) -> dict:
    """A distribution's files: path in a site folder -> text."""
    about = f"{name.replace('-', '_')}-{version}.dist-info"
    modules = modules or {f"{name.replace('-', '_')}/__init__.py": f"__version__ = {version!r}\n"}
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *(f"Requires-Dist: {x}" for x in requires)]
    files = {**modules, f"{about}/METADATA": "\n".join(metadata) + "\n"}
    files[f"{about}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{about}/RECORD"] = "".join(f"{x},,\n" for x in [*files, f"{about}/RECORD", "../../../bin/a-program"])
    return files


def make_wheel(folder: Path, name: str, version: str, **about) -> None:
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files_of(name, version, **about).items():
            wheel.writestr(path, text.replace("../../../bin/a-program,,\n", ""))


def put(site: Path, name: str, version: str, **about) -> None:
    for path, text in files_of(name, version, **about).items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)


class Place:
    """A project with small locks, wheels for them, and a Python; `setup` makes the environment."""

    def __init__(self, folder: Path):
        self.folder, self.wheels, self.site = folder, folder / "wheels", folder / "host"
        shutil.copytree(PROJECT / "scripts", folder / "project/scripts", ignore=shutil.ignore_patterns("__pycache__"))
        locks = folder / "project/requirements"
        locks.mkdir()
        (locks / "core.lock").write_text("torch==2.13.0\nfilelock==3.0\n")
        (locks / "music.lock").write_text("-r core.lock\nchimes==1.0\nold-tubes==1.0 ; python_version < '3.0'\n")
        (locks / "ray.lock").write_text("-r core.lock\nbeams==1.0\n")
        for name, version in (("torch", "2.13.0"), ("torch", "2.13.0+cpu"), ("filelock", "3.0"), ("beams", "1.0")):
            make_wheel(self.wheels, name, version)
        # torch is required by what the locks pin, whether it is borrowed or installed
        make_wheel(self.wheels, "chimes", "1.0", requires=("torch>=2", "filelock"))

    def setup(self, installer: str, *words: str, **environment: str) -> tuple[Path, str]:
        python = self.folder / "python3"
        # a Python whose own packages lie in the folder `host`
        python.write_text(f'#!/bin/sh\nexec env PYTHONPATH="{self.site}" "{sys._base_executable}" "$@"\n')
        python.chmod(0o755)
        dropped = ("ATHANOR_", "TORCH_", "PIP_", "UV_", "PYTHON")
        clean = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
        clean |= {"ATHANOR_VENV": str(self.folder / f"venv-{installer}"), "ATHANOR_BASE_PYTHON": str(python)}
        clean |= {"ATHANOR_INSTALLER": installer, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"}
        clean |= {"PIP_FIND_LINKS": str(self.wheels), "UV_CACHE_DIR": str(self.folder / "cache")}
        clean["PATH"] = f"{Path(UV).parent if UV else ''}:/usr/bin:/bin"
        command = [str(self.folder / "project/scripts/setup_env.sh"), "--cpu", *words]
        done = subprocess.run(command, env=clean | environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return Path(done.stdout.strip()), done.stderr


def seen_by(python: Path) -> dict[str, str]:
    """What an environment has, by name and version; without its installers."""
    code = (
        "import json, importlib.metadata as m\n"
        "print(json.dumps({d.name: d.version for d in m.distributions() if d.name not in ('pip', 'setuptools')}))"
    )
    return json.loads(subprocess.check_output([str(python), "-c", code], text=True))


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.mark.parametrize("installer", INSTALLERS)
def test_both_installers_take_the_local_build_of_torch_and_the_same_set(place, installer):
    python, messages = place.setup(installer)
    assert f"({installer})" in messages
    assert seen_by(python) == {"torch": "2.13.0+cpu", "filelock": "3.0", "chimes": "1.0"}
    python, _ = place.setup(installer, "ray")
    assert seen_by(python) == {"torch": "2.13.0+cpu", "filelock": "3.0", "chimes": "1.0", "beams": "1.0"}


@pytest.mark.parametrize("installer", INSTALLERS)
def test_constraints_that_are_set_for_pip_hold(place, installer):
    (place.folder / "constraints.txt").write_text("filelock<3\n")
    with pytest.raises(AssertionError, match="filelock"):
        place.setup(installer, PIP_CONSTRAINT=str(place.folder / "constraints.txt"))


@pytest.fixture
def host_with_torch(place):
    """A host whose Python has torch, what torch requires, and other packages in versions that do not fit."""
    nvidia = "nvidia-all[fast]==13 ; platform_system == 'Linux'"
    put(
        place.site, "torch", "2.13.0+cu130",
        requires=("filelock", nvidia, "absent ; platform_system == 'Windows'", "opt ; extra == 'opt'"),
        modules={"torch/__init__.py": "import nvidia.fast\n", "torch/lib/a.so": "", "torchgen/__init__.py": ""},
    )  # fmt: skip
    put(place.site, "filelock", "2.0")
    put(place.site, "nvidia-all", "13", requires=("nvidia-fast; extra == 'fast'", "nvidia-slow ; extra == 'slow'"))
    put(place.site, "nvidia-fast", "13", modules={"nvidia/fast/__init__.py": "speed = 1\n"})
    put(place.site, "nvidia-slow", "13", modules={"nvidia/slow/__init__.py": ""})
    for name in ("numpy", "opt", "chimes"):
        put(place.site, name, "0.1")
    return place


@pytest.mark.parametrize("installer", INSTALLERS)
def test_a_torch_of_the_host_comes_with_what_it_requires_and_nothing_else(host_with_torch, installer):
    python, messages = host_with_torch.setup(installer)
    assert "Using the torch 2.13.0+cu130" in messages
    assert seen_by(python) == {
        "torch": "2.13.0+cu130", "nvidia-all": "13", "nvidia-fast": "13", "filelock": "3.0", "chimes": "1.0",
    }  # fmt: skip
    code = "import torch, torchgen, filelock, chimes, nvidia.fast; print(torch.__file__, filelock.__version__)"
    where, version = subprocess.check_output([str(python), "-c", code], text=True).split()
    assert version == "3.0", "what the environment has comes before what the host has"
    assert Path(where).resolve() == host_with_torch.site / "torch/__init__.py", "linked, not copied"
    for module in ("numpy", "opt", "nvidia.slow"):
        assert subprocess.run([str(python), "-c", f"import {module}"], capture_output=True).returncode == 1, module


@pytest.mark.parametrize("installer", INSTALLERS)
def test_replacing_a_borrowed_torch_deletes_no_file_of_the_host(host_with_torch, installer):
    """The borrowed torch is replaced by an own one: installers may not remove files through the links."""
    host_with_torch.setup(installer)
    before = sorted(host_with_torch.site.rglob("*"))
    lock = host_with_torch.folder / "project/requirements/core.lock"
    lock.write_text(lock.read_text() + "beams==1.0\n")
    python, _ = host_with_torch.setup(installer, ATHANOR_HOST_TORCH="no")
    assert seen_by(python)["torch"] == "2.13.0+cpu"
    assert [x for x in sorted(host_with_torch.site.rglob("*")) if "__pycache__" not in x.parts] == [
        x for x in before if "__pycache__" not in x.parts
    ]


@needs_uv
def test_a_python_without_ensurepip_and_pip_is_sufficient(place):
    """As on Colab: the environment comes from uv alone."""
    for name in ("ensurepip", "pip"):
        (place.site / name).mkdir(parents=True)
        (place.site / name / "__init__.py").write_text("raise ImportError('taken out by the distribution')\n")
    python, messages = place.setup("uv")
    assert "(uv)" in messages and seen_by(python)["chimes"] == "1.0"
