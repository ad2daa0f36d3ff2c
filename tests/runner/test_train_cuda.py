"""The runner, with a stand-in for Python that records the commands that it gets (the stages have separate tests)."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
RUNNER = PROJECT / "train_cuda.sh"

STAND_IN = """#!/usr/bin/env bash
# one file a call, arguments separated by NUL, so that any character survives
if [[ $2 == training.runner.supervisor ]]; then # it runs what follows --
    printf '%s\\0' "$@" >> "$RECORD.supervisor"
    while [[ $1 != -- ]]; do shift; done
    shift
    exec "$@"
fi
printf '%s\\0' "$@" > "$RECORD/$(printf %03d "$(ls "$RECORD" | wc -l)")"
[[ " $* " != *" $FAIL_AT "* ]] || exit "$FAIL_WITH"
[[ -z ${ALSO_AT:-} || " $* " != *" $ALSO_AT "* ]] || exit "$ALSO_WITH"
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
            [str(runner), *map(str, arguments)], cwd=cwd, env=env, capture_output=True, text=True, timeout=300
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
    "budget",
]


def test_without_options_every_stage_runs_in_order(run):
    done, calls = run()
    assert done.returncode == 0, done.stderr
    assert verbs(calls) == ALL
    assert not any("--audio-root" in call for call in calls)


def test_any_folder_name_survives(run, tmp_path):
    """A quote, a space, a dollar, a glob, a newline or a leading dash is a name, never a command."""
    odd = tmp_path / 'it\'s $(touch pwned) *;\n"x"'
    odd.mkdir()
    done, calls = run("--audio-root", odd, "--midi-root", odd, "--out", odd)
    assert done.returncode == 0, done.stderr
    for call in calls[:-2]:
        assert call[call.index("--audio-root") + 1] == str(odd)
        assert call[call.index("--out") + 1] == str(odd)
    assert calls[-2][-1] == f"{odd}/exports"
    assert not list(tmp_path.rglob("pwned"))

    (tmp_path / "-dash").mkdir()
    done, calls = run("--audio-root=-dash", "--midi-root=-dash")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "-dash") in calls[0]


def test_flags_reach_the_stages(run, roots):
    """Every flag that exists changes the commands."""
    _, calls = run(
        "--audio-root", roots / "audio", "--midi-root", roots / "midi",
        "--epochs", 3, "--seed", 7, "--preset", "demo", "--resume", "never", "--cpu",
    )  # fmt: skip
    train = next(call for call in calls if call[2] == "train")
    for flag, value in (("--epochs", "3"), ("--seed", "7"), ("--preset", "demo"), ("--resume", "never")):
        assert train[train.index(flag) + 1] == value
    assert train[train.index("--device") + 1] == "cpu"
    assert calls[1][calls[1].index("--seed") + 1] == "7"


def test_a_setting_reaches_each_model_or_the_one_that_is_named(run):
    _, calls = run("--set", "optim.lr=1e-4", "--set", "midi_generator:model.layers=2", "--set", "logging.wandb=")
    trained = {call[call.index("train") + 1]: call for call in calls if "train" in call}
    both = {"--set=optim.lr=1e-4", "--set=logging.wandb="}
    assert {word for word in trained["spectocloud"] if word.startswith("--set")} == both
    assert {word for word in trained["midi_generator"] if word.startswith("--set")} == {*both, "--set=model.layers=2"}
    rest = [call for call in calls if "train" not in call]
    assert {word for word in rest[0] if word.startswith("--set")} == {  # doctor checks them all
        "--set=spectocloud:optim.lr=1e-4", "--set=spectocloud:logging.wandb=", "--set=midi_generator:optim.lr=1e-4",
        "--set=midi_generator:model.layers=2", "--set=midi_generator:logging.wandb=",
    }  # fmt: skip
    assert not any(word.startswith("--set") for call in rest[1:] for word in call)


def test_several_gpus_start_torchrun(run):
    _, calls = run("--gpus", 4)
    train = next(call for call in calls if "train" in call)
    assert train[:4] == ["-m", "training.runner.launch", "--standalone", "--nproc_per_node=4"]
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


def test_a_demo_ends_with_the_command_for_ones_own_data_and_nothing_else_does(run, roots):
    output, command = run()[0].stdout.split("All done")[1], "./train_cuda.sh music --audio-root DIR --midi-root DIR"
    assert "report.html shows how good they are" in output and "This was a demo" in output
    assert output.endswith(f"{command}\n")
    named = ["--audio-root", roots / "audio", "--midi-root", roots / "midi"]
    for arguments in (named, ["--skip-manifests"], ["--only", "train"]):
        assert "This was a demo" not in run(*arguments)[0].stdout


@pytest.mark.parametrize("code", [3, 4, 5, 6, 75])
def test_first_failing_stage_ends_the_run_with_its_code(run, code):
    done, calls = run(FAIL_AT="midi_generator", FAIL_WITH=str(code))
    assert done.returncode == code
    assert verbs(calls) == ALL[:4]
    assert "All done" not in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--epochs", "ten"], ["--epochs", "0"], ["--epochs"], ["--epochs", "3; id"], ["--preset", "huge"],
        ["--resume", "x"], ["--set"], ["--set", "optim.lr"], ["--set", "nowhere:optim.lr=1"],
        ["--unknown"], ["stray"], ["--cpu", "--gpus", "2"], ["--native", "--docker"], ["--audio-root", "/nowhere/x"],
        ["--nnodes", "2"], ["--nnodes", "2", "--node-rank", "2", "--master-addr", "a"], ["--node-rank", "0"],
        ["--cpu=yes"], ["--gpus", "0"], ["--data-mount", "/nowhere/x"], ["--audio-root", "."],
        ["--persist", "/nowhere/x"], ["--persist", "/etc/passwd"], ["--persist"], ["--estimate=yes"],
        *[[flag, value] for flag in ("--max-hours", "--budget-usd", "--price-per-hour")
          for value in ("0", "0.00", "-1", "nan", "inf", "1e3", "1,5", "3 hours", "", ".", "1234567")],
    ],
)  # fmt: skip
def test_wrong_usage_is_refused_before_anything_starts(run, arguments):
    done, calls = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert not calls


def test_a_wrong_amount_in_the_environment_is_refused_too(run):
    done, calls = run(ATHANOR_BUDGET_USD="five")
    assert (done.returncode, calls) == (2, []) and "--budget-usd" in done.stderr


# -- limits, and hosts that may be lost ----------------------------------------------------------------------------

MONEY = ["--max-hours", "1.5", "--budget-usd", ".75", "--price-per-hour", "0.40"]


@pytest.mark.parametrize("given", ["flags", "environment"])
def test_every_stage_gets_the_limits_of_the_job(run, given):
    """Both limits at once are fine: the stricter counts. Each training gets its share of what is left."""
    environment = dict(
        zip(("ATHANOR_MAX_HOURS", "ATHANOR_BUDGET_USD", "ATHANOR_PRICE_PER_HOUR"), MONEY[1::2], strict=True)
    )
    done, calls = run(*MONEY) if given == "flags" else run(**environment)
    assert done.returncode == 0, done.stderr
    for call in calls[:-1]:
        at = call.index("--max-hours")
        assert call[at : at + 6] == MONEY, call
    assert calls[-1][2:4] == ["budget", "--done"], "and the next job counts from zero"
    assert [call[call.index("--families-left") + 1] for call in calls if call[2] == "train"] == ["2", "1"]
    _, calls = run("--skip-spectocloud")
    assert [call[call.index("--families-left") + 1] for call in calls if call[2] == "train"] == ["1"]


def test_all_stages_of_one_command_get_one_id_with_its_start_time(run, tmp_path):
    """So that the time between them, which is paid for too, is counted as the job's."""
    python = tmp_path / "stand-in"
    python.write_text(f'#!/bin/sh\necho "$ATHANOR_RUNNER" >> {tmp_path}/names\n')
    python.chmod(0o755)
    begun = int(time.time())
    for _ in range(2):
        run(ATHANOR_PYTHON=str(python), ATHANOR_RUNNER="1-of-another")
    names = (tmp_path / "names").read_text().split()
    assert len(names) == 2 * len(ALL) and len(set(names)) == 2
    assert all(begun <= int(name.partition("-")[0]) <= time.time() for name in names)


def test_the_job_is_not_marked_as_done_while_stages_are_still_to_come(run):
    """Compose runs the stages one by one; what a failed job has used counts when it continues."""
    assert "budget" not in verbs(run("--skip-export")[1])
    assert "budget" not in verbs(run(FAIL_AT="verify", FAIL_WITH="4")[1])


def test_an_estimate_trains_nothing(run):
    done, calls = run("--estimate", "--max-hours", "2", "--preset", "demo")
    assert done.returncode == 0 and "Nothing was trained" in done.stdout
    assert [call[2] for call in calls] == ["doctor", "prepare", "estimate", "estimate"]
    assert calls[-1][3] == "midi_generator"
    for flag, value in (("--max-hours", "2"), ("--preset", "demo"), ("--families-left", "1")):
        assert calls[-1][calls[-1].index(flag) + 1] == value


def test_persist_restores_first_and_copies_last(run, tmp_path):
    done, calls = run("--persist", tmp_path / "drive", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert verbs(calls) == ["doctor", "restore", *ALL[1:], "persist"]
    folders = ["--out", str(tmp_path / "out"), "--persist", str(tmp_path / "drive")]
    assert calls[1][3:] == calls[-1][3:] == folders
    assert [call[-2:] for call in calls if call[2] == "train"] == [folders[2:]] * 2
    assert (tmp_path / "drive").is_dir()
    assert "persist" not in verbs(run("--persist", "drive", "--estimate")[1])


@pytest.mark.parametrize("given", ["--persist", "ATHANOR_PERSIST"])
def test_the_url_of_an_object_store_is_passed_on_as_it_is(run, tmp_path, given):
    """It is not a name in the current folder, and no folder is made for it."""
    url = "s3://a-bucket/runs of mine"
    done, calls = run("--persist", url) if given == "--persist" else run(ATHANOR_PERSIST=url)
    assert done.returncode == 0, done.stderr
    assert verbs(calls) == ["doctor", "restore", *ALL[1:], "persist"]
    for call in calls:
        assert (call[-2:] == ["--persist", url]) == (call[2] in ("restore", "train", "persist")), call
    assert not list(tmp_path.glob("s3*")) and not list(tmp_path.glob("*bucket*"))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("gcs://bucket/x", "gcs:// is not supported: use s3://, gs://, az:// or a folder"),
        ("s3://key:secret@bucket/x", "contains a password or key"),
        ("s3://B/x", "does not name a bucket"),
        ("s3://bucket/../x", "names separated by single slashes"),
    ],
)
def test_a_url_that_names_no_place_is_refused(run, url, why):
    done, calls = run("--persist", url)
    assert done.returncode == 2 and why in done.stderr and not calls
    assert "secret" not in done.stderr


@pytest.mark.parametrize("end", ["fails", "is interrupted", "fails, and the copy too"])
def test_results_are_copied_when_a_stage_fails(run, tmp_path, end):
    code = 75 if "interrupted" in end else 5
    also = {"ALSO_AT": "persist", "ALSO_WITH": "6"} if "too" in end else {}
    done, calls = run("--persist", tmp_path, FAIL_AT="midi_generator", FAIL_WITH=str(code), **also)
    assert done.returncode == code, "the first failure's"
    assert verbs(calls) == ["doctor", "restore", *ALL[1:4], "persist"]
    assert ("may be older" in done.stderr) == bool(also)


def test_a_copy_that_fails_at_the_end_is_a_failure(run, tmp_path):
    done, calls = run("--persist", tmp_path, FAIL_AT="persist", FAIL_WITH="6")
    assert done.returncode == 6 and verbs(calls)[-2:] == ["budget", "persist"] and "All done" not in done.stdout


def test_nothing_is_copied_to_a_place_that_could_not_be_restored(run, tmp_path):
    done, calls = run("--persist", tmp_path, FAIL_AT="restore", FAIL_WITH="6")
    assert done.returncode == 6 and verbs(calls) == ["doctor", "restore"]


# -- the supervisor ------------------------------------------------------------------------------------------------


def test_trainings_are_supervised_by_their_progress_and_all_else_is_done_once(run, tmp_path):
    run("--out", tmp_path / "out")
    words = (tmp_path / "record.supervisor").read_text().split("\0")
    starts = [at for at, word in enumerate(words) if word == "training.runner.supervisor"]
    options = [words[at + 1 : words.index("--", at)] for at in starts]
    assert len(options) == len(ALL)
    for title, *rest in (option[1:] for option in options):
        family = title.removeprefix("Train ")
        train = ["--index", f"{tmp_path}/out/checkpoints/{family}/index.json"]
        assert rest == (train if title.startswith("Train") else ["--restarts", "0", "--stop-within", "8"])


@pytest.mark.parametrize("code", [137, 1])
def test_a_killed_stage_is_reported_with_what_to_do(run, code):
    done, _ = run(FAIL_AT="export", FAIL_WITH=str(code))
    assert done.returncode == code
    assert "the same command continues with this stage" in done.stderr and "dmesg" in done.stderr
    done, _ = run(FAIL_AT="export", FAIL_WITH="4")
    assert "same command" not in done.stderr, "an export that differs would differ again"


def test_data_mount_supplies_the_roots_that_are_not_given(run, roots):
    _, calls = run("--data-mount", roots)
    assert calls[0][calls[0].index("--midi-root") + 1] == str(roots / "midi")
    assert calls[0][calls[0].index("--audio-root") + 1] == str(roots / "audio")


def test_dry_run_prints_commands_that_a_shell_reads_back(run, tmp_path):
    odd = tmp_path / "a 'b'"
    odd.mkdir()
    done, calls = run("--audio-root", odd, "--midi-root", odd, "--dry-run")
    assert done.returncode == 0 and not calls
    line = next(line for line in done.stdout.splitlines() if " prepare " in line)
    words = subprocess.run(["bash", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True).stdout.split("\n")
    assert str(odd) in words


def test_it_runs_from_any_folder_through_a_link_and_under_its_older_name(run, tmp_path):
    link = tmp_path / "train"
    link.symlink_to(RUNNER)
    for runner in (link, PROJECT / "scripts" / "train_cuda_v2.sh"):
        done, calls = run(runner=runner, cwd="/")
        assert done.returncode == 0, done.stderr
        assert calls[0][calls[0].index("--out") + 1] == str(PROJECT)


def test_the_runner_does_not_set_cuda_visible_devices(run, tmp_path):
    """Nothing in the runner chooses a device by number."""
    assert "CUDA_VISIBLE_DEVICES" not in RUNNER.read_text()
