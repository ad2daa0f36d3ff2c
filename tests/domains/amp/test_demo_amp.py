"""The demo's captures."""

from __future__ import annotations

import json

import pytest
import torch

from training.data.identity import is_marked_synthetic
from training.domain import Job
from training.domains.amp.captures import read_capture
from training.domains.amp.demo import fitting
from training.domains.amp.demo.making import GAINS, make_demo
from training.workspace import Workspace


def test_the_stored_network_is_fitted_to_the_circuit():
    made, stated = fitting.stored()
    assert fitting.error_db(made, fitting.GAIN, fitting.SEED) == pytest.approx(stated, abs=0.05)
    assert stated < -14
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(0.8)
    assert fitting.error_db(made, fitting.GAIN, fitting.SEED) > stated + 1


def test_a_fit_approaches_the_circuit():
    errors = [
        fitting.error_db(fitting.fit(fitting.GAIN, 48_000, steps, fitting.SEED), fitting.GAIN, fitting.SEED)
        for steps in (1, 80)
    ]
    assert errors[1] < errors[0] - 2


def test_the_demo_writes_captures_of_two_gains_that_are_marked_as_synthetic(tmp_path):
    lines = []
    found = make_demo(Job(Workspace(tmp_path), {}, say=lines.append))
    folder = found["captures"]
    assert is_marked_synthetic(folder)
    captures = {path.stem: read_capture(path) for path in folder.glob("*.nam")}
    assert captures.keys() == GAINS.keys()
    x = 0.1 * torch.randn(1, 200)
    with torch.no_grad():
        answers = {name: one.network.play(x * GAINS["fuzz"] / GAINS[name]) for name, one in captures.items()}
    assert all(torch.allclose(answer, answers["fuzz"], atol=1e-5) for answer in answers.values())
    assert json.loads((folder / "lead.nam").read_text())["metadata"]["synthetic"] is True
    before = (folder / "lead.nam").stat().st_mtime_ns
    assert make_demo(Job(Workspace(tmp_path), {})) == found and len(lines) == 1
    assert (folder / "lead.nam").stat().st_mtime_ns == before
