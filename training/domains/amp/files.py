"""The capture files of a folder."""

from __future__ import annotations

from pathlib import Path

from training.data.files import Found, Refused, scan
from training.data.identity import MARKER
from training.domains.amp.formats.checking import SUFFIXES


def capture_files(folder: Path) -> tuple[list[Found], list[Refused]]:
    """Files with an ending of captures, by `scan`, without those that mark a folder as synthetic: they end in .json
    too. Raises OSError if the folder cannot be read."""
    found, refused = scan(folder, SUFFIXES)
    return [one for one in found if Path(one.relative).name != MARKER], refused
