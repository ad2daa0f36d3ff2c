"""The fused search for CUDA: run in Triton's interpreter if there is no GPU, and compiled for several GPUs."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed (torch's CPU build does not include it)"
)


def run(script: str, folder: Path, **environment: str) -> str:
    environment |= {"PYTHONPATH": str(HERE.parents[3]), "TRITON_CACHE_DIR": str(folder)}
    done = subprocess.run(
        [sys.executable, str(HERE / script)], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_kernels_agree_with_an_exhaustive_search_in_float64(tmp_path):
    import torch

    interpreted = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    if interpreted:
        probed = run("triton_probe.py", tmp_path, **interpreted)
        if probed.startswith("refused"):
            pytest.skip(probed.strip())
    assert "all cases hold" in run("triton_cases.py", tmp_path, **interpreted)


def test_kernels_compile_without_a_gpu(tmp_path):
    assert "all built" in run("triton_builds.py", tmp_path)
