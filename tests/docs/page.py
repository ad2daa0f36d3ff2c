"""Reads a page whose console blocks are run as tests: what it shows is compared with what the commands print.

    ```console
    $ a command                    the exit code must be 0, or N if the output has "(exit N)"; any if `echo $?` follows
    what it prints                 `...` stands for any text; line breaks are not compared
    ```

`<RUN>` and the like stand for one word, which keeps its value until the folder is next set up (`begins_with`). A
comment before a block, `<!-- setup: NAME ARGUMENTS -->`, is a step of the test that the page does not show: the state
in which a section begins, or a fault during the next command.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

#: Environment variables of the processes of a page: a fault (miniature.py), as "name" or "name:argument"; the number of
#: steps of a training.
FAULT, STEPS = "ATHANOR_PAGE_FAULT", "ATHANOR_PAGE_STEPS"
WORD = re.compile(r"<([A-Z]+)>")


def once(held: Path) -> Path:
    """The file that marks that a training was held at its step, so that it is not held again after a restart. It is in
    the folder of `held`."""
    return held.with_name("held-once")


@dataclass
class Setup:
    """A setup comment: a step that the page does not show."""

    name: str
    arguments: list[str]


@dataclass
class Shown:
    """A command, and what it prints."""

    command: str
    output: str = ""

    def difference(self, printed: str, known: dict[str, str]) -> str:
        """The first part of `output` that is not in `printed`; "" if all of it is. Adds the values of its `<WORD>`s to
        `known`."""
        parts = [" ".join(part.split()) for part in self.output.split("...")]
        text, at = " ".join(printed.split()), 0
        for number, part in enumerate(parts):
            expression = _expression(part, known) + (r"\Z" if number == len(parts) - 1 else "")
            found = re.compile(expression).search(text, at) if number else re.match(expression, text)
            if found is None:
                return f"`{part}`"
            known.update(found.groupdict())
            at = found.end()
        return ""


def _expression(part: str, known: dict[str, str]) -> str:
    """A regular expression for the text between two `...`."""
    out, at = "", 0
    named: set[str] = set()
    for word in WORD.finditer(part):
        out += re.escape(part[at : word.start()])
        name, at = word[1], word.end()
        if name in known:
            out += re.escape(known[name])
        else:
            out += f"(?P={name})" if name in named else rf"(?P<{name}>[\w-]+)"
            named.add(name)
    return out + re.escape(part[at:])


@dataclass
class Section:
    """A part of the page, run from its beginning to its end."""

    title: str
    steps: list[Setup | Shown] = field(default_factory=list)

    def __str__(self) -> str:
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")


def sections(path: Path) -> list[Section]:
    """The sections of a page that have steps."""
    out: list[Section] = []
    lines = iter(path.read_text(encoding="utf-8").splitlines())
    for line in lines:
        if line.startswith("## "):
            out.append(Section(line.removeprefix("## ")))
        elif line.startswith("<!-- setup: "):
            name, *arguments = line.removeprefix("<!-- setup: ").removesuffix(" -->").split()
            out[-1].steps.append(Setup(name, arguments))
        elif line == "```console":
            out[-1].steps += _block(lines)
    return [section for section in out if section.steps]


def _block(lines: Iterator[str]) -> list[Setup | Shown]:
    shown: list[Setup | Shown] = []
    for line in lines:
        if line == "```":
            return shown
        if line.startswith("$ "):
            shown.append(Shown(line.removeprefix("$ ")))
        else:
            last = shown[-1]
            assert isinstance(last, Shown)
            last.output += line + "\n"
    raise AssertionError("a console block does not end")
