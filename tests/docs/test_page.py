"""A page and what is printed are compared word by word; `...` and `<WORD>` stand for the parts that may differ."""

from __future__ import annotations

import pytest

from tests.docs.page import Setup, Shown, sections

PRINTED = """\
== Train toy
toy: 0.07 M parameters; resumed at step 12 of 20
step 16/20  loss 5.81
its checkpoints are now in /out/previous/20261129-182306-c455
== Train toy: done in 3 s
"""


@pytest.mark.parametrize(
    "shown",
    [
        PRINTED,
        "...\ntoy: ... resumed at step 12 of 20\n...",
        "== Train toy ... == Train toy: done in ... s",  # where lines end does not count
        "...\nits checkpoints are now in /out/previous/<RUN>\n...",
        "...",
    ],
)
def test_output_that_matches_the_page_is_no_difference(shown):
    assert not Shown("run", shown).difference(PRINTED, {})


@pytest.mark.parametrize(
    ("shown", "at"),
    [
        (PRINTED.replace("resumed at", "resumed from"), "resumed from step 12"),
        ("...\ntoy: ... continued at step 12\n...", "continued at step 12"),
        ("...\n== Train toy: done in ... s\n...\ntoy: 0.07\n...", "toy: 0.07"),  # in another order
        ("== Train toy", "== Train toy"),  # there is more
        ("toy: ...", "toy:"),  # and before it
        ("", ""),
    ],
)
def test_the_first_text_that_was_not_printed_is_the_difference(shown, at):
    assert at in Shown("run", shown).difference(PRINTED, {}) != ""


def test_a_word_keeps_its_first_value():
    known: dict[str, str] = {}
    assert not Shown("run", "... previous/<RUN> ...").difference(PRINTED, known)
    assert known == {"RUN": "20261129-182306-c455"}
    assert Shown("ls", "<RUN>").difference("20261129-182306-c456", known)
    assert not Shown("ls", "<RUN>").difference("20261129-182306-c455", known)


def test_a_page_is_read_in_the_order_of_its_steps(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# T\n## None\n```yaml\na: 1\n```\n## One\n<!-- setup: damage a b -->\n```console\n$ ls\na\nb\n$ true\n```\n"
    )
    (one,) = sections(page)
    assert str(one) == "one"
    assert one.steps == [Setup("damage", ["a", "b"]), Shown("ls", "a\nb\n"), Shown("true")]
