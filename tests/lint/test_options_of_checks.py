"""Checks of `doctor` read only options that `doctor` is given: any other would never be set."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
CHECKS = sorted(PROJECT.glob("training/domains/*/checks.py"))


def read_options(text: str) -> set[str]:
    """Names in job.path("name"), job.options.get("name") and job.options["name"]."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and node.args:
            place, name = ast.unparse(node.func), node.args[0]
        elif isinstance(node, ast.Subscript):
            place, name = ast.unparse(node.value), node.slice
        else:
            continue
        if place in ("job.path", "job.options.get", "job.options") and isinstance(name, ast.Constant):
            found.add(name.value)
    return found


@pytest.mark.parametrize("path", CHECKS, ids=lambda path: path.parent.name)
def test_checks_read_only_options_that_doctor_accepts(path):
    word = path.parent.name
    module = importlib.import_module(f"training.domains.{word}.domain")
    accepted = {option.attribute for option in getattr(module, word.upper()).options if "doctor" in option.verbs}
    read = read_options(path.read_text())
    assert read, "the names are read in another way: this test does not see them"
    assert read <= accepted, f"{path}: doctor is not given {', '.join(sorted(read - accepted))}"
