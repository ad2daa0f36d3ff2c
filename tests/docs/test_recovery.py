"""docs/recovery.md: every command on the page is run, and must print what the page shows."""

from __future__ import annotations

import pytest

from tests.docs.page import Shown, sections
from tests.docs.reader import Reader
from tests.warm import Warm
from training.workspace import PROJECT

PAGE = sections(PROJECT / "docs" / "recovery.md")


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    (folder / "bin").mkdir()
    warm = Warm(folder / "bin", "tests.docs.miniature:prepared")
    yield Reader(folder, warm.python)
    warm.close()


@pytest.mark.parametrize("section", PAGE, ids=str)
def test_the_commands_print_what_the_page_shows(reader, section):
    commands = [step.command for step in section.steps if isinstance(step, Shown)]
    assert commands and reader.follow(section) == commands
