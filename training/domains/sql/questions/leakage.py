"""How much of the held-out questions training has too: a table, and an error for complete doubles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.errors import DataError

#: What is compared -> the keys of a row that are equal then.
ALIKE = {
    "question": ("question",),
    "SQL": ("canonical",),
    "template": ("template",),
    "database": ("database",),
}
_DOUBLE = ("asked", "canonical", "database")
_SHOWN = 5


def leakage(splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """For each held-out split and each of ALIKE: how many of its questions have their like in training. Rows: {"split",
    "alike", "count", "of", "share"}; `share` from 0 to 1, four digits."""
    table = []
    for split in (name for name in ("val", "test") if splits.get(name)):
        held = splits[split]
        for name, keys in ALIKE.items():
            known = {tuple(row[key] for key in keys) for row in splits["train"]}
            count = sum(tuple(row[key] for key in keys) in known for row in held)
            table.append({"split": split, "alike": name, "count": count, "of": len(held),
                          "share": round(count / len(held), 4)})  # fmt: skip
    return table


def refuse_doubles(splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Raise DataError if a question is in two splits, with the same SQL and database."""
    seen: dict[tuple, tuple[str, str]] = {}
    doubles = []
    for split, rows in splits.items():
        for row in rows:
            double = tuple(row[key] for key in _DOUBLE)
            first = seen.setdefault(double, (split, row["id"]))
            if first[0] != split:
                doubles.append(f"  {first[1]} ({first[0]}) and {row['id']} ({split}): {row['question']}")
    if doubles:
        more = f"\n  ... and {len(doubles) - _SHOWN} more" if len(doubles) > _SHOWN else ""
        raise DataError(
            f"{len(doubles)} questions are in two splits, with the same SQL and database. Remove them from one of the "
            "files, or leave out --val to let prepare split the data.\n" + "\n".join(doubles[:_SHOWN]) + more
        )
