"""The programs of the field, for tests: neural-amp-modeler in two versions, and the players' C++ core as WebAssembly.

They are fetched once into wheelhouse/players (ATHANOR_PLAYERS: elsewhere), without what they depend on: the first
trains with PyTorch Lightning, which none of its networks needs. Their digests are pinned here. A host without
network or node skips the tests that need them, with the reason.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from training.workspace import PROJECT

FOLDER = Path(os.environ.get("ATHANOR_PLAYERS") or PROJECT / "wheelhouse" / "players")
NAM = "neural_amp_modeler-{}-py3-none-any.whl"
DIGESTS = {
    NAM.format("0.12.2"): "ace6a461e54f59c78e332c2dc25f118ce9a5edaa4947c14989860331557d3802",
    NAM.format("0.13.0"): "403531a815f23d2628c7afcf85c18a522db57838c36af44cf8b1e1048cc53129",
    "wavio-0.0.9-py3-none-any.whl": "c5966fd0f9ba4b6fddeb3d6622f9a6b62ca9e4c3daf5e6c3633a29a58dfbfed5",
    "opendaw-nam-wasm-1.2.0.tgz": "ed55afca958f59e83ce3d4d05d5e48b1c735774804e6c32c54aaf3b9aa46dba7",
}
_SECONDS = 180


def _fetched(name: str, command: list[str]) -> Path:
    """The folder of an unpacked package; skips the test where it cannot be had."""
    folder = FOLDER / name.rpartition(".")[0]
    if folder.is_dir():
        return folder
    FOLDER.mkdir(parents=True, exist_ok=True)
    archive = FOLDER / name
    if not archive.is_file():
        try:
            done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"{name} cannot be fetched: {error}")
        if done.returncode or not archive.is_file():
            pytest.skip(f"{name} cannot be fetched: {done.stderr.strip()[-200:]}")
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == DIGESTS[name], (
        f"{name} is another file than the pinned one"
    )
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    if name.endswith(".whl"):
        zipfile.ZipFile(archive).extractall(partial)
    else:
        with tarfile.open(archive) as packed:
            packed.extractall(partial, filter="data")
    partial.replace(folder)
    return folder


def _wheel(name: str, requirement: str) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary", ":all:", requirement]  # fmt: skip
    return _fetched(name, command)


def nam_models(version: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`nam.models` of neural-amp-modeler 0.12.2 or 0.13.0, without its trainer, for the time of a test."""
    pytest.importorskip("librosa", reason="neural-amp-modeler imports librosa (setup_env.sh music)")
    package = _wheel(NAM.format(version), f"neural-amp-modeler=={version}") / "nam"
    wavio = _wheel("wavio-0.0.9-py3-none-any.whl", "wavio==0.0.9")
    for name in [name for name in sys.modules if name == "nam" or name.startswith("nam.")]:
        monkeypatch.delitem(sys.modules, name)
    # the package as it is, but for its __init__, which imports the trainer
    spec = importlib.util.spec_from_file_location(
        "nam", package / "__init__.py", submodule_search_locations=[str(package)]
    )
    assert spec
    root = importlib.util.module_from_spec(spec)
    root.__version__ = version
    monkeypatch.setitem(sys.modules, "nam", root)
    monkeypatch.syspath_prepend(wavio)
    import nam.models

    return nam.models


def played_by_the_core(capture: Path, sound: np.ndarray, rate: int, room: Path) -> np.ndarray:
    """float32 [n] through the capture, by the C++ core of the players."""
    run_the_core(capture, sound, rate, room)
    return np.frombuffer((room / "out").read_bytes(), np.float32).copy()


def run_the_core(capture: Path, sound: np.ndarray, rate: int, room: Path) -> float:
    """The same, into room/out; returns the seconds of processor time for a second of sound."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("the players' core needs node and npm")
    package = _fetched("opendaw-nam-wasm-1.2.0.tgz", ["npm", "pack", "--silent", "@opendaw/nam-wasm@1.2.0"])
    (room / "in").write_bytes(sound.astype(np.float32).tobytes())
    script = Path(__file__).with_name("play.mjs")
    words = [script, package / "package" / "dist", capture, rate, room / "in", room / "out"]
    done = subprocess.run(["node", *map(str, words)], capture_output=True, text=True, timeout=_SECONDS)
    assert done.returncode == 0, done.stderr[-500:]
    return float(done.stdout)
