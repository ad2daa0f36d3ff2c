"""The JSON text of a capture file: read with limits, and written again in the style in which it was written."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

MOST_BYTES = 64 << 20
#: The largest magnitude of a weight. Weights of captures are below 100; 1e38 is damage, or meant to crash a player.
LARGEST = 1e6
#: Arguments of json.dumps that programs write captures with; the first is that of neural-amp-modeler and GuitarML.
_STYLES: tuple[dict[str, Any], ...] = tuple(
    {"indent": indent, "separators": separators, "ensure_ascii": ascii}
    for ascii in (True, False)
    for indent, separators in (
        (None, None), (None, (",", ":")), (4, None), (2, None), (1, None), ("\t", None), (0, None),
        (4, (", ", ": ")), (2, (", ", ": ")),
    )
)  # fmt: skip
_ENDS = ("", "\n", "\r\n")


def parse(content: bytes) -> dict[str, Any]:
    """A capture file's JSON object. Raises ValueError, with the reason, for any other content."""
    if len(content) > MOST_BYTES:
        raise ValueError(f"{len(content):,} bytes; a capture has at most {MOST_BYTES:,}")
    try:
        document = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError("no capture: it is not text in UTF-8") from None
    except json.JSONDecodeError as error:
        if error.pos >= len(error.doc.rstrip()) - 1 or error.msg.startswith("Unterminated"):
            raise ValueError(f"truncated: its JSON ends in line {error.lineno}, column {error.colno}") from None
        raise ValueError(f"no JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except ValueError:  # of int(): JSON has no limit of digits
        raise ValueError("no capture: its JSON has an integer of more than 4,300 digits") from None
    except RecursionError:
        raise ValueError("no capture: its JSON is nested too deeply") from None
    if not isinstance(document, dict):
        raise ValueError("no capture: its JSON is not an object")
    return document


def written(document: Mapping[str, Any], like: bytes) -> bytes:
    """The document as JSON, in the style (indentation, separators, end of line) of the text `like`."""
    style, end = _style(like)
    return (json.dumps(document, **style) + end).encode()


def _style(content: bytes) -> tuple[dict[str, Any], str]:
    text = content.decode("utf-8-sig")
    document = json.loads(text)
    for style in _STYLES:
        again = json.dumps(document, **style)
        for end in _ENDS:
            if again + end == text:
                return style, end
    return _STYLES[0], ""  # no known program's; the content is the same


# -- values ------------------------------------------------------------------------------------------------------------


def mapping(value: Any, name: str) -> Mapping[str, Any]:
    """A JSON object. Raises ValueError naming the key."""
    if not isinstance(value, dict):
        raise ValueError(f"`{name}` should be an object; it is {_short(value)}")
    return value


def sequence(value: Any, name: str) -> Sequence[Any]:
    if not isinstance(value, list):
        raise ValueError(f"`{name}` should be a list; it is {_short(value)}")
    return value


def integer(value: Any, name: str, least: int = 1, most: int = 4096) -> int:
    """A whole number between `least` and `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or value != math.floor(value):
        raise ValueError(f"`{name}` should be a whole number; it is {_short(value)}")
    if not least <= value <= most:
        raise ValueError(f"`{name}` is {_short(value)}; it should be between {least} and {most}")
    return int(value)


def number(value: Any, name: str) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"`{name}` should be a finite number; it is {_short(value)}")
    return float(value)


def flag(value: Any, name: str) -> bool:
    """True, False, 1 or 0."""
    if value not in (True, False):
        raise ValueError(f"`{name}` should be true or false; it is {_short(value)}")
    return bool(value)


def weights(values: Iterable[Any], name: str = "weight") -> np.ndarray:
    """A list of weights: float32 [n]. Raises ValueError for what is no number, not finite, or larger than LARGEST."""
    listed = list(values)
    for place, value in enumerate(listed, 1):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{name} {place:,} is {_short(value)}, which is no number")
        if not abs(value) <= LARGEST:
            raise ValueError(f"{name} {place:,} is {value:g}; weights are below {LARGEST:g}")
    return np.array(listed, np.float64).astype(np.float32)


def refuse_unknown(values: Mapping[str, Any], known: Iterable[str], where: str = "") -> None:
    """Raise ValueError naming the first key that is not known."""
    unknown = [key for key in values if key not in set(known)]
    if unknown:
        raise ValueError(f"`{unknown[0]}`{where} is not supported")


def kept(old: Sequence[Any], new: np.ndarray) -> list[Any]:
    """The weights `new` (float32 [n]) for a file: as the file had them where they did not change, so that an unchanged
    capture gives the same bytes."""
    return [
        before if np.float32(before) == after else after.item()
        for before, after in zip(old, np.asarray(new, np.float32), strict=True)
    ]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
