"""The values of flags: what turns a word of the command line into a value, or states why it is none (for argparse)."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training.data.objects.address import Address, is_url
from training.errors import UsageError
from training.registry import families, family_of
from training.wandb_address import WandbRun


def run_name(text: str) -> str:
    if family_of(text) not in families():
        raise argparse.ArgumentTypeError(f"invalid choice: '{text}' (choose from {', '.join(families())})")
    return text


def assignment(text: str) -> tuple[str, str]:
    """MODEL:KEY=VALUE as (MODEL, KEY=VALUE)."""
    family, colon, change = text.partition(":")
    if not colon or family not in families():
        raise argparse.ArgumentTypeError(f"takes MODEL:KEY=VALUE, not '{text}'; models: {', '.join(families())}")
    return family, change


def count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1 up")
    return int(text)


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a share above 0, up to 1")
    return value


def persist_target(text: str) -> Path | Address:
    return address(text) if is_url(text) else absolute(text)


def address(text: str) -> Address:
    try:
        return Address.parse(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def wandb_run(text: str) -> WandbRun:
    try:
        return WandbRun.parse(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def absolute(text: str) -> Path:
    return Path(text).absolute()


def folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"'{text}' is not a folder")
    return path.absolute()


def file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"'{text}' is not a file")
    return path.absolute()


def file_or_folder(text: str) -> Path:
    path = Path(text)
    if not (path.is_file() or path.is_dir()):
        raise argparse.ArgumentTypeError(f"'{text}' is neither a file nor a folder")
    return path.absolute()


KINDS: dict[str, Callable[[str], Any]] = {
    "folder": folder, "file": file, "path": file_or_folder, "number": float, "text": str, "choice": str, "url": str,
}  # fmt: skip
