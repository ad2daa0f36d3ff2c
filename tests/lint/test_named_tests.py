"""The documents name tests as evidence: each named test exists, and each promise of a guide has one, or a reason."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest

from training.workspace import PROJECT

TESTS = PROJECT / "tests"
#: `test_name`, `TestClass`, `test_file.py`, `tests/folder/test_file.py::test_name`; in the text of a link, too.
NAMED = re.compile(r"`((?:[\w/.]*/)?test_\w+\.py)?(?:::)?((?:test_|Test)\w+)?`")

NO_TESTS = {"test_file"}  # a key of a configuration
PAGES = [*sorted((PROJECT / "docs").glob("*.md")), PROJECT / "README.md"]


def defined() -> dict[str, set[str]]:
    """Test file, relative to the project -> names of its tests and classes of tests."""
    name = re.compile(r"^\s*(?:def|class) ((?:test_|Test)\w+)", re.M)
    paths = TESTS.rglob("test_*.py")
    return {path.relative_to(PROJECT).as_posix(): {*name.findall(path.read_text())} for path in paths}


def missing(text: str, known: dict[str, set[str]]) -> list[str]:
    """What the text names and is not there."""
    files = defaultdict(set)
    for path in known:
        files[path.rpartition("/")[2]].add(path)
    lost = []
    for file, name in NAMED.findall(text):
        if name in NO_TESTS or not (file or name):
            continue
        where = {path for path in files.get(file.rpartition("/")[2], ()) if path.endswith(file)} if file else set(known)
        if not where or (name and not any(name in known[path] for path in where)):
            lost.append(f"{file}::{name}" if file and name else file or name)
    return lost


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_test_that_a_document_names_exists(page):
    assert missing(page.read_text(), defined()) == []


#: What protects a promise besides a named test: a folder of tests, a row of the soak, CI, or why there is no test.
OTHERWISE = re.compile(r"`tests/[\w/]+/`|\[row \d+\]\(reliability.md#results\)|`\.ci/run`|^none: \w+")


def unproven(text: str) -> list[str]:
    """The promises in tables of the header `| promise ... | ... | test |` of which nothing is named."""
    lost, inside = [], False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            inside = False
        elif cells[0].startswith("promise"):
            inside = cells[-1] == "test"
        elif inside and not set(cells[0]) <= set("-: "):
            proof = cells[-1]
            named = any(file or name for file, name in NAMED.findall(proof))
            folders = re.findall(r"`(tests/[\w/]+/)`", proof)
            if not (named or OTHERWISE.search(proof)) or not all((PROJECT / folder).is_dir() for folder in folders):
                lost.append(cells[0])
    return lost


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_promise_of_a_guide_has_a_test_or_a_reason(page):
    assert unproven(page.read_text()) == []


def test_a_promise_without_a_test_or_a_reason_is_found():
    head = "| promise of the guide | how it is met | test |\n|---|---|---|\n"
    good = "| a | b | `test_x.py` |\n| a | b | none: no GPU |\n| a | b | `tests/lint/` |\n"
    assert unproven(head + good) == []
    assert unproven(head + good + "| c | d | none |\n| e | f | |\n| g | h | `tests/nowhere/` |\n") == ["c", "e", "g"]
    assert unproven("| promise | how |\n|---|---|\n| c | d |\n") == []


def test_a_name_that_does_not_exist_is_found():
    known = {"tests/a/test_x.py": {"test_one", "TestTwo"}, "tests/b/test_y.py": set()}
    text = "`test_one` `TestTwo` `test_x.py` `tests/a/test_x.py::test_one` `x.py` `a/test_x.py`"
    assert missing(text, known) == []
    assert missing("`test_two`", known) == ["test_two"]
    assert missing("`tests/b/test_y.py::test_one`", known) == ["tests/b/test_y.py::test_one"]
    assert missing("`b/test_x.py` `test_z.py`", known) == ["b/test_x.py", "test_z.py"]
