"""The calls of uv and pip that scripts/setup_env.sh makes, and when: with stand-ins for Python, uv and nvidia-smi."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from .conftest import NVIDIA_SMI, PROJECT

CU126 = "https://download.pytorch.org/whl/cu126"
PINNED_UV = re.search(r"^uv_version=(\S+)$", (PROJECT / "scripts/installer.sh").read_text(), re.M)[1]
PINNED_TORCH = re.search(r"^torch==(\S+)$", (PROJECT / "requirements/core.lock").read_text(), re.M)[1]
PYTHON = r"""#!/usr/bin/env bash
# a Python that makes environments with itself as the interpreter, and records the arguments of pip
case "$1 ${2:-}" in
    '-m venv') mkdir -p "$3/bin" "$3/site"; cp "$0" "$3/bin/python" ;;
    '-m pip')
        [[ -z ${NO_PIP:-} ]] || exit 1
        [[ ${3:-} != --version ]] || exit 0
        echo "pip: $*" >> "$CALLS"
        if [[ $* == *--target* ]]; then
            [[ -z ${NO_UV:-} ]] || exit 1
            folder=$(grep -oP -- '--target \K\S+' <<< "$*")
            mkdir -p "$folder/bin" && cp "$STAND_IN_UV" "$folder/bin/uv"
        fi
        [[ $* == *--target* || -z ${PIP_FAILS:-} ]] || exit 1 ;;
    *pip_settings.py*) exec "$REAL_PYTHON" "$@" ;;
    *host_torch.py' version') [[ -n ${HAS_TORCH:-} ]] && echo "$HAS_TORCH" ;;
    *host_torch.py' link') echo torch ;;
    *'import venv, ensurepip'*) [[ -z ${NO_ENSUREPIP:-} ]] ;;
    *purelib*) echo "$(dirname "$0")/../site" ;;
    *sys.executable*) echo "$0" ;;
    *print*version_info*) echo '(3, 11)' ;;
esac
"""
UV = r"""#!/usr/bin/env bash
case "$1 ${2:-}" in
    '--version '*) echo "uv ${UV_SAYS:-@PINNED@} (a stand-in)" ;;
    'venv '*) mkdir -p "${@: -1}/bin" "${@: -1}/site"; cp "$ATHANOR_BASE_PYTHON" "${@: -1}/bin/python" ;;
    'pip install')
        [[ ${@: -1} != pip ]] || exit 0
        echo "uv: $*" >> "$CALLS"
        env | grep -E '^UV_|^SSL_CERT' >> "$SEEN"
        [[ -z ${UV_FAILS:-} ]] || exit 1 ;;
esac
""".replace("@PINNED@", PINNED_UV)


class Setup:
    """setup(driver, ...) -> (completed process, the arguments of uv and pip in this call)."""

    def __init__(self, folder):
        self.folder, self.venv, self.project = folder, folder / "venv", folder / "project"
        for name in ("scripts", "requirements"):
            shutil.copytree(PROJECT / name, self.project / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name, text in (("bin/python", PYTHON), ("bin/nvidia-smi", NVIDIA_SMI), ("stand-in-uv", UV)):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    def has_uv(self):
        shutil.copy(self.folder / "stand-in-uv", self.folder / "bin/uv")

    def __call__(self, driver, *arguments, **environment):
        calls, seen = self.folder / "calls", self.folder / "seen"
        calls.write_text("")
        seen.write_text("")
        dropped = ("ATHANOR_", "TORCH_", "PIP_", "UV_", "SSL_", "REQUESTS_", "CURL_")
        clean = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
        clean |= {"PATH": f"{self.folder / 'bin'}:/usr/bin:/bin", "DRIVER": driver}
        clean |= {"CALLS": str(calls), "SEEN": str(seen)}
        clean |= {"ATHANOR_BASE_PYTHON": str(self.folder / "bin/python"), "ATHANOR_VENV": str(self.venv)}
        clean |= {"REAL_PYTHON": sys.executable, "STAND_IN_UV": str(self.folder / "stand-in-uv")}
        clean |= {"PIP_CONFIG_FILE": os.devnull}  # whatever is configured on this host
        words = [str(self.project / "scripts/setup_env.sh"), *arguments]
        done = subprocess.run(words, env=clean | environment, capture_output=True, text=True, timeout=300)
        self.seen = dict(line.split("=", 1) for line in seen.read_text().splitlines())
        return done, calls.read_text().splitlines()


@pytest.fixture
def bare(tmp_path):
    """A host without uv."""
    return Setup(tmp_path)


@pytest.fixture(params=["uv", "pip"])
def setup(tmp_path, request):
    """The same host with uv, and with pip alone."""
    setup = Setup(tmp_path)
    if request.param == "uv":
        setup.has_uv()
        return setup
    return lambda *words, **environment: setup(*words, **{"ATHANOR_INSTALLER": "pip", **environment})


def only_from(index):
    """A pattern: an install that takes torch from this index and from no other, and nothing besides torch."""
    return re.compile(rf"--no-deps --force-reinstall --(default-index|index-url) {re.escape(index)} torch==")


# -- which torch: the same with both installers --------------------------------------------------------------------


def test_an_older_driver_gets_the_cuda_12_build_and_nothing_in_its_place(setup):
    done, calls = setup("550.54.15")
    assert done.returncode == 0, done.stderr
    assert only_from(CU126).search(calls[0])
    assert "--requirement" in calls[1] and f"--extra-index-url {CU126}" in calls[1]
    assert "CUDA 12.6" in done.stderr
    done, calls = setup("550.54.15")
    assert done.returncode == 0 and not calls, "the second time takes milliseconds"


def test_a_new_driver_gets_pips_own(setup):
    done, calls = setup("580.65.06")
    assert done.returncode == 0 and len(calls) == 1, done.stderr
    assert "index" not in calls[0]


def test_a_torch_index_given_later_changes_the_build(setup):
    setup("580.65.06")
    done, calls = setup("580.65.06", TORCH_INDEX=CU126)
    assert done.returncode == 0 and only_from(CU126).search(calls[0])
    done, calls = setup("580.65.06", TORCH_INDEX="")
    assert done.returncode == 0 and "--force-reinstall" in calls[0] and CU126 not in " ".join(calls)


def test_a_folder_of_wheels_can_be_the_only_source_of_torch(setup, tmp_path):
    done, calls = setup("550.54.15", TORCH_INDEX=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert f"--no-deps --force-reinstall --no-index --find-links {tmp_path} torch==" in calls[0]
    assert "--extra-index-url" not in calls[1]


def test_a_driver_that_is_too_old_is_refused_unless_no_gpu_is_used(setup):
    done, calls = setup("470.82.01")
    assert done.returncode == 6 and not calls
    assert "525.60.13" in done.stderr
    done, calls = setup("470.82.01", "--cpu")
    assert done.returncode == 0 and len(calls) == 1


@pytest.mark.parametrize("version", [f"{PINNED_TORCH}+cu128", "2.11.0+cu128"])
def test_a_torch_that_the_host_has_is_not_replaced(setup, version):
    done, calls = setup("550.54.15", HAS_TORCH=version)
    assert done.returncode == 0 and len(calls) == 1 and "index" not in calls[0]
    assert "Using the torch" in done.stderr


def test_a_torch_of_the_host_that_was_not_tested_or_is_not_wanted_is_not_used(setup, tmp_path):
    for version in ("2.5.1+cu124", "2.1.1", "2.12.0+cu128"):
        done, calls = setup("550.54.15", HAS_TORCH=version)
        assert done.returncode == 0 and only_from(CU126).search(calls[0])
        assert f"torch {version}" in done.stderr and "gets its own" in done.stderr
        shutil.rmtree(tmp_path / "venv")
    done, calls = setup("550.54.15", "--dev", HAS_TORCH="2.13.0+cu128", ATHANOR_HOST_TORCH="no")
    assert done.returncode == 0 and "Using the torch" not in done.stderr


def test_an_interrupted_setup_is_done_again(setup):
    done, _ = setup("550.54.15", PIP_FAILS="yes", UV_FAILS="yes")
    assert done.returncode == 6 and CU126 in done.stderr
    done, calls = setup("550.54.15")
    assert done.returncode == 0 and CU126 in calls[0]


# -- one environment, one mark a word ------------------------------------------------------------------------------


def test_an_environment_gains_another_extra_and_keeps_the_first(setup):
    done, calls = setup("580.65.06")
    assert done.returncode == 0 and re.search(r"--requirement \S+/music\.lock$", calls[0]), calls
    done, calls = setup("580.65.06", "ray")
    assert done.returncode == 0 and len(calls) == 1
    assert "/ray.lock" in calls[0] and "music.lock" not in calls[0], "what is there is not installed again"
    for words in ([], ["music"], ["ray"], ["music", "ray"], ["core"]):
        done, calls = setup("580.65.06", *words)
        assert done.returncode == 0 and not calls, words
    assert setup("580.65.06", "--check")[0].returncode == 0
    assert setup("580.65.06", "--dev", "--check")[0].returncode == 6


def test_what_was_pinned_to_another_version_since_is_installed_again(bare):
    bare.has_uv()
    bare("580.65.06", "music", "ray")
    lock = bare.project / "requirements/ray.lock"
    lock.write_text(lock.read_text() + "another==1.0\n")
    assert not bare("580.65.06")[1], "music's lock is what it was"
    assert "/ray.lock" in bare("580.65.06", "ray")[1][0]
    lock = bare.project / "requirements/core.lock"
    lock.write_text(lock.read_text() + "another==1.0\n")
    assert bare("580.65.06", "--check")[0].returncode == 6
    assert bare("580.65.06")[1] and bare("580.65.06", "ray")[1], "the core's lock counts for every word"


def test_a_failed_extra_does_not_unmake_the_first(bare):
    bare.has_uv()
    bare("580.65.06")
    done, _ = bare("580.65.06", "ray", UV_FAILS="yes", PIP_FAILS="yes")
    assert done.returncode == 6 and "ray.lock" in done.stderr
    assert bare("580.65.06", "--check")[0].returncode == 0
    assert bare("580.65.06", "ray", "--check")[0].returncode == 6
    bare("580.65.06", "ray")
    lock = bare.project / "requirements/ray.lock"
    before = lock.read_text()
    lock.write_text(before + "another==1.0\n")
    bare("580.65.06", "ray", UV_FAILS="yes", PIP_FAILS="yes")
    lock.write_text(before)
    assert bare("580.65.06", "ray", "--check")[0].returncode == 6, "what was half installed is not complete"


@pytest.mark.parametrize("word", ["nonsense", "../music", "-x", "MUSIC"])
def test_an_unknown_word_is_refused_with_the_known_ones(bare, word):
    (bare.project / "music.lock").write_text("elsewhere==1.0\n")
    done, calls = bare("580.65.06", word)
    assert done.returncode == 2 and not calls and word in done.stderr
    known = " ".join(sorted(lock.stem for lock in (bare.project / "requirements").glob("*.lock")))
    assert word == "-x" or f"unknown word {word}; there are: {known}\n" in done.stderr
    assert "music" in known.split() and "dev" in known.split()


# -- which installer -----------------------------------------------------------------------------------------------


def test_uv_is_fetched_once_in_its_pinned_version_and_kept_with_the_environment(bare):
    done, calls = bare("580.65.06")
    assert done.returncode == 0 and "(uv)" in done.stderr, done.stderr
    assert calls[0].startswith("pip: ") and calls[0].endswith(f"uv=={PINNED_UV}") and calls[1].startswith("uv: ")
    done, calls = bare("580.65.06", "ray")
    assert done.returncode == 0 and len(calls) == 1 and calls[0].startswith("uv: ")


def test_an_older_uv_of_the_host_is_not_used(bare):
    bare.has_uv()
    done, calls = bare("580.65.06", UV_SAYS="0.4.30", ATHANOR_INSTALLER="uv")
    assert done.returncode == 6 and f"uv=={PINNED_UV}" in done.stderr
    assert all(line.startswith("pip: ") for line in calls)


def test_pip_installs_where_uv_cannot_be_had_and_where_it_fails(bare):
    done, calls = bare("580.65.06", NO_UV="yes")
    assert done.returncode == 0 and "(pip)" in done.stderr and "cannot be had" in done.stderr
    assert "--requirement" in calls[-1] and calls[-1].startswith("pip: ")
    shutil.rmtree(bare.venv)
    done, calls = bare("580.65.06", UV_FAILS="yes")
    assert done.returncode == 0 and "uv could not install music.lock" in done.stderr
    assert [line.split(":")[0] for line in calls] == ["pip", "uv", "pip"]
    shutil.rmtree(bare.venv)
    done, calls = bare("580.65.06", UV_FAILS="yes", ATHANOR_INSTALLER="uv")
    assert done.returncode == 6 and len(calls) == 2
    assert bare("580.65.06", ATHANOR_INSTALLER="conda")[0].returncode == 2


def test_a_python_without_ensurepip_gets_its_environment_from_uv(bare):
    bare.has_uv()
    done, calls = bare("580.65.06", NO_ENSUREPIP="yes", NO_PIP="yes")
    assert done.returncode == 0 and calls[0].startswith("uv: "), done.stderr


def test_without_uv_and_ensurepip_the_package_that_helps_is_named(bare):
    # the real pip of /usr/bin/python3, if there is one, must not be calls
    (bare.folder / "bin/python3").symlink_to("python")
    environment = {"NO_ENSUREPIP": "yes", "NO_UV": "yes", "PIP_NO_INDEX": "1"}
    done, _ = bare("580.65.06", **environment)
    assert done.returncode == 6 and "sudo apt-get install python3-venv" in done.stderr


# -- what is configured for pip ------------------------------------------------------------------------------------


def test_uv_gets_the_mirror_the_wheels_the_certificates_and_the_constraints_of_pip(bare, tmp_path):
    bare.has_uv()
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://mirror.example/simple\ncert = /a/ca.pem\ntimeout = 77\n"
        "[install]\nfind-links = /wheels\n    /more,wheels\n[download]\nno-index = true\n"
    )
    done, calls = bare(
        "580.65.06",
        PIP_CONFIG_FILE=str(tmp_path / "pip.conf"), PIP_CONSTRAINT="/a/c.txt /b/c.txt",
        PIP_EXTRA_INDEX_URL="https://one.example https://two.example", PIP_TRUSTED_HOST="one.example",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "mirror.example" not in calls[0], "a password in an address must not show in the list of processes"
    expected = {
        "UV_DEFAULT_INDEX": "https://mirror.example/simple",
        "UV_INDEX": "https://one.example https://two.example",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "file:///wheels,file:///more%2Cwheels",
        "UV_CONSTRAINT": "/a/c.txt /b/c.txt",
        "UV_INSECURE_HOST": "one.example",
        "UV_HTTP_TIMEOUT": "77",
        "SSL_CERT_FILE": "/a/ca.pem",
    }
    assert {name: bare.seen.get(name) for name in expected} == expected


def test_torch_from_an_index_comes_from_no_other_place_that_is_configured(bare):
    bare.has_uv()
    bare("550.54.15", PIP_EXTRA_INDEX_URL="https://one.example", PIP_FIND_LINKS="/wheels", UV_FAILS="yes")
    assert "UV_INDEX" not in bare.seen and "UV_FIND_LINKS" not in bare.seen


def test_what_is_set_for_uv_wins_over_what_is_set_for_pip(bare):
    bare.has_uv()
    bare("580.65.06", PIP_INDEX_URL="https://pip.example", UV_DEFAULT_INDEX="https://uv.example")
    assert bare.seen["UV_DEFAULT_INDEX"] == "https://uv.example"
    shutil.rmtree(bare.venv)
    bare("580.65.06", PIP_INDEX_URL="https://pip.example", UV_INDEX_URL="https://uv.example")
    assert "UV_DEFAULT_INDEX" not in bare.seen and bare.seen["UV_INDEX_URL"] == "https://uv.example"


def test_an_index_that_pip_may_not_use_is_not_used_by_uv(bare):
    bare.has_uv()
    assert "--no-index" in bare("580.65.06", PIP_NO_INDEX="true")[1][0]
    shutil.rmtree(bare.venv)
    assert "--no-index" not in bare("580.65.06", PIP_NO_INDEX="false")[1][0]
