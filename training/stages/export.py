"""Checkpoints -> files that other programs run, each proved against its model, with a receipt."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from training.data.files import disk_errors
from training.errors import ExportError
from training.export import files, receipt
from training.export.coreml import installed
from training.export.int8 import LIMIT
from training.export.package import Package
from training.export.table import table, told
from training.recipe import Recipe
from training.stages.gallery import show_exports
from training.stages.splits import load_split
from training.stages.trained import Trained, load_trained
from training.workspace import Workspace, exclusive


def export(
    checkpoints: Mapping[str, Path | None],
    workspace: Workspace,
    *,
    folder: Path | None = None,
    audio_root: Path | None = None,
    midi_root: Path | None = None,
    int8_limit: float = LIMIT,
    cost: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Export each family from its checkpoint (None: its best) into `folder` (default: the workspace's exports/).

    Files are made beside their final place and moved there only when all of a family's are proved; what an earlier
    export left stays until then. A family whose files already are those of this checkpoint is not made again.
    `cost`: of each family where it is known, as {"money": 1.23, "currency": "USD"}.

    Raises UsageError for a missing or foreign checkpoint (before anything is made), ExportError where a file differs
    from its model, HostError where the folder is in use or cannot be written.
    """
    folder = folder or workspace.exports
    sources = [load_trained(family, workspace, path) for family, path in checkpoints.items()]
    with exclusive(folder, "export"):
        for trained in sources:
            manifest = _held_out_manifest(trained.recipe, workspace)
            key = _key(trained, int8_limit, manifest)
            if _is_done(folder, trained.recipe.family, key):
                print(f"{trained.recipe.title}: {workspace.relative(folder)} is up to date with this checkpoint.")
                continue
            held_out = (
                load_split(trained.recipe, workspace, "val", options={"audio_root": audio_root, "midi_root": midi_root})
                if manifest
                else None
            )
            spent = (cost or {}).get(trained.recipe.family)
            _export_family(trained, folder, workspace, held_out, key, int8_limit, spent)
        _summary(folder, workspace, list(checkpoints))


def _held_out_manifest(recipe: Recipe, workspace: Workspace) -> Path | None:
    """The validation manifest, None where this host has none: a checkpoint can be exported without its data."""
    named = recipe.settings.data.val_manifest
    path = Path(named).expanduser() if named else workspace.manifest(recipe.manifest, "val")
    return path if path.is_file() else None


def _key(trained: Trained, int8_limit: float, manifest: Path | None) -> dict[str, Any]:
    """What the files depend on: where it is the same, so are they."""
    return {
        "checkpoint_sha256": trained.sha256,
        "held_out_sha256": files.sha256(manifest) if manifest else None,
        "code": receipt.code_version(trained.recipe.family),
        "libraries": receipt.libraries(),
        "options": {"int8_limit": int8_limit},
    }


def _is_done(folder: Path, family: str, key: Mapping[str, Any]) -> bool:
    try:
        entry = (receipt.read_receipt(folder) or {"families": {}})["families"].get(family)
    except ExportError as error:
        print(f"{error} It is written anew.")
        (folder / receipt.NAME).unlink()
        return False
    if entry is None or {k: entry.get("exported", {}).get(k) for k in key} != dict(key):
        return False
    for name, about in entry["files"].items():
        path = folder / name
        if path.is_symlink() or not path.exists() or files.sha256(path) != about["sha256"]:
            print(f"{name} is missing or was changed since it was exported: the family is exported again.")
            return False
    return True


def _export_family(
    trained: Trained,
    folder: Path,
    workspace: Workspace,
    held_out: Any,
    key: Mapping[str, Any],
    int8_limit: float,
    cost: Mapping[str, Any] | None,
) -> None:
    recipe, began = trained.recipe, time.monotonic()
    provenance, progress = dict(trained.content["provenance"]), trained.content["progress"]
    synthetic = bool(provenance["synthetic"])
    print(f"{recipe.title}: exporting {workspace.relative(trained.path)} to {workspace.relative(folder)}")
    if synthetic:
        print("  synthetic: true (trained on the demo corpus; every file says so)")
    _check_finite(trained)
    model = trained.model.float().eval().requires_grad_(False)
    room = folder / f".making-{recipe.family}"
    shutil.rmtree(room, ignore_errors=True)
    with disk_errors(room):
        room.mkdir(parents=True)
    try:
        metadata = {
            "project": "athanor",
            "family": recipe.family,
            "synthetic": str(synthetic).lower(),
            "checkpoint_sha256": trained.sha256,
        }
        package = Package(room, recipe, metadata, int8_limit)
        package.make(model, held_out)
        entry = {
            "title": recipe.title,
            "synthetic": synthetic,
            "checkpoint": {
                "file": trained.path.name,
                "sha256": trained.sha256,
                "bytes": trained.path.stat().st_size,
                "weights": "ema" if trained.content["ema"] else "model",
                **{k: progress[k] for k in ("step", "epoch") if k in progress},
            },
            "trained": provenance,
            "metrics": trained.content["metrics"],
            "cost": {"seconds": provenance.get("seconds"), "money": None, "currency": None} | dict(cost or {}),
            "exported": {
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(time.monotonic() - began, 1),
                "hardware": receipt.hardware(),
                **key,
            },
            "graphs": package.graphs,
            "files": package.files,
            "notes": package.notes,
        }
        _publish(room, folder, recipe.family, entry)
        show_exports(recipe, entry, workspace, folder)
    finally:
        shutil.rmtree(room, ignore_errors=True)
    print(f"  took {time.monotonic() - began:.0f} s")


def _publish(room: Path, folder: Path, family: str, entry: Mapping[str, Any]) -> None:
    """Move proved files to their names, drop those that this family no longer has, and write the receipt last."""
    before = (receipt.read_receipt(folder) or {"families": {}})["families"]
    others = {name for other, had in before.items() if other != family for name in had["files"]}
    taken = sorted(set(entry["files"]) & others)
    if taken:
        raise ExportError(f"Two families export a file of the same name: {', '.join(taken)}. Rename a graph.")
    for name in entry["files"]:
        files.publish(room / name, folder / name)
    for name in set(before.get(family, {"files": {}})["files"]) - set(entry["files"]):
        gone = folder / name
        if gone.resolve().is_relative_to(folder.resolve()):
            shutil.rmtree(gone) if gone.is_dir() else gone.unlink(missing_ok=True)
    receipt.merge_family(folder, family, entry)


def _check_finite(trained: Trained) -> None:
    bad = [
        name
        for name, tensor in trained.model.state_dict().items()
        if tensor.is_floating_point() and not torch.isfinite(tensor).all()
    ]
    if bad:
        raise ExportError(f"{trained.path} holds weights that are not finite: {', '.join(bad[:5])}. Train again.")


def _summary(folder: Path, workspace: Workspace, families: list[str]) -> None:
    entries = (receipt.read_receipt(folder) or {"families": {}})["families"]
    for family in families:
        entry = entries[family]
        print(f"\n{entry['title']}" + (" (synthetic: true)" if entry["synthetic"] else ""))
        shown = {n: f for n, f in entry["files"].items() if f["kind"] in ("onnx", "int8", "coreml", "weights")}
        print(table((name, about["bytes"], told(about)) for name, about in shown.items()))
        rest = [f["bytes"] for n, f in entry["files"].items() if n not in shown]
        print(table([(f"golden/ and samples/ ({len(rest)} files)", sum(rest), "")]))
        for note in entry["notes"]:
            print(f"  NOTE: {note}")
    if not installed():
        print("coremltools is not installed here: no .mlpackage was made.")
    print(f"\nReceipt: {workspace.relative(folder / receipt.NAME)}")
