"""Trainings that are killed inside an optimizer step end in the same file, and training changes it."""

from __future__ import annotations

import signal
from multiprocessing import get_context

import pytest

from .killed_job import CAPTURES, LOSSES, Kill, run, saved_step


def ended(root, kill=None) -> int | None:
    """The exit code of the trainings in a new interpreter."""
    process = get_context("spawn").Process(target=run, args=(root, kill))
    process.start()
    process.join()
    return process.exitcode


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    root = tmp_path_factory.mktemp("complete")
    assert ended(root) == 0
    return root


def test_captures_have_the_same_bytes_after_kills_in_a_wavenets_step_and_between_the_windows_of_an_lstms(
    complete, tmp_path
):
    assert ended(tmp_path, Kill("wavenet", 3)) == -signal.SIGKILL
    assert saved_step(tmp_path, "wavenet") in (1, 2, 3) and saved_step(tmp_path, "lstm") == -1
    assert ended(tmp_path, Kill("lstm", 3 * LOSSES["lstm"] + 1)) == -signal.SIGKILL
    assert saved_step(tmp_path, "lstm") in (1, 2, 3) and not (tmp_path / "lstm.nam").exists()
    assert ended(tmp_path) == 0
    for item, original in CAPTURES.items():
        content = (tmp_path / f"{item}.nam").read_bytes()
        assert content == (complete / f"{item}.nam").read_bytes() and content != original(), item
