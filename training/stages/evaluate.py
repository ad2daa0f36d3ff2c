"""Evaluates a trained model on held-out data: writes each metric with its confidence interval and its baselines, and a
verdict in words, to exports/metrics.json."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from training.budget.book import locked
from training.data.files import disk_errors, sha256, write_atomic
from training.data.identity import data_digest, refuse_leak, schema_of
from training.errors import DataError
from training.export.receipt import finite
from training.registry import domain_of, families, family_of
from training.report.measures import ROWS, row_counts
from training.sampling_unit import UNIT, Unit
from training.workspace import Workspace

if TYPE_CHECKING:
    from training.data.rows import Row
    from training.stages.trained import Trained

METRICS = "metrics.json"
FORMAT = 1
#: Increment it when the measurements change: results of an older version are then measured again.
VERSION = 4
PATIENCE = 60.0  # seconds to wait for an evaluation at the same time that is writing its result
SHARE = 0.2
SHOWN = 12  # metrics in the table on the console


def evaluate(
    run: str,
    workspace: Workspace,
    *,
    checkpoint: Path | None = None,
    device: str = "auto",
    options: Mapping[str, Any] | None = None,
    share: float = SHARE,
    test: bool = False,
) -> dict[str, Any]:
    """Judge `checkpoint` (default: the best of `run`) on the held-out rows; returns its entry in metrics.json.

    `options`: of the domain, by attribute. `share`: how long trained baselines are trained, as a share of the model's
    own steps (EvaluationContext.baseline_share). `test`: judge it on the sealed test split too, which is recorded as an
    opening; the result is under "test", beside that on the validation split.

    Nothing is measured twice: a result on the same checkpoint and the same rows is read back. Raises UsageError if
    there is no checkpoint, or a family that this one needs is not trained; DataError if there are no held-out rows.
    """
    from training.stages.trained import load_trained, needed_of

    started = time.monotonic()
    trained = load_trained(run, workspace, checkpoint, options)
    trained.recipe.needed = needed_of(run, workspace)
    judge = _Judge(trained, workspace, device, options, share)
    path = workspace.exports / METRICS
    result = judge.judged("val", read_metrics(path).get(run, {}))
    if test:
        result["test"] = judge.judged("test", result.get("test", {}))
    if _stored(path, run, result):
        print(f"Written to {workspace.relative(path)} after {time.monotonic() - started:.0f} s.")
    return result


def _stored(path: Path, run: str, result: dict[str, Any]) -> bool:
    """Write the entry of a run, unless it is there; returns whether it was written. Entries of other runs are kept,
    also those that evaluations at the same time write."""
    with disk_errors(path), locked(path, PATIENCE):
        known = read_metrics(path)
        if result == known.get(run):
            return False
        known[run] = result
        content = {"format": FORMAT, "families": known}
        write_atomic(path, (json.dumps(finite(content), indent=1, allow_nan=False) + "\n").encode())
    return True


class _Judge:
    """Judges one checkpoint, on one split or several."""

    def __init__(
        self, trained: Trained, workspace: Workspace, device: str, options: Mapping[str, Any] | None, share: float
    ):
        self.trained, self.recipe, self.workspace = trained, trained.recipe, workspace
        self.device, self.options, self.share = device, options, share

    def judged(self, split: Literal["val", "test"], known: dict[str, Any]) -> dict[str, Any]:
        """The result on `split`: `known`, if it is of the same checkpoint, rows and settings; else it is measured."""
        # The sealed split is identified by its manifest, so that an earlier result is read back without opening it.
        sealed = split == "test"
        held_out = None if sealed else self._rows(split)
        subject = {
            "checkpoint_sha256": self.trained.sha256,
            "held_out": sha256(self._manifest(split)) if held_out is None else _names_of(held_out),
            "share": self.share,
            "version": VERSION,
        }
        if held_out is not None:
            subject["data_digest"] = data_digest({split: held_out})
        if known.get("subject") == subject:
            print(f"{self.recipe.title}: up to date, measured before.")
            result = known
        else:
            result = self._measured(split, self._rows(split) if held_out is None else held_out) | {"subject": subject}
            if known.get("subject", {}).get("checkpoint_sha256") == self.trained.sha256 and "test" in known:
                result["test"] = known["test"]  # still valid: the model is the same
        _show(result, self.recipe.run, split)
        return result

    def _measured(self, split: Literal["val", "test"], held_out: Sequence[Row]) -> dict[str, Any]:
        from training.engine.loop.baselines import TrainedBaselines
        from training.engine.process.distributed import choose_device
        from training.recipe import EvaluationContext, Fitted
        from training.stages.trained import steps_of_training

        trained, recipe = self.trained, self.recipe
        chosen = choose_device(self.device)
        model = trained.model if isinstance(recipe, Fitted) else trained.model.to(chosen)
        train = self._rows("train")
        if split == "test":
            refuse_leak({"train": train, "val": self._rows("val"), "test": held_out})
        constants = {name: tensor.numpy() for name, tensor in trained.content["constants"].items()}
        # Their best checkpoints are chosen on the validation split, as the judged model's was: never on the sealed one.
        chosen_on = held_out if split == "val" else self._rows("val")
        baselines = TrainedBaselines(
            self.workspace.cache / "baselines" / recipe.run, trained.sha256, constants, train, chosen_on, self.device,
            recipe.needed,
        )  # fmt: skip
        steps = steps_of_training(trained, self.workspace)
        needed = {name: one.model for name, one in recipe.needed.items()}
        judged = recipe.evaluate(
            EvaluationContext(model, train, held_out, steps, baselines, self.share, needed, split)
        )  # fmt: skip
        return {
            "title": recipe.title,
            "synthetic": bool(trained.content["provenance"]["synthetic"]),
            "verdict": {"word": judged.verdict.word, "why": list(judged.verdict.why)},
            "metrics": {name: metric.plain() for name, metric in judged.metrics.items()},
            ROWS: {"train": len(train), "held_out": len(held_out)},
            **judged.more,
        }

    def _rows(self, split: str) -> Sequence[Row]:
        from training.stages.splits import load_split

        opening = {"opening": "evaluate --test", "checkpoint_sha256": self.trained.sha256} if split == "test" else {}
        return load_split(self.recipe, self.workspace, split, options=self.options, **opening)

    def _manifest(self, split: str) -> Path:
        """The manifest of the sealed split. Raises DataError if the data has none."""
        path = self.workspace.manifest(self.recipe.data, split)
        if not path.is_file():
            raise DataError(f"There is no {split} split of {self.recipe.title}: `prepare` has not written {path}.")
        return path


def _names_of(rows: Sequence[Row]) -> list[str]:
    """What identifies each row: its `Schema.names` but for paths, which differ between hosts. A judgement may depend on
    a name, such as the version of a table by which its results are grouped, while the trained model does not."""
    schema = schema_of(rows)
    paths = {key.name for key in schema.paths}
    names = [name for name in schema.names if name not in paths]
    return sorted(" ".join(str(row.values[name]) for name in names if name in row.values) for row in rows)


def unit_of(run: str) -> Unit:
    """The sampling unit of the domain of `run`; rows if no domain declares its family."""
    return domain_of(run).unit if family_of(run) in families() else UNIT


def read_metrics(path: Path) -> dict[str, Any]:
    """Run -> its entry in metrics.json; empty if the file is missing, cannot be read, or has another format."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        print(f"{path} is damaged and is written again.")
        return {}
    return dict(content["families"]) if content.get("format") == FORMAT else {}


def _show(result: Mapping[str, Any], run: str, split: str) -> None:
    """Print a table (a row for each metric, a column for the model and for each baseline), what the demo shows if it is
    one, and the verdict."""
    unit = unit_of(run)
    title, verdict, metrics = result["title"], result["verdict"], result["metrics"]
    count = row_counts(result).get("held_out", 0)
    rows = f"{count:,} {'held-out' if split == 'val' else 'sealed test'} {unit.one if count == 1 else unit.many}"
    print(f"{title} on {rows}" + (" (synthetic data)" * result["synthetic"]))
    shown = dict(list(metrics.items())[:SHOWN])
    columns = ["model", *dict.fromkeys(name for metric in shown.values() for name in metric["baselines"])]
    print(f"  {'':24}{columns[0]:>26}" + "".join(f"{name:>19}" for name in columns[1:]))
    for name, metric in shown.items():
        own = metric["model"]
        cells = _number(own["value"])
        if metric.get("estimated", True):
            cells += f" ({_number(own['low'])} to {_number(own['high'])})"
        rest = (_number(metric["baselines"].get(other, {}).get("value")) for other in columns[1:])
        print(f"  {name:24}{cells:>26}" + "".join(f"{cell:>19}" for cell in rest))
    if result["synthetic"] and family_of(run) in families():
        print(f"This is a demo. {domain_of(run).demo_text().shows}")
    print(f"{title}: {verdict['word'].upper()}")
    for sentence in verdict["why"]:
        print(f"  {sentence}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
