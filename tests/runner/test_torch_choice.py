"""Which build of torch fits which driver: scripts/torch_index.sh with simulated output of nvidia-smi."""

from __future__ import annotations

import os
import subprocess

import pytest

from .conftest import NVIDIA_SMI, PROJECT

CU126 = "https://download.pytorch.org/whl/cu126"


@pytest.fixture
def choose(tmp_path):
    def call(driver=None, capability="8.6", **environment):
        if driver is not None:
            (tmp_path / "nvidia-smi").write_text(NVIDIA_SMI)
            (tmp_path / "nvidia-smi").chmod(0o755)
        clean = {name: value for name, value in os.environ.items() if name != "TORCH_INDEX"}
        clean |= {"PATH": f"{tmp_path}:/usr/bin:/bin", "DRIVER": driver or "", "CAPABILITY": capability, **environment}
        script = str(PROJECT / "scripts" / "torch_index.sh")
        return subprocess.run([script], env=clean, capture_output=True, text=True, timeout=300)

    return call


@pytest.mark.parametrize(
    ("driver", "capability", "index"),
    [
        ("580.65.06", "8.9", ""),
        ("590.44.01", "12.0", ""),
        ("580.00", "9.0", ""),
        ("575.57.08", "8.9", CU126),
        ("570.124.06", "9.0", CU126),
        ("550.54.15", "8.6", CU126),
        ("535.183.01", "8.0", CU126),
        ("525.60.13", "7.5", CU126),  # the oldest driver in NVIDIA's compatibility guide
        ("580.65.06", "7.0", CU126),  # a V100, which CUDA 13 does not support
        ("590.44.01", r"6.1\n8.6", CU126),
        ("580.65.06\n580.65.06", r"8.0\n9.0", ""),
    ],
)
def test_the_build_fits_the_driver_and_the_gpu(choose, driver, capability, index):
    done = choose(driver, capability)
    assert (done.returncode, done.stdout.strip()) == (0, index), done.stderr
    assert "torch: " in done.stderr and driver.split("\n")[0] in done.stderr, "the choice and its reason are printed"


@pytest.mark.parametrize(
    ("driver", "capability", "needed"),
    [
        ("525.60.11", "8.6", "525.60.13"),
        ("470.82.01", "8.0", "525.60.13"),
        ("570.124.06", "12.0", "580"),  # Blackwell, which CUDA 12.6 does not support
        ("550.54.15", "10.0", "580"),
        ("590.44.01", r"7.0\n12.0", "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_where_none_fits_the_driver_that_is_needed_is_named(choose, driver, capability, needed):
    done = choose(driver, capability)
    assert done.returncode == 6 and not done.stdout
    assert needed in done.stderr


def test_torch_index_decides_instead(choose):
    done = choose("470.82.01", TORCH_INDEX="https://mirror.example/cu126")
    assert (done.returncode, done.stdout.strip()) == (0, "https://mirror.example/cu126")
    assert choose("550.54.15", TORCH_INDEX="").stdout.strip() == ""


def test_a_host_without_a_working_driver_takes_pips_own_build(choose):
    done = choose()
    assert (done.returncode, done.stdout) == (0, "") and "no NVIDIA driver" in done.stderr
    done = choose("580.1", SMI_FAILS="NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")
    assert (done.returncode, done.stdout) == (0, "") and "couldn't communicate" in done.stderr
