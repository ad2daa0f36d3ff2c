"""The runner, with a stand-in for Python that records what it was asked to run (the stages have tests of their own)."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
RUNNER = PROJECT / "train_cuda.sh"

STAND_IN = """#!/usr/bin/env bash
# one file a call, arguments separated by NUL, so that any character survives
printf '%s\\0' "$@" > "$RECORD/$(printf %03d "$(ls "$RECORD" | wc -l)")"
[[ " $* " != *" $FAIL_AT "* ]] || exit "$FAIL_WITH"
"""


@pytest.fixture
def run(tmp_path):
    """run(*arguments, **environment) -> (completed process, list of recorded calls)."""
    stand_in = tmp_path / "python"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)

    def call(*arguments, runner=RUNNER, cwd=tmp_path, **environment):
        record = tmp_path / "record"
        record.mkdir(exist_ok=True)
        for old in record.iterdir():
            old.unlink()
        env = {**os.environ, "ATHANOR_PYTHON": str(stand_in), "RECORD": str(record)}
        env |= {"FAIL_AT": "nothing", "FAIL_WITH": "0", **environment}
        done = subprocess.run(
            [str(runner), *map(str, arguments)], cwd=cwd, env=env, capture_output=True, text=True, timeout=60
        )
        calls = [p.read_bytes().decode().split("\0")[:-1] for p in sorted(record.iterdir())]
        return done, calls

    return call


@pytest.fixture
def roots(tmp_path):
    for name in ("audio", "midi"):
        (tmp_path / "songs" / name).mkdir(parents=True)
    return tmp_path / "songs"


def verbs(calls):
    return [" ".join(call[2:4]) if call[2] in ("train", "evaluate") else call[2] for call in calls]


ALL = [
    "doctor",
    "prepare",
    "train spectocloud",
    "train midi_generator",
    "evaluate spectocloud",
    "evaluate midi_generator",
    "export",
    "verify",
]


def test_without_options_every_stage_runs_in_order(run):
    done, calls = run()
    assert done.returncode == 0, done.stderr
    assert verbs(calls) == ALL
    assert not any("--audio-root" in call for call in calls)


def test_any_folder_name_survives(run, tmp_path):
    """R1: a quote, a space, a dollar, a glob, a newline or a leading dash is a name, never a command."""
    odd = tmp_path / "it's $(touch pwned) *;\n\"x\""
    odd.mkdir()
    done, calls = run("--audio-root", odd, "--midi-root", odd, "--out", odd)
    assert done.returncode == 0, done.stderr
    for call in calls[:-1]:
        assert call[call.index("--audio-root") + 1] == str(odd)
        assert call[call.index("--out") + 1] == str(odd)
    assert calls[-1][-1] == f"{odd}/exports"
    assert not list(tmp_path.rglob("pwned"))

    (tmp_path / "-dash").mkdir()
    done, calls = run("--audio-root=-dash", "--midi-root=-dash")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "-dash") in calls[0]


def test_flags_reach_the_stages(run, roots):
    """R6: every flag that exists changes the commands."""
    _, calls = run(
        "--audio-root", roots / "audio", "--midi-root", roots / "midi",
        "--epochs", 3, "--seed", 7, "--preset", "demo", "--resume", "never", "--cpu",
    )  # fmt: skip
    train = next(call for call in calls if call[2] == "train")
    for flag, value in (("--epochs", "3"), ("--seed", "7"), ("--preset", "demo"), ("--resume", "never")):
        assert train[train.index(flag) + 1] == value
    assert train[train.index("--device") + 1] == "cpu"
    assert calls[1][calls[1].index("--seed") + 1] == "7"


def test_several_gpus_start_torchrun(run):
    _, calls = run("--gpus", 4)
    train = next(call for call in calls if "train" in call)
    assert train[:4] == ["-m", "training.launch", "--standalone", "--nproc_per_node=4"]
    assert train[train.index("--device") + 1] == "cuda"


@pytest.mark.parametrize(
    ("flag", "left"),
    [
        (["--skip-manifests"], [v for v in ALL if v != "prepare"]),
        (["--skip-spectocloud"], [v for v in ALL if "spectocloud" not in v]),
        (["--skip-midi"], [v for v in ALL if "midi" not in v]),
        (["--skip-export"], ALL[:4]),
        (["--skip-midi", "--skip-export"], ALL[:3]),
    ],
)
def test_skip_flags_leave_out_their_stage(run, flag, left):
    _, calls = run(*flag)
    assert verbs(calls) == left


@pytest.mark.parametrize("code", [3, 4, 5, 6, 75])
def test_first_failing_stage_ends_the_run_with_its_code(run, code):
    """R7"""
    done, calls = run(FAIL_AT="midi_generator", FAIL_WITH=str(code))
    assert done.returncode == code
    assert verbs(calls) == ALL[:4]
    assert "All done" not in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--epochs", "ten"], ["--epochs", "0"], ["--epochs"], ["--epochs", "3; id"], ["--preset", "huge"],
        ["--resume", "x"],
        ["--unknown"], ["stray"], ["--cpu", "--gpus", "2"], ["--native", "--docker"], ["--audio-root", "/nowhere/x"],
        ["--nnodes", "2"], ["--nnodes", "2", "--node-rank", "2", "--master-addr", "a"], ["--node-rank", "0"],
        ["--cpu=yes"], ["--gpus", "0"], ["--data-mount", "/nowhere/x"], ["--audio-root", "."],
    ],
)  # fmt: skip
def test_wrong_usage_is_refused_before_anything_starts(run, arguments):
    done, calls = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert not calls


def test_data_mount_supplies_the_roots_that_are_not_given(run, roots):
    _, calls = run("--data-mount", roots)
    assert calls[0][calls[0].index("--midi-root") + 1] == str(roots / "midi")
    assert calls[0][calls[0].index("--audio-root") + 1] == str(roots / "audio")


def test_missing_ffmpeg_is_told_before_anything_starts(run, roots, tmp_path):
    (roots / "audio" / "song.M4A").write_bytes(b"x")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "env", "readlink", "dirname", "find", "grep"):
        (tools / name).symlink_to(subprocess.check_output(["which", name], text=True).strip())
    done, calls = run("--audio-root", roots / "audio", "--midi-root", roots / "midi", PATH=str(tools))
    assert (done.returncode, calls) == (6, [])
    assert "sudo apt-get install ffmpeg" in done.stderr


def test_dry_run_prints_commands_that_a_shell_reads_back(run, tmp_path):
    odd = tmp_path / "a 'b'"
    odd.mkdir()
    done, calls = run("--audio-root", odd, "--midi-root", odd, "--dry-run")
    assert done.returncode == 0 and not calls
    line = next(line for line in done.stdout.splitlines() if " prepare " in line)
    words = subprocess.run(["bash", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True).stdout.split("\n")
    assert str(odd) in words


def test_it_runs_from_any_folder_through_a_link_and_under_its_older_name(run, tmp_path):
    """R5"""
    link = tmp_path / "train"
    link.symlink_to(RUNNER)
    for runner in (link, PROJECT / "scripts" / "train_cuda_v2.sh"):
        done, calls = run(runner=runner, cwd="/")
        assert done.returncode == 0, done.stderr
        assert calls[0][calls[0].index("--out") + 1] == str(PROJECT)


def test_visible_devices_are_the_users_own(run, tmp_path):
    """R8: nothing in the runner chooses a device by number."""
    assert "CUDA_VISIBLE_DEVICES" not in RUNNER.read_text()


def test_a_signal_reaches_the_running_stage_and_its_exit_code_comes_back(tmp_path):
    """R2, T10: no terminal here; SIGTERM to the runner lets the stage save, and ends with the stage's own code."""
    stand_in = tmp_path / "python"
    ready = tmp_path / "ready"
    stand_in.write_text(
        "#!/usr/bin/env python3\nimport signal, sys, pathlib\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(75)))\n"
        f"pathlib.Path({str(ready)!r}).touch()\nsignal.pause()\n"
    )
    stand_in.chmod(0o755)
    process = subprocess.Popen(
        [str(RUNNER)],
        env={**os.environ, "ATHANOR_PYTHON": str(stand_in)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 20
    while not ready.exists() and time.monotonic() < deadline:
        os.sched_yield()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 75
    assert "saved" in out and "Run the same command again" in err
