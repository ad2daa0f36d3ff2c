"""A training that is killed while ridge is fitted, and again in a step, ends with the bytes of one that is not; also on
two ranks among which the weights of each subject are sharded."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from tests.domains.brain.conftest import SUBJECTS
from tests.domains.brain.killed_job import FAMILIES, SHARDED


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


@pytest.mark.parametrize("family", SHARDED)
def test_two_ranks_with_sharded_subjects_that_are_killed_end_with_the_same_bits(found, family):
    own = found["sharded"][family]
    killed, done = [-signal.SIGKILL] * 2, [0, 0]
    assert own["codes"] == [done, done, killed, done] and own["differences"] == []
    (first, second), _ = own["logs"]["sharded-killed"]
    assert f"{SUBJECTS} blocks sharded over 2 processes" in first and "resumed at step" in second


@pytest.mark.parametrize("family", SHARDED)
def test_sharded_subjects_have_the_losses_of_two_replicas(found, family):
    logs = found["sharded"][family]["logs"]
    (headline,), replicas = logs["replicas"]
    assert "sharded" not in headline
    for one, other in zip(replicas, logs["sharded"][1], strict=True):
        for key in {"loss", "grad_norm", "val_loss"} & one.keys():
            assert other[key] == pytest.approx(one[key], rel=2e-4), (key, one["step"])
