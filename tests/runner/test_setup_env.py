"""The native environment takes the torch that fits the driver: scripts/setup_env.sh with a stand-in for Python."""

from __future__ import annotations

import os
import subprocess

import pytest

from .conftest import NVIDIA_SMI, PROJECT

CU126 = "https://download.pytorch.org/whl/cu126"
PYTHON = r"""#!/usr/bin/env bash
# a Python that makes environments of itself, and writes down what pip is asked
case "$1 ${2:-}" in
    '-m venv') mkdir -p "$3/bin" "$3/site"; cp "$0" "$3/bin/python" ;;
    '-m pip') shift 3; echo "$*" >> "$ASKED"; [[ -z ${PIP_FAILS:-} ]] || exit 1 ;;
    *purelib*) echo "$(dirname "$0")/../site" ;;
    *importlib.metadata*) [[ -n ${HAS_TORCH:-} ]] || exit 1; printf '%s\n' "$HAS_TORCH" /elsewhere ;;
    *version_info*print* | *print*version_info*) echo '(3, 11)' ;;
esac
"""


@pytest.fixture
def setup(tmp_path):
    """setup(driver, ...) -> (completed process, what pip was asked since the last call)."""
    for name, text in (("python", PYTHON), ("nvidia-smi", NVIDIA_SMI)):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)

    def call(driver, *flags, **environment):
        asked = tmp_path / "asked"
        asked.write_text("")
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("ATHANOR_", "TORCH_"))}
        clean |= {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "ASKED": str(asked), "DRIVER": driver}
        clean |= {"ATHANOR_BASE_PYTHON": str(tmp_path / "bin/python"), "ATHANOR_VENV": str(tmp_path / "venv")}
        words = [str(PROJECT / "scripts/setup_env.sh"), *flags]
        done = subprocess.run(words, env=clean | environment, capture_output=True, text=True, timeout=60)
        return done, asked.read_text().splitlines()

    return call


def test_an_older_driver_gets_the_cuda_12_build_and_nothing_in_its_place(setup):
    done, asked = setup("550.54.15")
    assert done.returncode == 0, done.stderr
    assert f"--index-url {CU126}" in asked[0] and "--no-deps" in asked[0] and "torch==" in asked[0]
    assert "--requirement" in asked[1]
    assert "CUDA 12.6" in done.stderr
    done, asked = setup("550.54.15")
    assert done.returncode == 0 and not asked, "the second time takes milliseconds"


def test_a_new_driver_gets_pips_own(setup):
    done, asked = setup("580.65.06")
    assert done.returncode == 0 and len(asked) == 1
    assert "index-url" not in asked[0]


def test_a_torch_index_given_later_changes_the_build(setup):
    setup("580.65.06")
    done, asked = setup("580.65.06", TORCH_INDEX=CU126)
    assert done.returncode == 0 and "--force-reinstall" in asked[0] and CU126 in asked[0]
    done, asked = setup("580.65.06", TORCH_INDEX="")
    assert done.returncode == 0 and "--force-reinstall" in asked[0] and CU126 not in " ".join(asked)


def test_a_driver_that_is_too_old_is_refused_unless_no_gpu_is_used(setup):
    done, asked = setup("470.82.01")
    assert done.returncode == 6 and not asked
    assert "525.60.13" in done.stderr
    done, asked = setup("470.82.01", "--cpu")
    assert done.returncode == 0 and len(asked) == 1


def test_a_torch_that_the_host_has_is_not_replaced(setup):
    torch = next(x for x in (PROJECT / "requirements.lock").read_text().splitlines() if x.startswith("torch=="))
    done, asked = setup("550.54.15", HAS_TORCH=torch.removeprefix("torch==") + "+cu128")
    assert done.returncode == 0 and len(asked) == 1 and "index-url" not in asked[0]


def test_an_interrupted_setup_is_done_again(setup):
    done, _ = setup("550.54.15", PIP_FAILS="yes")
    assert done.returncode == 6 and CU126 in done.stderr
    done, asked = setup("550.54.15")
    assert done.returncode == 0 and CU126 in asked[0]
