"""The command `play` of domains that have a page. Importing this is as cheap as importing a domain."""

from __future__ import annotations

from training.domain import Command
from training.errors import UsageError
from training.option import Option

PORT = 8765


def play_command(help: str, run: str) -> Command:
    """`python -m training play WORD [--port N] [--write-only]`; `run`: "module:function" of the domain, whose Job has
    the options `port` and `write_only`."""
    options = (
        Option("port", "number", f"of the server (default: {PORT}; 0: any that is free)", default=PORT),
        Option("write-only", "flag", "write exports/play/ and do not serve it"),
    )
    return Command("play", help, run, options=options)


def port_of(value: float) -> int:
    """The value of `--port` as a whole number. Raises UsageError for another than 0 to 65535."""
    if not (0 <= value <= 65535 and value == int(value)):
        raise UsageError(f"--port is {value:g}; a port is a whole number from 0 (any that is free) to 65535.")
    return int(value)
