"""`prepare --audit`: lists songs whose notes contradict their labels, on the console and in audit.json."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from training.data import manifest
from training.data.encode import encode_all
from training.data.files import printable, write_atomic
from training.data.writing import file_name
from training.domains.music import emotion
from training.domains.music.alignment.corpus import ALIGNMENT
from training.domains.music.corpora import audit as auditing
from training.domains.music.families import MIDI_GENERATOR
from training.domains.music.midi import style
from training.domains.music.midi.tokens import TOKENS
from training.domains.music.rows import EMOTION, LABEL_SOURCE, MIDI, SCHEMA
from training.domains.music.summary import Summary
from training.units import counted
from training.workspace import Workspace

AUDIT = "audit.json"
FORMAT = 1
SHOWN, REASONS = 20, 3  # songs, and reasons of each, on the console


def audit(
    workspace: Workspace,
    out: Path | None = None,
    *,
    midi_root: Path | None = None,
    workers: int | None = None,
    say: Callable[[str], None] = print,
    prepared: Summary | None = None,
) -> dict[str, Any]:
    """Compare every labelled song of the MIDI manifests in `out` (default: the workspace's) with the style that its
    label leads to expect. Returns the content of audit.json. Labels are not changed; the user may do so (`--labels`).

    `prepared`: the summary of the manifests; its time maps, and the pairs that are not of one song, are listed too.

    Raises DataError for missing or invalid manifests.
    """
    out = (out or workspace.manifests).absolute()
    rows = [
        row
        for side in ("train", "val")
        for row in manifest.load(
            out / file_name(MIDI_GENERATOR.manifest, side), SCHEMA, path_keys=(MIDI,), roots={MIDI: midi_root}
        )
    ]
    rows, _ = encode_all(rows, {MIDI: TOKENS}, workspace.cache, workers, say=say)
    # A song without an emotion word is neutral by default: that is not a label that could be wrong.
    labelled = [row for row in rows if row.values[LABEL_SOURCE] != "none"]
    labels = [emotion.classify(row.values[EMOTION]) for row in labelled]
    measured = np.array([style.measure(row.records[MIDI]["ids"]) for row in labelled])
    found = auditing.suspects([str(row.values["id"]) for row in labelled], labels, measured.reshape(-1, 6))
    result = {
        "format": FORMAT,
        "songs": len(labelled),
        "unlabelled": len(rows) - len(labelled),
        "labels": dict(sorted(Counter(labels).items())),
        "listed_from": auditing.SUSPECT,
        "flagged": [asdict(suspect) for suspect in found],
    }
    if prepared is not None:
        result["alignment"] = {
            "counts": prepared.alignment,
            "time_maps": prepared.time_maps,
            "unaligned": prepared.unaligned,
            "not_the_same_song": [item for item in prepared.quarantined if item["kind"] == ALIGNMENT],
        }
    write_atomic(out / AUDIT, (json.dumps(result, indent=1, ensure_ascii=False) + "\n").encode())
    _report(result, workspace.relative(out / AUDIT), say)
    _report_alignment(result.get("alignment", {}), say)
    return result


def _report(result: dict[str, Any], place: object, say: Callable[[str], None]) -> None:
    flagged = result["flagged"]
    if len(result["labels"]) < 2:
        say(f"Label audit: all {result['songs']} songs have the same emotion; there is none to compare with.")
        return
    head = f"Label audit: the notes of {len(flagged)} of {result['songs']} labelled songs contradict their label"
    say(head + (", the most doubtful first:" if flagged else "."))
    for item in flagged[:SHOWN]:
        say(
            f"  {printable(item['song'])}: labelled {item['label']} ({item['probability']:.1%} likely), "
            f"sounds {item['likelier']}"
        )
        for reason in item["why"][:REASONS]:
            say(f"    {reason}")
    if len(flagged) > SHOWN:
        say(f"  ... and {len(flagged) - SHOWN} more")
    say(f"  Listen to them and correct wrong labels (--labels FILE). Complete list: {place}")


def _report_alignment(found: dict[str, Any], say: Callable[[str], None]) -> None:
    if not found.get("counts"):
        return
    maps, others = found["time_maps"], found["not_the_same_song"]
    of_another = f"{counted(len(others), 'recording')} of another song"
    say(f"Alignment: {counted(len(maps), 'pair')} through a time map, {of_another}.")
    lines = [f"{item['path']}: {item['reason']}" for item in others]
    lines += [f"{printable(item['song'])}: {item['what']}" for item in maps]
    lines += [printable(line) for line in found["unaligned"]]
    for line in lines[:SHOWN]:
        say(f"  {line}")
    if len(lines) > SHOWN:
        say(f"  ... and {len(lines) - SHOWN} more")
