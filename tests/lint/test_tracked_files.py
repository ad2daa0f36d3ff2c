"""What is in the repository, and what must not be."""

from __future__ import annotations

import subprocess
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def test_nothing_is_tracked_that_is_ignored():
    """A link to an environment that was added by `git add -A` replaces the environment itself where it is checked out:
    git overwrites what it ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--ignored", "--exclude-standard"],
        cwd=PROJECT, capture_output=True, text=True,
    )  # fmt: skip
    if listed.returncode != 0:  # no repository: a copy of the files, as in an image
        return
    assert listed.stdout.split("\0")[:-1] == []
