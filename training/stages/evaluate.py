"""Held-out metrics of a trained model, each with its interval and beside its baselines, and a verdict in words, into
exports/metrics.json."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.data.files import write_atomic
from training.export.receipt import finite
from training.workspace import Workspace

METRICS = "metrics.json"
FORMAT = 1
#: Raised when what is measured, or how, changes: what was measured before is then measured anew.
VERSION = 2
SHARE = 0.2
SHOWN = 12  # metrics in the table on the console


def evaluate(
    family: str,
    workspace: Workspace,
    *,
    checkpoint: Path | None = None,
    device: str = "auto",
    audio_root: Path | None = None,
    midi_root: Path | None = None,
    share: float = SHARE,
) -> dict[str, Any]:
    """Judge `checkpoint` (default: the family's best) on the held-out songs; returns what metrics.json holds of it.

    `share`: of the model's own steps, that models trained only to be compared with it may take (see
    EvaluationContext.baseline_share).

    Nothing is measured twice: the same checkpoint on the same held-out songs is read back. Raises UsageError without
    a checkpoint, DataError without held-out songs.
    """
    from training.engine.process.distributed import choose_device
    from training.recipe import EvaluationContext
    from training.stages.rival import TrainedBaselines
    from training.stages.splits import load_split
    from training.stages.trained import load_trained

    trained = load_trained(family, workspace, checkpoint)
    recipe = trained.recipe
    held_out = load_split(recipe, workspace, "val", audio_root=audio_root, midi_root=midi_root)
    subject = {
        "checkpoint_sha256": trained.sha256,
        "held_out": sorted(str(row.values["id"]) for row in held_out),
        "share": share,
        "version": VERSION,
    }
    path = workspace.exports / METRICS
    known = read_metrics(path)
    if known.get(family, {}).get("subject") == subject:
        print(f"{recipe.title}: up to date, measured before.")
        _show(known[family])
        return known[family]

    started = time.monotonic()
    model = trained.model.to(choose_device(device))
    train = load_split(recipe, workspace, "train", audio_root=audio_root, midi_root=midi_root)
    constants = {name: tensor.numpy() for name, tensor in trained.content["constants"].items()}
    rivals = TrainedBaselines(workspace.cache / "rivals" / family, trained.sha256, constants, train, held_out, device)
    judged = recipe.evaluate(
        EvaluationContext(model, train, held_out, trained.content["progress"]["total_steps"], rivals, share)
    )
    result = {
        "title": recipe.title,
        "synthetic": bool(trained.content["provenance"]["synthetic"]),
        "verdict": {"word": judged.verdict.word, "why": list(judged.verdict.why)},
        "metrics": {name: metric.plain() for name, metric in judged.metrics.items()},
        "songs": {"train": len(train), "held_out": len(held_out)},
        "subject": subject,
        **judged.more,
    }
    known[family] = result
    told = {"format": FORMAT, "families": known}
    write_atomic(path, (json.dumps(finite(told), indent=1, allow_nan=False) + "\n").encode())
    _show(result)
    print(f"Written to {workspace.relative(path)} after {time.monotonic() - started:.0f} s.")
    return result


def read_metrics(path: Path) -> dict[str, Any]:
    """Family -> what was measured of it before; of a file that is of another form, or cannot be read: nothing."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        print(f"{path} is not readable and is written anew.")
        return {}
    return dict(content["families"]) if content.get("format") == FORMAT else {}


def _show(result: Mapping[str, Any]) -> None:
    """The verdict, and a table: a metric a row, the model and every baseline a column."""
    title, verdict, metrics = result["title"], result["verdict"], result["metrics"]
    print(f"{title} on {result['songs']['held_out']} held-out songs" + (" (synthetic data)" * result["synthetic"]))
    shown = dict(list(metrics.items())[:SHOWN])
    columns = ["model", *dict.fromkeys(name for metric in shown.values() for name in metric["baselines"])]
    print(f"  {'':24}{columns[0]:>26}" + "".join(f"{name:>19}" for name in columns[1:]))
    for name, metric in shown.items():
        own = metric["model"]
        cells = f"{_number(own['value'])} ({_number(own['low'])} to {_number(own['high'])})"
        rest = (_number(metric["baselines"].get(other, {}).get("value")) for other in columns[1:])
        print(f"  {name:24}{cells:>26}" + "".join(f"{cell:>19}" for cell in rest))
    print(f"{title}: {verdict['word'].upper()}")
    for sentence in verdict["why"]:
        print(f"  {sentence}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
