"""ATHANOR_STOP_HOST=1: a rented host is stopped when its job has ended, by the way that its provider has."""

from __future__ import annotations

import subprocess

import pytest

from .conftest import stages

KEY = "k" * 40


@pytest.fixture
def stops(host):
    """`stops()`: the words of each call that would stop the host."""
    log = host.folder / "stops"
    for name in ("runpodctl", "curl", "shutdown", "sudo"):
        host.has(name, f'#!/bin/sh\necho {name} "$@" >> {log}\n')
    return lambda: log.read_text().splitlines() if log.exists() else []


@pytest.mark.parametrize(
    ("environment", "call"),
    [
        ({"RUNPOD_POD_ID": "abc12"}, "runpodctl stop pod abc12"),
        ({"CONTAINER_ID": "77", "CONTAINER_API_KEY": KEY}, "https://console.vast.ai/api/v0/instances/77/"),
        ({}, "shutdown -h +1"),
    ],
)
def test_each_kind_of_host_is_stopped_in_its_own_way(host, stops, environment, call):
    host.has_docker()
    done, _ = host.run("--cpu", ATHANOR_STOP_HOST="1", **environment)
    assert done.returncode == 0, done.stderr
    (made,) = stops()
    assert call in made and "ATHANOR_STOP_HOST: the job has ended with 0." in done.stderr
    assert KEY not in done.stderr + done.stdout, "a key is not printed"


def test_a_job_that_failed_stops_the_host_too_and_its_code_stays(host, stops):
    host.has_docker()
    done, _ = host.run("--cpu", ATHANOR_STOP_HOST="1", RUNPOD_POD_ID="a", FAIL_AT="export", FAIL_WITH="4")
    assert done.returncode == 4 and stops() == ["runpodctl stop pod a"]


def test_without_the_variable_and_where_nothing_is_run_no_host_is_stopped(host, stops):
    host.has_docker()
    assert host.run("--cpu", RUNPOD_POD_ID="a")[0].returncode == 0
    for words in (("--dry-run",), ("--help",), ("--gpus", "none")):
        host.run(*words, ATHANOR_STOP_HOST="1", RUNPOD_POD_ID="a")
    assert stops() == []


def test_a_job_that_someone_stopped_leaves_the_host_running(host, stops):
    host.has_docker()
    process = host.start("--cpu", ATHANOR_STOP_HOST="1", RUNPOD_POD_ID="a", HOLD_AT="prepare")
    process.terminate()
    (host.folder / "let-go").touch()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 75, output
    assert stops() == []


def test_a_host_that_cannot_be_stopped_from_inside_is_reported(host, stops):
    host.has_docker()
    (host.root / ".dockerenv").touch()
    done, calls = host.run("--cpu", "--docker", ATHANOR_STOP_HOST="1")
    assert done.returncode == 0 and "this host was NOT stopped, and costs further" in done.stderr
    assert "on the page of its provider" in done.stderr and stops() == [] and stages(calls)[0]


def test_a_trial_run_prints_what_would_be_done(host, stops):
    words = [host.project / "scripts/stop_host.sh", "--dry-run"]
    environment = {"PATH": host.path, "CONTAINER_ID": "77", "CONTAINER_API_KEY": KEY, "HOME": str(host.folder)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "instances/77" in done.stderr and KEY not in done.stderr and stops() == []
