"""The time between volumes (TR): where it comes from, and whether the sources agree."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from training.errors import DataError, UsageError

SHORTEST, LONGEST = 0.2, 6.0  # seconds
_SAME = 0.01  # relative difference that is rounding


@dataclass(frozen=True)
class Repetition:
    """The time between two volumes. `notes`: conflicts between its sources, for the user."""

    seconds: float
    source: str  # "--tr", the name of the sidecar, or "header"
    notes: tuple[str, ...] = ()


def repetition(flag: float | None, sidecar: Path | None, header: float, written: float) -> Repetition:
    """The TR by the first of: the flag, the sidecar's RepetitionTime, the header. Conflicts become notes.

    Args:
        header: seconds; nan: its unit is not known.
        written: the number in the header, whatever its unit.

    Raises UsageError for a flag, and DataError for a sidecar or a header, that is outside of 0.2 to 6 s or missing.
    """
    if flag is not None and not SHORTEST <= flag <= LONGEST:
        raise UsageError(
            f"--tr {flag:g} is outside of {SHORTEST} to {LONGEST:g} seconds. It is in seconds, such as 1.5."
        )
    beside = None if sidecar is None else _sidecar(sidecar)
    found = {"--tr": flag, sidecar.name if sidecar else "sidecar": beside, "header": _header(header, written)}
    known = {source: value for source, value in found.items() if value is not None}
    if not known:
        raise DataError(
            f"The header gives {written:g} as the time between volumes, without a unit. Give it by --tr SECONDS."
        )
    source, seconds = next(iter(known.items()))
    if not SHORTEST <= seconds <= LONGEST:
        raise DataError(_outside(source, seconds))
    notes = tuple(
        f"TR: {source} gives {seconds:g} s, {other} gives {value:g} s; {source} is used."
        for other, value in known.items()
        if other != source and not math.isclose(value, seconds, rel_tol=_SAME)
    )
    return Repetition(seconds, source, notes)


def _header(seconds: float, written: float) -> float | None:
    """Seconds by the header. Without a unit, a number that is a usual TR in seconds is taken as such."""
    if not math.isnan(seconds):
        return seconds if seconds > 0 else None
    return written if SHORTEST <= written <= LONGEST else None


def _outside(source: str, seconds: float) -> str:
    text = f"The TR is {seconds:g} s by the {source}, outside of {SHORTEST} to {LONGEST:g} s."
    if SHORTEST <= seconds / 1000 <= LONGEST:
        text += f" It may be in milliseconds: if so, give --tr {seconds / 1000:g}."
    else:
        text += " Give the true one by --tr SECONDS."
    return text


def _sidecar(path: Path) -> float | None:
    """RepetitionTime of a BIDS sidecar; None if it has none. Raises DataError if it cannot be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8")).get("RepetitionTime")
    except (ValueError, OSError, AttributeError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}. Correct it, or give --tr SECONDS.") from None
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise DataError(f"{path}: RepetitionTime is {value!r}; it is a number of seconds.")
    return float(value)
