"""A stepped family: one small network per device."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from tests.toy_domain.domain import TOY
from tests.toy_domain.readings import LIMITS, READINGS, pairs
from training.config import Section
from training.data.files import write_atomic
from training.domain import Job
from training.errors import ExportError, UsageError
from training.graphs import Artefact, Graph, TensorSpec
from training.judgement import About, Judgement, Resampling, against, compare, resample, verdict
from training.pretrained import Base
from training.recipe import Loss, Room, Stepped
from training.settings import RunSettings

POINTS = 33  # of the exported table
ABOUT = {"val_loss": About("lower", "", "Mean squared error of the corrected readings.")}


class Model(Section):
    width: int = 8
    parallel: Literal["ddp", "fsdp"] = "ddp"
    line: bool = False  # begin with y = x, the reading itself, which is a result already


class Table(Section):
    name: str = "curve.cal"  # of the exported table


class CurveSettings(RunSettings):
    resumable = ("table", "model.parallel")
    model: Model = Model()
    table: Table = Table()


class Sessions:
    """A dataset with one item per session."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def item(self, epoch: int, index: int) -> dict[str, np.ndarray]:
        return {"xy": pairs([self.rows[index]])}

    def collate(self, items) -> dict[str, torch.Tensor]:
        return {"xy": torch.from_numpy(np.stack([item["xy"] for item in items]))}


class Network(torch.nn.Module):
    """x [batch, 1] -> y [batch, 1]. The features are frozen, like a base model; a checkpoint holds the rest."""

    def __init__(self, width: int, scale: np.ndarray, limits: np.ndarray, line: bool = False):
        super().__init__()
        self.line = line
        self.features = torch.nn.Linear(1, width)
        with torch.no_grad():
            self.features.weight.copy_(torch.linspace(0.5, 4, width)[:, None])
            self.features.bias.copy_(torch.linspace(0, 1, width))
        self.features.requires_grad_(False)
        self.layers = torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.Tanh(), torch.nn.Linear(width, 1))
        if line:
            torch.nn.init.zeros_(self.layers[-1].weight)
            torch.nn.init.zeros_(self.layers[-1].bias)
        self.register_buffer("scale", torch.as_tensor(scale))
        self.register_buffer("limits", torch.as_tensor(limits))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        corrected = self.layers(torch.sin(self.features(x.clamp(self.limits[0], self.limits[1]) / self.scale)))
        return x + corrected if self.line else corrected


def squared(model, xy: torch.Tensor) -> torch.Tensor:
    """Squared errors of readings [batch, n, 2]: [batch, n]."""
    return (model(xy[..., :1].reshape(-1, 1)).reshape(xy.shape[:-1]).float() - xy[..., 1]) ** 2


class Curve(Stepped):
    family, title, manifest, settings_type = "curve", "Curve", "curve", CurveSettings
    dtype_policy, dtype_reason = "float32", "bfloat16 has too few digits for a calibration"

    @property
    def parallel(self):
        return self.settings.model.parallel

    @property
    def starts_trained(self):
        return self.settings.model.line

    def blocks(self, model):
        return [model.features, model.layers]

    def encoders(self):
        return {"readings_path": READINGS, "limits_path": LIMITS}

    def fit_constants(self, rows):
        limits = np.array(rows[0].records["limits_path"]["limits"])
        return {"scale": np.abs(pairs(rows)[:, :1]).max(0), "limits": limits}

    def dataset(self, rows, training):
        return Sessions(rows)

    def rows_of_samples(self, dataset):
        return np.arange(len(dataset))

    def build(self, constants):
        model = self.settings.model
        return Network(model.width, constants["scale"], constants["limits"], model.line)

    def counts(self, batch):
        return {"error": float(batch["xy"][..., 0].numel())}

    def losses(self, model, batch, progress):
        return {"error": Loss(squared(model, batch["xy"]).sum())}

    def validate(self, model, batch):
        errors = squared(model, batch["xy"])
        return {"val_loss": (errors.sum(), float(errors.numel())), "worst": (errors.amax(1).sum(), float(len(errors)))}

    def appraise(self, model, rows, seconds):
        """The largest error of a session, averaged over sessions; it is bounded by a constraint."""
        with torch.no_grad():
            peaks = [squared(model, torch.from_numpy(pairs([row]))).max() for row in rows]
        return {"peak": (torch.stack(peaks).sum(), float(len(peaks)))} if peaks else {"peak": (torch.zeros(()), 0.0)}

    def base(self):
        return Base("sines", "CC0-1.0", "LICENSE")

    def saved(self, model):
        return [name for name in model.state_dict() if not name.startswith("features.")]

    def room(self, model):
        return Room(exports=1 << 20, memory=1 << 20)

    def evaluate(self, context):
        def sums(predict):
            errors = [(predict(xy[:, :1]) - xy[:, 1]) ** 2 for xy in (pairs([row]) for row in context.held_out)]
            return {"val_loss": np.array([[error.sum(), len(error)] for error in errors])}

        resampling = Resampling(len(context.held_out), self.settings.seed)
        mean = pairs(context.train)[:, 1].mean()
        with torch.no_grad():
            own = sums(
                lambda x: context.model(torch.from_numpy(x).to(next(context.model.parameters()))).cpu().numpy()[:, 0]
            )
        others = {"mean": resample(sums(lambda x: mean), resampling, dict)}
        if "boost" in context.needed:
            boost = context.needed["boost"]
            others["boost"] = resample(sums(lambda x: boost.predict(x[:, 0].astype(np.float64))), resampling, dict)
        metrics = compare(ABOUT, resample(own, resampling, dict), others)
        found = [against(metrics["val_loss"], "mean", "the mean reading", "error", unit=TOY.unit)]
        return Judgement(metrics, verdict(found))

    def graphs(self, model):
        spec = {"inputs": (TensorSpec("x", "float32", ("batch", 1), "the device's reading"),),
                "outputs": (TensorSpec("y", "float32", ("batch", 1), "corrected"),)}  # fmt: skip

        def example(sizes, seed):
            return (np.random.default_rng(seed).uniform(-1, 1, (sizes["batch"], 1)).astype(np.float32),)

        return [
            Graph("curve", model, axes={"batch": (1, 64)}, example=example, trials=({"batch": 1}, {"batch": 5}), **spec)
        ]

    def artefacts(self, model):
        x = np.linspace(-1, 1, POINTS).astype(np.float32)
        with torch.no_grad():
            y = model(torch.from_numpy(x[:, None]))[:, 0].numpy()

        def write(path: Path) -> None:
            path.write_text("".join(f"{a:.9g}\t{b:.9g}\n" for a, b in zip(x, y, strict=True)), encoding="utf-8")

        at = float(np.interp(0.3, x, y))
        return [
            Artefact(
                self.settings.table.name, write, "table", {"points": POINTS, "at": 0.3, "value": at, "tolerance": 1e-6}
            )
        ]

    @staticmethod
    def prove_table(path: Path, about) -> dict[str, float]:
        """Read the table like a user of it, and interpolate."""
        rows = np.array([line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()], np.float64)
        if rows.shape != (about["points"], 2):
            raise ExportError(f"{path.name} holds {json.dumps(rows.shape)} numbers; expected {about['points']} pairs.")
        off = abs(float(np.interp(about["at"], rows[:, 0], rows[:, 1])) - about["value"])
        if not off <= about["tolerance"]:
            raise ExportError(f"{path.name} is off by {off:.2g} at {about['at']} (allowed {about['tolerance']:g}).")
        return {"off": off}


Curve.provers = {"table": Curve.prove_table}


def correct(job: Job, words: Sequence[str], load: Callable[[str], Any]) -> None:
    """The command `correct`: print the corrected value of each reading."""
    print("\n".join(_corrected(job, words, load)))


def tabulate(job: Job, words: Sequence[str], load: Callable[[str], Any]) -> None:
    """The command `tabulate`: write readings from 0 to 1 beside their corrected values."""
    readings = [f"{number / 10:g}" for number in range(11)]
    lines = zip(readings, _corrected(job, readings, load), strict=True)
    write_atomic(job.options["out"], "".join(f"{one},{other}\n" for one, other in lines).encode())


def _corrected(job: Job, readings: Sequence[str], load: Callable[[str], Any]) -> list[str]:
    if not job.options["of"]:
        raise UsageError("--of DEVICE is needed: there is one curve for each device.")
    curve = load(f"curve/{job.options['of']}")
    with torch.no_grad():
        return [f"{float(curve.model(torch.tensor([[float(reading)]]))):.4f}" for reading in readings]
