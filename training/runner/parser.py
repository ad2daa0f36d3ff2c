"""How the runner's command line is parsed, and how its help is laid out. Uses the standard library only."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterable
from typing import NoReturn

from training.errors import UsageError

WIDTH = 118


def wrapped(names: Iterable[str]) -> str:
    """Names as a list with commas, in lines."""
    return textwrap.fill(", ".join(names), WIDTH)


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Texts of options are wrapped; other texts stay as they are."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=32, width=WIDTH)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)  # flags stay in one piece


class Parser(argparse.ArgumentParser):
    """Raises UsageError where argparse would end the process."""

    def flags(self) -> list[str]:
        """The flags of all options."""
        return [flag for action in self._actions for flag in action.option_strings]

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message.removesuffix('.')}.")
