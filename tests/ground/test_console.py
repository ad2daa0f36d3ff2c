"""A console that is closed, has no reader, or lies on a full disk ends no work, and does not change its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
#: how a shell starts "$@": every word that is printed fails
HOW = {
    "stdout closed": '"$@" >&-',
    "stderr closed": '"$@" 2>&-',
    "stdin closed": '"$@" <&-',
    "all closed": '"$@" <&- >&- 2>&-',
    "no reader": 'trap "" PIPE; { "$@"; echo $? > code; } 2>&1 | true; exit "$(< code)"',
    "reader leaves": 'trap "" PIPE; { "$@"; echo $? > code; } 2>&1 | head -n 1; exit "$(< code)"',
    "full disk": '"$@" > /dev/full',
    "full disk for both": '"$@" > /dev/full 2>&1',
}
WORK = """
import sys
from training.console import keep_console
keep_console()
print("one line, and more in a moment", flush=True)
for number in range(50):
    print("step", number, "×", flush=True)
    print("a warning", file=sys.stderr)
with open("descriptor", "w") as file:
    print(file.fileno(), file=file)
sys.exit(int(sys.argv[1]))
"""
TRAIN = """
from pathlib import Path
from training.console import keep_console
keep_console()
from tests.engine import toy
assert toy.run(Path("out")).step == 18
"""


def started(how: str, folder: Path, *words: object, **environment: str) -> subprocess.CompletedProcess:
    command = ["bash", "-c", HOW[how], "bash", sys.executable, *map(str, words)]
    kept = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("how", HOW)
def test_work_continues_and_its_exit_code_is_its_own(how, tmp_path):
    done = started(how, tmp_path, "-c", WORK, 5)
    assert done.returncode == 5, done.stderr
    assert int((tmp_path / "descriptor").read_text()) > 2, "a file was given the number of a standard stream"
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize("how", ["all closed", "reader leaves", "full disk for both"])
def test_a_training_continues_and_its_log_has_every_line(how, tmp_path):
    assert started(how, tmp_path, "-c", TRAIN).returncode == 0
    (log,) = tmp_path.glob("out/runs/toy/*/log.txt")
    assert "step 18/18" in log.read_text()


def test_a_full_disk_under_the_console_is_reported_once_on_the_other(tmp_path):
    note = "standard output cannot be written (No space left on device)"
    assert started("full disk", tmp_path, "-c", WORK, 0).stderr.count(note) == 1
    assert "cannot be written" not in started("reader leaves", tmp_path, "-c", WORK, 0).stderr


@pytest.mark.parametrize("how", ["all closed", "no reader", "full disk for both"])
def test_an_error_keeps_its_code_where_no_one_reads_it(how, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "budget.json").write_text("damaged")
    assert started(how, tmp_path, "-m", "training", "budget", "--out", tmp_path).returncode == 6


@pytest.mark.parametrize("verb", ["plan", "budget"])
def test_a_result_that_a_disk_did_not_take_is_an_error(verb, tmp_path):
    """What these print is their work. A reader that has enough of it is none."""
    words = ("-m", "training", verb, *([] if verb == "plan" else ["--out", tmp_path]))
    done = started("full disk", tmp_path, *words)
    assert done.returncode == 6 and "was not written to standard output: No space left" in done.stderr
    assert started("reader leaves", tmp_path, *words).returncode == 0


def test_letters_that_the_consoles_encoding_misses_are_escaped(tmp_path):
    done = started("stdin closed", tmp_path, "-c", WORK, 0, PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and done.stdout.endswith("step 49 \\xd7\n")


def test_a_console_that_another_program_made_non_blocking_loses_nothing(tmp_path):
    """A shell's other programs share the pipe; a write that it cannot take at once is waited for."""
    code = (
        "import os\nfrom training.console import keep_console\nos.set_blocking(1, False)\nkeep_console()\n"
        "print('x' * 3_000_000)"
    )
    done = started("stdin closed", tmp_path, "-c", code)
    assert done.returncode == 0 and len(done.stdout) == 3_000_001


def test_streams_of_somebody_else_are_left_alone(capsys):
    """A notebook's, or a test's."""
    from training.console import keep_console

    mine = sys.stdout
    keep_console()
    assert sys.stdout is mine
    print(json.dumps("seen"))
    assert capsys.readouterr().out == '"seen"\n'
