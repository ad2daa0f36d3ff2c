"""Which questions are held out, and what is new about each of them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from training.errors import DataError

#: With fewer databases, questions are held out by their template.
FEWEST_DATABASES = 5
#: Held-out questions may exceed the requested share by this factor, for the last unit that is drawn.
EXCESS = 1.5

By = Literal["database", "template"]


def split(databases: Sequence[str], templates: Sequence[str], share: float, seed: int) -> tuple[list[bool], By]:
    """Which of the questions are held out, and what is never on both sides: a database, where there are at least
    FEWEST_DATABASES, else a template (the form of a query).

    Units are drawn in an order that depends on the seed until they have `share` of the questions. One that would hold
    out far more is passed over; at least one is held out, and one is trained on.

    Raises DataError if all questions are of one unit.
    """
    by: By = "database" if len(set(databases)) >= FEWEST_DATABASES else "template"
    units = databases if by == "database" else templates
    sizes = Counter(units)
    if len(sizes) < 2:
        raise DataError(
            f"All {len(units)} questions have one form, so none can be held out. Name held-out questions with --val."
        )
    order = sorted(sizes)
    random.Random(f"split {seed}").shuffle(order)
    wanted, held, count = share * len(units), set(), 0
    for unit in order:
        if count < wanted and count + sizes[unit] <= EXCESS * wanted and len(held) + 1 < len(sizes):
            held.add(unit)
            count += sizes[unit]
    held = held or {min(order, key=lambda unit: sizes[unit])}
    return [unit in held for unit in units], by


def stratum(row: Mapping[str, str], known: Mapping[str, frozenset[str]]) -> str:
    """What is new about a held-out question. `known`: key of a row -> the values that training has.

    Questions of the demo name their wording: of these the wording or the combination of clauses is new.
    """
    if row.get("wording"):
        if row["kind"] not in known["kind"]:
            return "new composition"
        return "new wording" if row["wording"] not in known["wording"] else "seen wording"
    if row["database"] not in known["database"]:
        return "new database"
    return "new template" if row["template"] not in known["template"] else "seen template"
