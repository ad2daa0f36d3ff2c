"""From a film, annotations and BOLD to manifests: what cannot be used is quarantined, what looks wrong is reported
before anything is trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from training.data.encode import Quarantined, encode_files
from training.data.files import printable, sha256, write_atomic
from training.data.identity import is_marked_synthetic
from training.data.writing import file_name, write_manifests
from training.domain import Job
from training.domains.brain import places
from training.domains.brain.alarms.running import run_alarms
from training.domains.brain.bold import atlas, masks
from training.domains.brain.bold.files import natural
from training.domains.brain.collecting import Collected, collect, facts
from training.domains.brain.presenting import Presented, present, source
from training.domains.brain.rows import BOLD_PATH, MASK_PATH, REGIONS, STIMULUS_PATH, UNSEEN
from training.domains.brain.splits.blocks import Block, blocks, gap_of, rows_of
from training.domains.brain.stimulus import bins
from training.domains.brain.summary import report
from training.errors import DataError, UsageError
from training.workspace import exclusive

LISTED = 50  # quarantined files in the summary; all are in quarantine.jsonl
CODE = ("alarms", "bold", "features", "regression", "splits", "stimulus")  # what decides what the alarms find


def prepare(job: Job) -> None:
    """Read film and BOLD; write stimulus, mask, manifests, quarantine and summary. Raises DataError, UsageError;
    HostError while another process prepares data in the workspace."""
    with exclusive(job.workspace.manifests, "preparing data"):
        _prepare(job)


def _prepare(job: Job) -> None:
    shown = source(job)
    collected = collect(job)
    presented = present(job, collected, shown)
    collected = _without(collected, presented.refused)
    split = _split(job, collected, presented)
    masks.write(places.mask_path(job.workspace), collected.voxels, collected.shape, collected.affine)
    regions, remarks = _regions(job, collected)
    rows = _rows(job, collected, presented, split, regions)
    found = _alarms(job, collected, presented, split)
    digest = _digest(job, collected, presented)
    folders = [job.path(name) for name in ("fmri", "bids", "movie", "frames", "annotations", "features")]
    summary = {
        "synthetic": is_marked_synthetic(*(path for path in folders if path is not None)),
        **facts(collected),
        "left_out": _left_out(job, collected),
        "volumes": dict(presented.volumes),
        "onsets": dict(presented.onsets),
        "bands": sorted(_stimulus(presented, next(iter(presented.paths))).bands),
        "gap": gap_of(collected.tr.seconds),
        "splits": _counts(split),
        "blocks": {name: [[one.split, one.begin, one.end] for one in of] for name, of in split.items()},
        "notes": [*collected.notes, *presented.notes, *remarks],
        "alarms": found["alarms"],
        "remarks": found["remarks"],
        "scans": found["runs"],
        "quarantined": [asdict(item) for item in collected.quarantine[:LISTED]],
        "quarantined_count": len(collected.quarantine),
        "digest": digest,
        "manifests": sorted(rows),
    }
    changed = write_manifests(job.workspace.manifests, rows, summary, collected.quarantine)
    report(summary, job.workspace.relative(job.workspace.manifests), changed, job.say)


def _without(collected: Collected, refused: Mapping[Path, str]) -> Collected:
    if not refused:
        return collected
    more = tuple(Quarantined(printable(path), "bold", why) for path, why in refused.items())
    kept = tuple(run for run in collected.runs if run.path not in refused)
    return replace(collected, runs=kept, quarantine=(*collected.quarantine, *more))


def _split(job: Job, collected: Collected, presented: Presented) -> dict[str, list[Block]]:
    """The blocks of every run. Runs that repeat a part of the film have the same."""
    out: dict[str, list[Block]] = {}
    known: dict[float, list[Block]] = {}  # second of the film at which a run begins -> its blocks
    for number, (name, volumes) in enumerate(presented.volumes.items()):
        onset = presented.onsets[name]
        if onset in known:
            out[name] = known[onset]
            continue
        try:
            out[name] = known[onset] = blocks(volumes, collected.tr.seconds, job.seed, number)
        except DataError as error:
            raise DataError(f"run {name}: {error}. Name longer runs.") from None
    return out


def _regions(job: Job, collected: Collected) -> tuple[dict[str, str], tuple[str, ...]]:
    """Write the regions of --atlas; the keys that rows get, and remarks. Raises DataError for an atlas of no use."""
    path, place = job.path("atlas"), places.regions_path(places.mask_path(job.workspace))
    if path is None:
        place.unlink(missing_ok=True)
        return {}, ()
    records, refused = encode_files([path], masks.GIVEN, job.workspace.cache, job.workers, job.say)
    if path in refused:
        raise DataError(f"--atlas {printable(path)} {refused[path].reason}.")
    found, notes = atlas.regions_of(path, records[path], collected.voxels, collected.shape, collected.affine)
    atlas.write(place, found)
    return {REGIONS: sha256(place)}, notes


def _left_out(job: Job, collected: Collected) -> list[str]:
    """The subjects of --hold-out-subject. Raises UsageError for one that is not there, or if no subject is left."""
    text = job.options.get("hold_out_subject")
    known = sorted({run.subject for run in collected.runs}, key=natural)
    if text is None:
        return []
    found = [part.strip().removeprefix("sub-") for part in str(text).split(",")]
    missing = [subject for subject in found if subject not in known]
    if missing:
        raise UsageError(
            f"--hold-out-subject {text}: there is no subject {', '.join(missing)}; there are {', '.join(known)}. For "
            "each of them in turn, give the command once for each, with another folder (--out)."
        )
    if len(set(found)) == len(known):
        raise UsageError(f"--hold-out-subject {text}: no subject is left to train on.")
    return sorted(set(found), key=natural)


def _rows(
    job: Job, collected: Collected, presented: Presented, split: Mapping[str, Sequence[Block]],
    more: Mapping[str, str],
) -> dict[str, list[dict[str, Any]]]:  # fmt: skip
    """File name of a manifest -> its rows, in order of run, time and subject."""
    out: dict[str, list[dict[str, Any]]] = {file_name(places.MANIFEST, one): [] for one in ("train", "val", "test")}
    left_out = _left_out(job, collected)
    every = sorted({run.subject for run in collected.runs}, key=natural)
    subjects = [subject for subject in every if subject not in left_out]
    for place, (name, of_run) in enumerate(split.items(), 1):
        for number, block in enumerate(of_run):
            for begin, end in rows_of(block):
                for run in collected.of_run(name):
                    unseen = run.subject in left_out
                    number_of = len(subjects) + 1 + left_out.index(run.subject) if unseen else (
                        subjects.index(run.subject) + 1
                    )  # fmt: skip
                    out[file_name(places.MANIFEST, block.split)].append({
                        "id": f"sub-{run.subject} run-{name} {begin}-{end}",
                        BOLD_PATH: str(run.path), STIMULUS_PATH: str(presented.paths[name]),
                        MASK_PATH: str(places.mask_path(job.workspace)), "subject": run.subject, "run": name,
                        "tr": collected.tr.seconds, "volumes": presented.volumes[name],
                        "subject_number": number_of, "subjects": len(subjects),
                        "run_number": place, "runs": len(split), "begin": begin, "end": end,
                        "block": f"{name} {block.split} {number}", **more,
                        **({UNSEEN: True} if unseen else {}),
                    })  # fmt: skip
    return out


def _counts(split: Mapping[str, Sequence[Block]]) -> dict[str, dict[str, int]]:
    """Split -> blocks and volumes."""
    every = [block for of_run in split.values() for block in of_run]
    return {
        name: {"blocks": sum(one.split == name for one in every),
               "volumes": sum(one.end - one.begin for one in every if one.split == name)}
        for name in ("train", "val", "test")
    }  # fmt: skip


def _stimulus(presented: Presented, name: str) -> bins.Stimulus:
    return bins.of(bins.decode(presented.paths[name]))


def _digest(job: Job, collected: Collected, presented: Presented) -> str:
    total = hashlib.sha256()
    for run in collected.runs:
        total.update(f"{run.name} {presented.volumes[run.run]} {presented.onsets[run.run]}\n".encode())
        total.update(collected.records[run.path].key)
    for path in presented.paths.values():
        total.update(path.read_bytes())
    total.update(collected.voxels.tobytes())
    return total.hexdigest()


def _alarms(
    job: Job, collected: Collected, presented: Presented, split: Mapping[str, Sequence[Block]]
) -> dict[str, Any]:
    """What the alarms find, read back if nothing that it depends on has changed."""
    key = hashlib.sha256(_digest(job, collected, presented).encode())
    key.update(repr({name: [*of_run] for name, of_run in split.items()}).encode())
    here = Path(__file__).parent
    for folder in CODE:
        for path in sorted((here / folder).rglob("*.py")):
            key.update(path.read_bytes())
    place = places.alarms_path(job.workspace)
    try:
        known = json.loads(place.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        known = {}
    if known.get("key") == key.hexdigest():
        return known["found"]
    job.say("  looking for a shift or a stretch of the stimulus, and for leaks of the split ...")
    stimuli = {name: _stimulus(presented, name) for name in presented.paths}
    records = {name: {run.subject: collected.records[run.path] for run in collected.of_run(name)} for name in stimuli}
    found = run_alarms(stimuli, records, collected.voxels, split)
    write_atomic(place, json.dumps({"key": key.hexdigest(), "found": found}, indent=1).encode() + b"\n")
    return found
