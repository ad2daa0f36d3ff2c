"""Numbers of a file of bars, with the signs for decimals and thousands that its program writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import polars as pl

#: What shows how a file writes numbers: 4.500,25 or 4500,5; 4,500.25.
_EUROPEAN = r"\.\d{3},\d|,\d{1,2}$|,\d{4,}$"
_AMERICAN = r",\d{3}\.\d|,\d{3},\d{3}"
_DOTS = r"^-?\d{1,3}(\.\d{3})+(,\d*)?$"


def numbers_of(columns: Sequence[pl.Series], separator: str) -> list[np.ndarray]:
    """The columns as float64 [n], nan where there is no number. `separator`: of the file's fields.

    One file has one notation: a single value that is unmistakable decides for all. Where there is none, a comma is a
    decimal sign if fields are separated by semicolons or tabs, else it separates thousands.
    """
    texts = [column for column in columns if _is_text(column)]
    if not any(column.str.contains(",", literal=True).any() for column in texts):  # most files, quickly
        return [_plain(column) for column in columns]
    european, american = (any(column.str.contains(form).any() for column in texts) for form in (_EUROPEAN, _AMERICAN))
    if european and american:
        return [_plain(column) for column in columns]  # what has a comma is no number
    comma = european or (not american and separator in ";\t")
    return [_plain(_with_points(column, comma, european) if _is_text(column) else column) for column in columns]


def _is_text(column: pl.Series) -> bool:
    import polars as pl

    return column.dtype == pl.String


def _with_points(column: pl.Series, decimal_comma: bool, dotted: bool) -> pl.Series:
    """The texts with a point as the decimal sign, and no sign for thousands. `dotted`: that is a point."""
    import polars as pl

    if not decimal_comma:
        return column.str.replace_all(",", "")
    text = pl.col("text")
    plain = pl.when(text.str.contains(_DOTS) & dotted).then(text.str.replace_all(".", "", literal=True)).otherwise(text)
    return column.rename("text").to_frame().select(plain.str.replace(",", ".", literal=True))["text"]


def _plain(column: pl.Series) -> np.ndarray:
    import polars as pl

    if _is_text(column):
        column = column.str.strip_chars()
    return column.cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy().astype(np.float64)
