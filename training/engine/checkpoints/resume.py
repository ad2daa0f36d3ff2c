"""Whether a run continues from a checkpoint or starts with new weights. Checkpoints are moved aside, never deleted."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.engine.checkpoints.checkpoint_file import read
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.engine.checkpoints.provenance import decisive_settings, plain
from training.errors import HostError, UsageError
from training.settings import RunSettings
from training.workspace import PROJECT


@dataclass(frozen=True)
class Wanted:
    """The requested run."""

    settings: RunSettings
    data_digest: str
    global_batch: int
    steps: int  # planned in all


@dataclass(frozen=True)
class Decision:
    """How to begin."""

    path: Path | None  # the checkpoint to continue from; None: start with new weights
    run_id: str
    notes: tuple[str, ...] = ()  # lines for the log: what was found and done


def new_run_id() -> str:
    """A new id, which sorts by time. Two runs that start in the same second get different ones."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def decide(folder: Path, wanted: Wanted, resume: str) -> Decision:
    """Decide by the checkpoints in `folder`, whose lock this process holds; moves those of another run aside.

    `resume`: "auto" continues from the newest intact checkpoint if it has no `differences` from the requested run;
    "never" starts a new run. `training.resume_from` names a file to continue from, whatever differs. Raises UsageError
    if that is missing, and HostError for "auto" if there are checkpoints and none is intact: whether to train again, at
    the full cost, is for the user to decide.
    """
    checkpoints = CheckpointFolder(folder)
    checkpoints.sweep()
    newest = checkpoints.latest()
    there = read(newest) if newest else None
    source = wanted.settings.training.resume_from
    if source is not None:
        return _from_file(checkpoints, wanted, resume, _resolve(source), newest, there)
    if newest is None or there is None:
        return Decision(None, new_run_id(), _none_intact(checkpoints, resume))
    if resume == "never":
        return Decision(None, new_run_id(), _aside(checkpoints, there, "--resume never was given"))
    differing = differences(there, wanted)
    if differing:
        return Decision(None, new_run_id(), _aside(checkpoints, there, "it differs: " + "; ".join(differing)))
    bad = checkpoints.damaged()  # it hashes all files
    notes = (*_passed_over(bad), *_best_lost(checkpoints, bad, there), *_replanned(there, wanted))
    return Decision(newest, there["provenance"]["run_id"], notes)


def _from_file(
    checkpoints: CheckpointFolder, wanted: Wanted, resume: str, source: Path, newest: Path | None,
    there: Mapping[str, Any] | None,
) -> Decision:  # fmt: skip
    if there is not None and newest is not None and resume == "auto" and not differences(there, wanted):
        branched = there["settings"]["training"]["resume_from"] == wanted.settings.training.resume_from
        same_file = source.exists() and source.resolve() == newest.resolve()
        if branched or same_file:  # this run began from that file, or is that file: continue it
            return Decision(newest, there["provenance"]["run_id"], _replanned(there, wanted))
    begin = read(source)
    notes: tuple[str, ...] = (f"continuing from {source} (step {begin['progress']['step']})",)
    differing = differences(begin, wanted)
    if differing:
        notes += ("what differs from it: " + "; ".join(differing),)
    if there is not None:
        inside = source.resolve().parent == checkpoints.path.resolve()
        notes += _aside(checkpoints, there, f"training.resume_from begins a new run from {source.name}")
        if inside:
            aside = checkpoints.path / "previous"
            found = [p for p in sorted(aside.glob(f"*/{source.name}"), key=lambda p: p.stat().st_mtime) if p.is_file()]
            source = next(p for p in reversed(found) if p.parent.name.startswith(there["provenance"]["run_id"]))
    return Decision(source, new_run_id(), (*notes, *_replanned(begin, wanted)))


def differences(found: Mapping[str, Any], wanted: Wanted) -> list[str]:
    """What differs between a checkpoint and the requested run and affects the weights, each as `key: old -> new`."""
    resumable = type(wanted.settings).resumable
    old, new = (decisive_settings(of, resumable) for of in (found["settings"], plain(wanted.settings)))
    out = [
        f"{key}: {old.get(key)} -> {new.get(key)}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    if found["provenance"]["data_digest"] != wanted.data_digest:
        out.append("the data is not the same")
    if found["progress"]["global_batch"] != wanted.global_batch:
        out.append(
            f"the global batch (data.batch_size x training.grad_accum_steps x processes): "
            f"{found['progress']['global_batch']} -> {wanted.global_batch}"
        )
    if wanted.steps < found["progress"]["step"]:
        out.append(f"{found['progress']['step']} steps are done, and {wanted.steps} are requested")
    return out


def _replanned(found: Mapping[str, Any], wanted: Wanted) -> tuple[str, ...]:
    planned = found["progress"]["total_steps"]
    if planned == wanted.steps or found["progress"].get("limit"):  # a budget plans it again
        return ()
    return (
        f"the run's length changed from {planned} to {wanted.steps} steps: the learning-rate schedule is planned again",
    )


def _aside(checkpoints: CheckpointFolder, found: Mapping[str, Any], why: str) -> tuple[str, ...]:
    aside = checkpoints.set_aside(found["provenance"]["run_id"])
    return (f"starting a new run, because of the one that is there {why}. Its checkpoints are now in {aside}",)


def _passed_over(bad: Sequence[str]) -> tuple[str, ...]:
    return (f"damaged or missing, and passed over: {', '.join(bad)} (see docs/recovery.md)",) if bad else ()


def _best_lost(checkpoints: CheckpointFolder, bad: Sequence[str], found: Mapping[str, Any]) -> tuple[str, ...]:
    """A note if no intact checkpoint is of the step with the best evaluation: another model will be exported, unless a
    later evaluation is better. `bad`: names of damaged ones."""
    progress = found["progress"]
    steps = {entry.step for name, entry in checkpoints.listed().items() if name not in bad}
    if not progress["best_metrics"] or progress["best_step"] in steps:
        return ()
    return (
        f"the checkpoint of the best evaluation (step {progress['best_step']:,}) is lost: unless a later one is "
        "better, the best of the others is exported",
    )


def _none_intact(checkpoints: CheckpointFolder, resume: str) -> tuple[str, ...]:
    """The notes for a folder without an intact checkpoint. Damaged ones are refused, or moved aside. If every listed
    file is missing, they were moved away (or `set_aside` was killed before it removed the index): a new run begins."""
    if not checkpoints.all_damaged():
        return _passed_over(checkpoints.damaged())
    if resume == "auto":
        raise HostError(
            f"{checkpoints.damage()}. Nothing was changed. Restore them from a replica (python -m training "
            "restore --persist DIR) or from a copy of your own. To train again from the first step, add --resume "
            "never: these files are then kept aside. See docs/recovery.md."
        )
    newest = next(iter(checkpoints.listed().values()))
    aside = checkpoints.set_aside(newest.run_id)
    return (
        f"starting a new run, because no checkpoint of the one that is there is intact. Its files are now in {aside}",
    )


def _resolve(source: str) -> Path:
    """A path as given, or from the project's root (the command may have been started in a subfolder)."""
    path = Path(source).expanduser()
    return path if path.exists() or path.is_absolute() or not (PROJECT / path).exists() else PROJECT / path


def require(found: Mapping[str, Any], family: str, path: Path) -> None:
    """Raise UsageError for a checkpoint of another family."""
    if found["family"] != family:
        raise UsageError(f"{path} is a checkpoint of {found['family']}, not of {family}.")
