"""The variables of a user's shell and the working directory do not change what the scripts do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import PROJECT

#: Runs the real supervisor; in place of a stage, records which modules it would import, and ends.
PYTHON = f"""#!{sys.executable}
import os, sys
here = os.environ["HERE"]
if sys.argv[2] == "training.runner.supervisor":
    os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])
code = "import random, training.workspace, sys; print(random.__file__, training.workspace.__file__, *sys.flags[3:5])"
os.system({sys.executable!r} + f" -c '{{code}}' >> '{{here}}/imported'")
with open(here + "/verbs", "a") as file:
    print(sys.argv[3], repr(os.environ.get("PYTHONPATH")), file=file)
"""
SHADOWS = ("training", "random", "torch", "yaml", "venv", "argparse")


class User:
    """A user's working directory, and the environment variables there."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").write_text(PYTHON)
        (folder / "bin" / "python").chmod(0o755)
        self.here = folder / "here"
        self.here.mkdir()

    def shadows(self) -> None:
        for name in SHADOWS:
            (self.here / f"{name}.py").write_text("raise SystemExit('the user\\'s own module')\n")

    def runs(self, *arguments: object, project: Path = PROJECT, shell: str = '"$@"', **environment: str | None):
        """The runner, through `shell`; a variable that is None is not set."""
        for name in ("verbs", "imported"):
            (self.folder / name).unlink(missing_ok=True)
        given = {**os.environ, "ATHANOR_PYTHON": str(self.folder / "bin" / "python"), "HERE": str(self.folder)}
        given |= {"ATHANOR_OUT": str(self.folder / "out"), **environment}
        given = {name: value for name, value in given.items() if value is not None}
        less = ["--skip-manifests", "--skip-midi", "--skip-export"]  # two stages: each is started in the same way
        words = ["bash", "-c", shell, "bash", str(project / "train_cuda.sh"), *less, *map(str, arguments)]
        return subprocess.run(words, cwd=self.here, env=given, capture_output=True, text=True, timeout=300)

    @property
    def verbs(self) -> list[str]:
        return [line.split()[0] for line in (self.folder / "verbs").read_text().splitlines()]

    @property
    def python_path(self) -> list[str]:
        return (self.folder / "verbs").read_text().split()[1].strip("'").split(":")

    def imported_ours(self) -> bool:
        lines = set((self.folder / "imported").read_text().splitlines())
        return lines == {f"{Path(os.__file__).parent / 'random.py'} {PROJECT / 'training' / 'workspace.py'} 0 0"}


@pytest.fixture
def user(tmp_path):
    return User(tmp_path)


ALL = ["doctor", "train"]


def test_modules_in_the_folder_of_the_user_are_not_imported(user):
    """training.py, torch.py, random.py: by the planner, the supervisor or a stage."""
    user.shadows()
    done = user.runs()
    assert done.returncode == 0, done.stderr
    assert user.verbs == ALL and user.imported_ours()


EXPORTED = {
    "CDPATH": {"CDPATH": f"{PROJECT.parent}:/"},
    "start-up files": {"BASH_ENV": "noise", "ENV": "noise"},
    "functions": {"BASH_FUNC_dirname%%": "() { echo /nowhere; }", "BASH_FUNC_readlink%%": "() { echo /nowhere; }"},
    "shell options": {"SHELLOPTS": "braceexpand:hashall:noglob:xtrace", "POSIXLY_CORRECT": "1", "TMOUT": "1"},
    "grep": {"GREP_OPTIONS": "--color=always -v"},
    "locale": {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8"},
    "no TMPDIR": {"TMPDIR": "/nowhere/at/all"},
    "no HOME": {"HOME": None, "USER": None, "LOGNAME": None},
    "HOME that cannot be written": {"HOME": "/proc"},
    "warnings as errors": {"PYTHONWARNINGS": "error", "PYTHONDEVMODE": "1"},
    "another Python": {"PYTHONHOME": "/nowhere", "PYTHONPLATLIBDIR": "lib64", "PYTHONHASHSEED": "any"},
    "without asserts": {"PYTHONOPTIMIZE": "2", "PYTHONINSPECT": "1", "PYTHONSTARTUP": "noise"},
    "no bytecode kept": {"PYTHONDONTWRITEBYTECODE": "1"},
    "another encoding": {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    "the current folder on the path": {"PYTHONPATH": ":", "PYTHONSAFEPATH": None},
}


@pytest.mark.parametrize("what", EXPORTED)
def test_variables_that_a_shell_exports_have_no_effect(user, what):
    user.shadows()
    (user.here / "noise").write_text("echo noise >> started; set -f; dirname() { echo /nowhere; }\n")
    # exported inside: the shell that only starts the runner is not under test
    exported = {name: value for name, value in EXPORTED[what].items() if value is not None}
    removed = [name for name, value in EXPORTED[what].items() if value is None]
    assignments = " ".join(f"'{name}={value}'" for name, value in exported.items())
    done = user.runs(shell=f'env {" ".join(f"-u {name}" for name in removed)} {assignments} "$@"')
    assert done.returncode == 0, done.stderr
    assert user.verbs == ALL and user.imported_ours()
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("mask", ["000", "077", "0777"])
def test_the_runner_works_with_any_umask(user, mask):
    done = user.runs(shell=f'umask {mask}; "$@"')
    assert done.returncode == 0 and user.verbs == ALL, done.stderr


def test_a_python_path_is_used_where_it_is_meant_and_named_where_it_is_not(user):
    """It comes before the packages of the environment: a numpy of another Python in it ends every stage."""
    done = user.runs(PYTHONPATH=f":{user.folder}::/else/where")
    assert done.returncode == 0 and "is not used" not in done.stdout
    assert user.python_path == [str(PROJECT), str(user.folder), "/else/where"]
    environment = user.folder / "environment"
    environment.mkdir()
    done = user.runs("--dry-run", ATHANOR_PYTHON=None, ATHANOR_VENV=str(environment), PYTHONPATH="/else/where")
    assert done.returncode == 0 and "note: PYTHONPATH=/else/where is not used" in done.stdout, done.stderr


@pytest.mark.parametrize("name", ["a b", 'it\'s "quoted"', "two\nlines", "ends\n", "$(touch pwned) *;", "-dash", "é"])
def test_the_project_may_lie_anywhere(user, name, tmp_path):
    project = tmp_path / name
    (project / "wheelhouse").mkdir(parents=True)
    (project / "train_cuda.sh").write_bytes((PROJECT / "train_cuda.sh").read_bytes())
    (project / "train_cuda.sh").chmod(0o755)
    for part in ("training", "scripts", "requirements"):
        (project / part).symlink_to(PROJECT / part)
    done = user.runs(project=project)
    assert done.returncode == 0, done.stderr
    assert user.verbs == ALL and not list(tmp_path.rglob("pwned"))


def test_a_project_in_a_folder_that_python_cannot_name_is_refused(user, tmp_path):
    project = tmp_path / "a:b"
    shutil.copytree(PROJECT / "scripts", project / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(PROJECT / "train_cuda.sh", project)
    done = user.runs(project=project)
    assert done.returncode == 6 and "has a colon in its name" in done.stderr


CONSOLES = (
    '"$@" >&-',
    '"$@" 2>&-',
    '"$@" <&- >&- 2>&-',
    '"$@" > /dev/full',
    '"$@" > /dev/full 2>&1',
    '{ "$@"; echo $? > code; } | true; exit "$(< code)"',
    '{ "$@"; echo $? > code; } 2>&1 | head -n 1; exit "$(< code)"',
)


@pytest.mark.parametrize("how", CONSOLES)
def test_a_console_that_cannot_be_written_ends_no_job(user, how):
    done = user.runs(shell=how)
    assert done.returncode == 0 and user.verbs == ALL, done.stderr


def test_make_finds_its_environment_whatever_is_exported(tmp_path):
    """`cd` by an exported CDPATH prints where it went, and goes elsewhere."""
    (tmp_path / "scripts").mkdir()
    python = tmp_path / "python"
    exported = {"CDPATH": str(tmp_path), "BASH_ENV": str(tmp_path / "noise"), "PYTHONSAFEPATH": "1",
                "PYTHONHOME": "/nowhere", "POSIXLY_CORRECT": "1", "PYTHONDONTWRITEBYTECODE": "1",
                "ATHANOR_PYTHON": str(python)}  # fmt: skip
    (tmp_path / "noise").write_text("echo noise\n")
    python.write_text(f'#!/bin/sh\necho "${{PYTHONDONTWRITEBYTECODE-bytecode is kept}}"\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    words = ["make", "-C", PROJECT, "soak-small", "ARGS=--help"]
    done = subprocess.run(words, env={**os.environ, **exported}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "noise" not in done.stdout, done.stderr
    assert "bytecode is kept" in done.stdout
    words = [PROJECT / "scripts" / "setup_env.sh", "--check"]
    venv = {"ATHANOR_PYTHON": "", "ATHANOR_VENV": str(tmp_path / "none")}
    done = subprocess.run(words, env={**os.environ, **exported, **venv}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 6 and f"no finished environment in {tmp_path / 'none'}" in done.stderr
