"""A training that is killed while ridge is fitted, and again in a step, ends with the bytes of one that is not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from tests.domains.brain.killed_job import FAMILIES


@pytest.fixture(scope="module")
def found(prepared, tmp_path_factory):
    job, _ = prepared
    words = [job.workspace.root, tmp_path_factory.mktemp("killed")]
    command = [sys.executable, "-m", "tests.domains.brain.killed_job", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("family", FAMILIES)
def test_kills_in_ridge_and_in_a_step_change_no_byte(found, family):
    assert found[family]["codes"] == [0, -signal.SIGKILL, -signal.SIGKILL, 0]
    assert found[family]["differences"] == []
