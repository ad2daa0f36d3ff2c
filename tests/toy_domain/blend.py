"""Plan nodes between training and export: predictions of both families on validation sessions, and their weights."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from training.data.files import write_atomic
from training.domain import Job, Node
from training.workspace import Workspace


def predictions_path(workspace: Workspace, family: str) -> Path:
    return workspace.root / "runs" / f"predictions_{family}.json"


def _checkpoints(job: Job, family: str) -> list[Path]:
    return sorted(job.workspace.checkpoints(family).rglob("best.pt"))


def _predict(job: Job, family: str) -> None:
    import numpy as np

    from tests.toy_domain.domain import TOY
    from tests.toy_domain.readings import pairs
    from training.stages.splits import load_split
    from training.stages.trained import load_trained

    runs = [f"curve/{item}" for item in TOY.items(job.workspace)] if family == "curve" else ["boost"]
    out = {}
    for run in runs:
        trained = load_trained(run, job.workspace)
        for row in load_split(trained.recipe, job.workspace, "val", options=job.options):
            x, y = pairs([row]).T
            if family == "curve":
                import torch

                with torch.no_grad():
                    own = trained.model(torch.from_numpy(np.ascontiguousarray(x[:, None])))[:, 0].numpy()
            else:
                own = trained.model.predict(x.astype(np.float64))
            out[row.values["id"]] = {"own": [float(v) for v in own], "true": [float(v) for v in y]}
    write_atomic(predictions_path(job.workspace, family), json.dumps(out, sort_keys=True).encode())


def _wait_to_be_killed() -> None:
    """For tests that kill a node while it runs: create a file to report the start, then wait."""
    begun = os.environ.get("ATHANOR_TOY_SLOW_NODE")
    if begun:
        Path(begun).touch()
        time.sleep(600)


def predict_curve(job: Job) -> None:
    _wait_to_be_killed()
    _predict(job, "curve")


def predict_boost(job: Job) -> None:
    _predict(job, "boost")


def blend(job: Job) -> None:
    """Least-squares weights of both families' predictions."""
    import numpy as np

    from tests.toy_domain.domain import blend_path

    _wait_to_be_killed()
    both = {name: json.loads(predictions_path(job.workspace, name).read_text()) for name in ("curve", "boost")}
    keys = sorted(set(both["curve"]) & set(both["boost"]))
    columns = np.array([[v for key in keys for v in both[name][key]["own"]] for name in both]).T
    true = np.array([v for key in keys for v in both["curve"][key]["true"]])
    weights = np.linalg.lstsq(columns, true, rcond=None)[0]
    content = dict(zip(both, map(float, weights), strict=True))
    write_atomic(blend_path(job.workspace), json.dumps(content, sort_keys=True).encode())


def _predictions(family: str) -> Node:
    return Node(
        f"predict-{family}", f"Predictions of {family}", f"tests.toy_domain.blend:predict_{family}", (family,),
        inputs=lambda job: _checkpoints(job, family), outputs=lambda job: [predictions_path(job.workspace, family)],
    )  # fmt: skip


def _blend_output(job: Job) -> list[Path]:
    from tests.toy_domain.domain import blend_path

    return [blend_path(job.workspace)]


NODES = (
    _predictions("curve"),
    _predictions("boost"),
    Node(
        "blend", "Blend both families", "tests.toy_domain.blend:blend", ("predict-curve", "predict-boost"),
        inputs=lambda job: [predictions_path(job.workspace, name) for name in ("curve", "boost")],
        outputs=_blend_output,
    ),
)  # fmt: skip
