"""Exports checkpoints to files that other programs can run. Each file is compared with its model and listed in a
receipt."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from training.data.files import disk_errors
from training.errors import ExportError
from training.export import files, receipt
from training.export.coreml import installed
from training.export.int8 import LIMIT
from training.export.layout import Layout, collisions
from training.export.package import Package
from training.export.table import SHOWN, file_summary, table
from training.recipe import Recipe
from training.registry import domain_of, facts, item_of
from training.stages.gallery import show_exports
from training.stages.splits import load_split
from training.stages.trained import Trained, load_trained
from training.workspace import Workspace, exclusive


def export(
    checkpoints: Mapping[str, Path | None],
    workspace: Workspace,
    *,
    folder: Path | None = None,
    options: Mapping[str, Any] | None = None,
    int8_limit: float = LIMIT,
    cost: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Export each run ("family" or "family/item") from its checkpoint (None: its best) into `folder` (default: the
    workspace's exports/); the files of an item lie in a folder named after it.

    Files are made beside their final place and moved there only when all files of a run are verified; those of an
    earlier export stay until then. A run whose files were made from this checkpoint before is not exported again.
    `options`: the domain's, which say where held-out data is. `cost`: of each run whose cost is known, as
    {"money": 1.23, "currency": "USD"}.

    Raises UsageError for a missing or foreign checkpoint (before anything is made), ExportError where a file differs
    from its model, HostError where the folder is in use or cannot be written.
    """
    folder = folder or workspace.exports
    for run in checkpoints:
        Layout.of(run)
    sources = [load_trained(run, workspace, path, options) for run, path in checkpoints.items()]
    with exclusive(folder, "export"):
        for trained in sources:
            manifest = _held_out_manifest(trained.recipe, workspace)
            key = _key(trained, int8_limit, manifest)
            if _is_done(folder, trained.recipe.run, key):
                print(f"{_title(trained.recipe)}: {workspace.relative(folder)} is up to date with this checkpoint.")
                continue
            held_out = load_split(trained.recipe, workspace, "val", options=options) if manifest else None
            spent = (cost or {}).get(trained.recipe.run)
            _export_run(trained, folder, workspace, held_out, key, int8_limit, spent)
        _summary(folder, workspace, list(checkpoints))


def _title(recipe: Recipe) -> str:
    """The title of a run, for people."""
    return _with_item(recipe.title, recipe.item)


def _with_item(title: str, item: str) -> str:
    return f"{title} ({item})" if item else title


def _held_out_manifest(recipe: Recipe, workspace: Workspace) -> Path | None:
    """The validation manifest, None where this host has none: a checkpoint can be exported without its data."""
    named = recipe.settings.data.val_manifest
    path = Path(named).expanduser() if named else workspace.manifest(recipe.data, "val")
    return path if path.is_file() else None


def _key(trained: Trained, int8_limit: float, manifest: Path | None) -> dict[str, Any]:
    """What the exported files depend on: while it is unchanged, they need not be made again."""
    return {
        "checkpoint_sha256": trained.sha256,
        "held_out_sha256": files.sha256(manifest) if manifest else None,
        "code": receipt.code_version(*code_folders(trained.recipe.run)),
        "libraries": receipt.libraries(),
        "options": {"int8_limit": int8_limit},
    }


def code_folders(run: str) -> list[Path]:
    """The folders whose code determines the contents of a run's files: the domain's, and the recipe's if it is outside
    of that. Only the parent packages of the recipe are imported (no torch)."""
    domain = Path(str(sys.modules[type(domain_of(run)).__module__].__file__)).parent
    package = facts(run).recipe.partition(":")[0].rpartition(".")[0]
    spec = importlib.util.find_spec(package) if package else None
    recipe = Path(str(spec.origin)).parent if spec and spec.origin else domain
    return [domain] if recipe.is_relative_to(domain) else [domain, recipe]


def _is_done(folder: Path, run: str, key: Mapping[str, Any]) -> bool:
    try:
        entry = (receipt.read_receipt(folder) or {"families": {}})["families"].get(run)
    except ExportError as error:
        print(f"{error} It is written again.")
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


def _export_run(
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
    print(f"{_title(recipe)}: exporting {workspace.relative(trained.path)} to {workspace.relative(folder)}")
    if synthetic:
        print("  synthetic: true (trained on demo data; every file records it)")
    model = trained.model
    if isinstance(model, torch.nn.Module):
        _check_finite(trained)
        model = model.float().eval().requires_grad_(False)
    staging = folder / f".making-{recipe.run.replace('/', '-')}"
    shutil.rmtree(staging, ignore_errors=True)
    with disk_errors(staging):
        staging.mkdir(parents=True)
    try:
        metadata = {
            "project": "athanor",
            "family": recipe.family,
            "synthetic": str(synthetic).lower(),
            "checkpoint_sha256": trained.sha256,
        } | ({"item": recipe.item} if recipe.item else {})
        package = Package(staging, recipe, metadata, int8_limit)
        _make(package, trained, model, held_out, workspace.relative(folder))
        entry = {
            "title": recipe.title,
            "synthetic": synthetic,
            "checkpoint": {
                "file": trained.path.name,
                "sha256": trained.sha256,
                "bytes": trained.path.stat().st_size,
                "weights": "ema" if trained.content.get("ema") else "model",
                **{k: progress[k] for k in ("step", "epoch") if k in progress},
            },
            "trained": provenance,
            "base": asdict(base) if (base := recipe.base()) else None,
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
            **package.expected_files,
            "notes": package.notes,
        }
        _publish(staging, folder, recipe.run, entry)
        show_exports(recipe, entry, workspace, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    print(f"  took {time.monotonic() - began:.0f} s")


def _make(package: Package, trained: Trained, model: Any, held_out: Any, folder: str) -> None:
    try:
        package.make(model, held_out)
    except ExportError as error:
        raise ExportError(
            f"{error}\nNothing in {folder} was changed, and what was trained is kept ({trained.path.name}). See "
            "docs/recovery.md."
        ) from error


def _publish(staging: Path, folder: Path, run: str, entry: Mapping[str, Any]) -> None:
    """Move verified files to their final names, delete those that this run no longer has, and write the receipt
    last."""
    before = (receipt.read_receipt(folder) or {"families": {}})["families"]
    others = {name for other, had in before.items() if other != run for name in had["files"]}
    taken = collisions(entry["files"], others)
    if taken:
        raise ExportError(f"Two families export a file of the same name: {', '.join(taken)}. Rename a graph.")
    made = set(entry["files"])
    gone = set(before.get(run, {"files": {}})["files"]) - made
    files.remove_all_but(folder, {name for name in gone if (folder / name).is_file()} & files.folders_of(made), set())
    for name in entry["files"]:
        files.publish(staging / name, folder / name)
    files.remove_all_but(folder, gone, made)
    receipt.merge_family(folder, run, entry)


def _check_finite(trained: Trained) -> None:
    bad = [
        name
        for name, tensor in trained.model.state_dict().items()
        if tensor.is_floating_point() and not torch.isfinite(tensor).all()
    ]
    if bad:
        raise ExportError(f"{trained.path} holds weights that are not finite: {', '.join(bad[:5])}. Train again.")


def _summary(folder: Path, workspace: Workspace, runs: list[str]) -> None:
    entries = (receipt.read_receipt(folder) or {"families": {}})["families"]
    for run in runs:
        entry = entries[run]
        print(f"\n{_with_item(entry['title'], item_of(run))}" + (" (synthetic: true)" if entry["synthetic"] else ""))
        shown = {n: f for n, f in entry["files"].items() if f["kind"] in SHOWN}
        print(table((name, about["bytes"], file_summary(about)) for name, about in shown.items()))
        rest = [f["bytes"] for n, f in entry["files"].items() if n not in shown]
        print(table([(f"golden/ and samples/ ({len(rest)} files)", sum(rest), "")]))
        for note in entry["notes"]:
            print(f"  NOTE: {note}")
    if not installed():
        print("coremltools is not installed here: no .mlpackage was made.")
    print(f"\nReceipt: {workspace.relative(folder / receipt.NAME)}")
