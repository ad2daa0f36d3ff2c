"""What a column of symbols or contracts says of the bars in a file: whose they are, and when a future was rolled."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from training.data.files import printable
from training.domains.market.bars.times import as_text
from training.errors import DataError

SHOWN = 5


def of(symbol: str, raw: Mapping[str, np.ndarray]) -> tuple[np.ndarray, list[str]]:
    """The contract of each row as an index, int64 [n], and the names; one without a name where the file has no such
    column. `raw`: arrays of `reading.decode`.

    Raises DataError if no name fits the symbol: costs and barriers would be those of another.
    """
    rows = len(raw["time"])
    if "contract" not in raw:
        return np.zeros(rows, np.int64), [""]
    column = np.ascontiguousarray(raw["contract"])
    found, index = np.unique(column.view(f"S{column.shape[1]}").ravel(), return_inverse=True)
    names = [name.decode("utf-8", "replace") for name in found]
    if not any(_fits(symbol, name) for name in names):
        raise DataError(
            f"{symbol}: the file says that its bars are of {_listed(names)}. Its name decides about costs and "
            "barriers: rename the file, or leave out that column."
        )
    return index, names


def _fits(symbol: str, name: str) -> bool:
    """Whether a name may be the symbol's: MESH4, MES.c.0, CME_MINI:MES1! of MES; BTC/USD of BTCUSD. Numbers, and no
    name at all, say nothing."""
    own, other = (re.sub(r"[^a-z0-9]", "", text.lower().rpartition(":")[2]) for text in (symbol, name))
    return not other or other.isdigit() or other.startswith(own) or own.startswith(other)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(printable(name) for name in names[:SHOWN]) + more


def refuse_several(symbol: str, time: np.ndarray, contract: np.ndarray, names: list[str]) -> None:
    """Raise DataError if one minute has bars of several contracts. Rows are ascending in time."""
    several = (np.diff(time) == 0) & (np.diff(contract) != 0)
    if several.any():
        at = np.flatnonzero(several)
        raise DataError(
            f"{symbol}: {len(at):,} minutes have bars of several contracts ({_listed(names)}), the first at "
            f"{as_text(time[at[0]])}. Keep one bar a minute: of the front contract, or of one symbol a file."
        )


def changes(contract: np.ndarray, names: list[str]) -> dict[int, str]:
    """Index of the first bar of another contract -> what changed."""
    places = np.flatnonzero(np.diff(contract)) + 1
    return {
        int(at): f"{printable(names[contract[at - 1]])} to {printable(names[contract[at]])}, as the file says"
        for at in places
    }
