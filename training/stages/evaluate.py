"""Held-out metrics of a trained model, each beside its baselines, into exports/metrics.json."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.data.files import write_atomic
from training.workspace import Workspace

METRICS = "metrics.json"


def evaluate(
    family: str,
    workspace: Workspace,
    *,
    checkpoint: Path | None = None,
    device: str = "auto",
    audio_root: Path | None = None,
    midi_root: Path | None = None,
) -> dict[str, Any]:
    """Measure `checkpoint` (default: the family's best) on the held-out songs; returns what metrics.json holds of it.

    Nothing is measured twice: the same checkpoint on the same held-out manifest is read back. Raises UsageError without
    a checkpoint, DataError without held-out songs.
    """
    from training.engine.distributed import Ranks, choose_device
    from training.engine.precision import Precision
    from training.engine.validate import HeldOut
    from training.stages.splits import load_split
    from training.stages.trained import load_trained

    trained = load_trained(family, workspace, checkpoint)
    recipe = trained.recipe
    held_out = load_split(recipe, workspace, "val", audio_root=audio_root, midi_root=midi_root)
    subject = {"checkpoint_sha256": trained.sha256, "held_out": sorted(str(row.values["id"]) for row in held_out)}
    path = workspace.exports / METRICS
    known = _read(path)
    if known.get(family, {}).get("subject") == subject:
        print(f"{recipe.title}: up to date, measured before.")
        _show(recipe.title, known[family])
        return known[family]

    started = time.monotonic()
    chosen = choose_device(device)
    model = trained.model.to(chosen)
    settings = recipe.settings.training.model_copy(update={"amp": False})  # as exported: float32
    # in the micro-batches that training found room for
    size = math.ceil(recipe.settings.data.batch_size / 2 ** trained.content["progress"].get("halvings", 0))
    examples = recipe.examples(held_out, training=False)
    with HeldOut(examples, recipe, Ranks(0, 1, chosen), Precision(settings, chosen), size) as split:
        metrics = split.judge(model)
    train = load_split(recipe, workspace, "train", audio_root=audio_root, midi_root=midi_root)
    result = {
        "subject": subject,
        "synthetic": bool(trained.content["provenance"]["synthetic"]),
        "songs": {"train": len(train), "held_out": len(held_out)},
        "model": metrics,
        "baselines": recipe.baselines(train, held_out),
        "probe": recipe.probe(model, held_out),
    }
    known[family] = result
    write_atomic(path, (json.dumps(known, indent=1, sort_keys=True) + "\n").encode())
    _show(recipe.title, result)
    print(f"Written to {workspace.relative(path)} after {time.monotonic() - started:.0f} s.")
    return result


def _read(path: Path) -> dict[str, Any]:
    """What was measured before; a file that cannot be read is measured anew."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        print(f"{path} is not readable and is written anew.")
        return {}


def _show(title: str, result: Mapping[str, Any]) -> None:
    """A table: a metric a row, the model and every baseline a column."""
    baselines = result["baselines"]
    print(f"{title} on {result['songs']['held_out']} held-out songs" + (" (synthetic data)" * result["synthetic"]))
    columns = {"model": result["model"], **baselines}
    print(f"  {'':24}" + "".join(f"{name:>18}" for name in columns))
    compared = [name for name in result["model"] if any(name in values for values in baselines.values())]
    for metric in compared or list(result["model"])[:8]:
        cells = (f"{values[metric]:18.4g}" if metric in values else f"{'':18}" for values in columns.values())
        print(f"  {metric:24}" + "".join(cells))
    for name, value in result["probe"].items():
        print(f"  {name:24}{value:18.4g}")
