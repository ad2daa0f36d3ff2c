"""Everything that a trained capture is exported as, for its recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.domains.amp.captures import Capture
from training.domains.amp.exports import cost, golden, native
from training.domains.amp.networks.network import Network
from training.errors import ExportError
from training.graphs import Artefact

COST = "cost.json"


def artefacts(
    capture: Capture,
    students: Sequence[Network],
    teachers: Sequence[Network],
    figures: Mapping[str, Any],
    worse: str | None,
) -> list[Artefact]:
    """The file for players, golden sounds, and the cost table.

    `students`, `teachers`: the trained and the given networks, the smallest first. `figures`: plain values for the
    file's metadata. `worse`: why the trained weights are no improvement; None: they are one.
    """
    for network in students:
        network.rest()
    table = cost.costs(teachers[-1], students[-1])

    def write(path: Path) -> None:
        path.write_text(
            json.dumps({"unit": "seconds of computing per second of sound", "rows": table}, indent=1) + "\n"
        )

    made = native.artefacts(capture, students, figures, worse)
    if worse is None:
        made.append(golden.artefact(students[-1]))
    return [*made, Artefact(COST, write, "cost", {})]


def prove_cost(path: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """The table is complete; its figures are of the host that exported, and are not measured again."""
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    for row in rows:
        if not all(row[name] > 0 for name in ("block", "teacher", "student", "T_2", "T_4")):
            raise ExportError(f"{path.name}: a figure is missing in the row of blocks of {row.get('block')}.")
    return {row["block"]: {"student": row["student"], "teacher": row["teacher"]} for row in rows}


PROVERS = {
    "native": native.prove_native, "original": native.prove_original, "sounds": golden.prove_sounds, "cost": prove_cost,
}  # fmt: skip
