"""Values of the runner's options: how they are read, and refused. Uses the standard library only."""

from __future__ import annotations

import argparse
import os
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from training.errors import UsageError

AMOUNT = re.compile(r"\d{1,6}(\.\d{0,9})?|\.\d{1,9}")


def absolute(path: str) -> str:
    """`path` relative to the user's working directory as an absolute path, so that a name with a leading dash is never
    taken for an option. Without `.`, `..` and slashes at its end, which mounts of containers do not keep."""
    path = path if path.startswith("/") else f"{os.environ.get('ATHANOR_PWD') or Path.cwd()}/{path}"
    if "/./" in f"{path}/" or "/../" in f"{path}/":
        path = os.path.realpath(path)
    return path.rstrip("/") or "/"


def default_out() -> str:
    """The project's own folder."""
    return str(Path(__file__).resolve().parents[2])


def text(given: str) -> str:
    """A text that is not empty."""
    if not given:
        raise argparse.ArgumentTypeError("needs a value")
    return given


def count(least: int) -> Any:
    """A whole number from `least` up."""

    def counted(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"takes a whole number from {least} up, not '{text}'")
        return int(text)

    return counted


def assignment(text: str) -> tuple[str | None, str]:
    """[MODEL:]KEY=VALUE as (MODEL or None, KEY=VALUE)."""
    found = re.fullmatch(r"(?:([a-z0-9_]+):)?([a-z0-9_.]+=.*)", text, re.DOTALL)
    if found is None:
        raise argparse.ArgumentTypeError(f"takes KEY=VALUE or MODEL:KEY=VALUE, not '{text}'")
    return found[1], found[2]


def number(text: str) -> float:
    """A number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"takes a number, not '{text}'") from None


def amount(name: str, text: str | None) -> str | None:
    """A positive decimal number."""
    if text is None or (AMOUNT.fullmatch(text) and re.search("[1-9]", text)):
        return text
    raise UsageError(f"--{name.replace('_', '-')} takes a number above 0 (and below 1000000), not '{text}'.")


def second_place(path: str, checking: bool) -> str:
    """A folder for --persist, which may be made in one that exists. `checking`: whether that is looked up."""
    folder, above = os.path.isdir(path), os.path.isdir(Path(path).parent)  # noqa: PTH112 - these raise nothing
    if checking and not folder and (os.path.lexists(path) or not above):
        raise UsageError(f"--persist '{path}' is not a folder, nor is it in one: is the drive mounted?")
    return path


def moment(given: str | None, now: datetime | None = None) -> int | None:
    """A time as seconds since 1970: 18:30 (the next one, in this host's time zone), 2026-12-01T18:30 (with +01:00 or Z,
    or in this host's time zone), or seconds since 1970. Raises UsageError, also for a time that has passed."""
    if given is None:
        return None
    now = now or datetime.now().astimezone()
    try:
        if re.fullmatch(r"\d{1,2}:\d{2}", given):
            hour, minute = map(int, given.split(":"))
            at = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
            at += timedelta(days=at <= now)
        elif re.fullmatch(r"\d{9,11}", given):
            at = datetime.fromtimestamp(int(given)).astimezone()
        else:
            at = datetime.fromisoformat(given).astimezone()
    except ValueError:
        raise UsageError(
            f"--session-ends takes a time such as 18:30, 2026-12-01T18:30 or 1796149800, not '{given}'."
        ) from None
    if at <= now:
        raise UsageError(f"--session-ends {given}: that time has passed; it is {now:%Y-%m-%dT%H:%M} here.")
    return int(at.timestamp())
