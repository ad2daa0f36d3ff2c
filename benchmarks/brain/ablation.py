"""Why an autoencoder of single volumes learns nothing of the BOLD: its faults, mended one after the other.

python -m benchmarks.brain.ablation --out DIR [--steps N] [--seeds N]

DIR: a workspace that `python -m training prepare --domain brain --out DIR` has filled. One small network (stimulus of a
volume -> bottleneck -> stimulus and BOLD) is trained from random weights on the training rows, with all faults, then
with one fewer at a time. Prints the mean correlation on the validation blocks, over subjects, voxels and seeds, the
share of the BOLD in the loss, and beside it ridge of reduced rank, with which this project's networks begin.

The faults:
- early response: the convolution keeps the middle of its result, so half of the kernel is before the stimulus, and the
  BOLD is expected 16 s too early;
- codes: sound is the numbers of a codec's table, as inputs and as targets of a squared error;
- stretch: the film has 3 % more volumes than the BOLD, and is squeezed to its length;
- one head for all subjects;
- drift: the BOLD keeps its slow drift.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from training.domains.brain.bold.values import columns, raw
from training.domains.brain.domain import BRAIN
from training.domains.brain.evaluation.judging import Held, held_of
from training.domains.brain.features.haemodynamics import convolve, kernel
from training.domains.brain.material import Material, Rows, index_of
from training.domains.brain.regression import baselines
from training.registry import load_recipe
from training.stages.splits import load_split
from training.workspace import Workspace

FAULTS = ("early response", "codes", "stretch", "one head", "drift")
STRETCH = 0.03
BOOKS, ENTRIES = 8, 1_024
HIDDEN, BOTTLENECK = 128, 32


@dataclass(frozen=True, eq=False)
class Laboratory:
    """The rows of a workspace of one run."""

    material: Material
    val: Rows
    held: Held

    @property
    def run(self) -> str:
        (name,) = self.material.train.runs
        return name


def laboratory(out: Path) -> Laboratory:
    recipe = load_recipe("encoding", "debug")
    rows = {name: load_split(recipe, Workspace(out), name, schema=BRAIN.schema()) for name in ("train", "val")}
    material, val = Material.of(rows["train"]), Rows.of(rows["val"])
    return Laboratory(material, val, held_of(material, val))


def stimulus(place: Laboratory, faults: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of the reconstruction, float32 [T, F] each, of the run."""
    bands = place.material.bank(place.material.train.runs[place.run].stimulus)
    if "codes" in faults and "sound" in bands:
        bands = bands | {"sound": codes(bands["sound"])}
    joined = np.concatenate([*bands.values()], 1).astype(np.float32)
    if "stretch" in faults:
        joined = joined[np.minimum((np.arange(len(joined)) * (1 + STRETCH)).round().astype(int), len(joined) - 1)]
    tr = place.material.train.runs[place.run].tr
    if "early response" in faults:
        full = np.stack([np.convolve(column, kernel(tr)) for column in joined.T], 1)
        begin = (len(full) - len(joined)) // 2
        return full[begin : begin + len(joined)].astype(np.float32), joined
    return convolve(joined, kernel(tr)), joined


def codes(sound_TF: np.ndarray) -> np.ndarray:
    """What a codec gives of each volume: the number of the nearest entry in each of its tables, whose order has no
    meaning: float32 [T, BOOKS], 0 to ENTRIES - 1."""
    random = np.random.default_rng(0)
    out = []
    for _ in range(BOOKS):
        table = sound_TF[random.choice(len(sound_TF), min(64, len(sound_TF)), replace=False)]
        nearest = ((sound_TF[:, None] - table) ** 2).sum(-1).argmin(1)
        out.append(random.permutation(ENTRIES)[: len(table)][nearest])
    return np.stack(out, 1).astype(np.float32)


def bold(place: Laboratory, subject: str, faults: Sequence[str]) -> np.ndarray:
    """float32 [T, V], standardised; with its drift, if that is a fault."""
    train = place.material.train
    volumes = train.runs[place.run].volumes
    if "drift" not in faults:
        return place.material.bold(train, subject, place.run, 0, volumes)
    record = train.runs[place.run].bold[subject]
    values = raw(record, columns(record, train.voxels), 0, volumes)
    rows = index_of(train.runs[place.run].spans[subject])
    return (values - values[rows].mean(0)) / values[rows].std(0)


class Network(nn.Module):
    """A volume's stimulus -> bottleneck -> BOLD of each head, and the stimulus."""

    def __init__(self, inputs: int, targets: int, voxels: int, heads: int):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(inputs, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, BOTTLENECK))
        self.heads = nn.ModuleList(nn.Linear(BOTTLENECK, voxels) for _ in range(heads))
        self.decoder = nn.Linear(BOTTLENECK, targets)

    def forward(self, x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        inner = self.encoder(x)
        return [head(inner) for head in self.heads], self.decoder(inner)


def trained(place: Laboratory, faults: Sequence[str], steps: int, seed: int) -> tuple[float, float]:
    """(mean correlation on the validation blocks, share of the BOLD in the loss at the end)."""
    torch.manual_seed(seed)
    subjects = place.material.train.subjects
    x, target = (torch.from_numpy(part) for part in stimulus(place, faults))
    y = [torch.from_numpy(bold(place, subject, faults)) for subject in subjects]
    rows = [torch.from_numpy(index_of(place.material.train.runs[place.run].spans[one])) for one in subjects]
    one_head = "one head" in faults
    network = Network(x.shape[1], target.shape[1], y[0].shape[1], 1 if one_head else len(subjects))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05)
    share = 0.0
    for _ in range(steps):
        predicted, given = network(x)
        of_bold = sum(
            ((predicted[0 if one_head else n][own] - y[n][own]) ** 2).mean() for n, own in enumerate(rows)
        ) / len(rows)  # fmt: skip
        of_film = ((given - target)[rows[0]] ** 2).mean()
        optimizer.zero_grad()
        (of_bold + of_film).backward()
        optimizer.step()
        share = (of_bold / (of_bold + of_film)).item()
    with torch.no_grad():
        found = [part.numpy() for part in network.eval()(x)[0]]

    def predict(subject: str, run: str, begin: int, end: int) -> np.ndarray:
        return found[0 if one_head else subjects.index(subject)][begin:end]

    return float(place.held.moments(place.held.predicted(predict)).correlations().mean()), share


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.brain.ablation", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    place = laboratory(options.out)
    for number in range(len(FAULTS) + 1):
        found = [trained(place, FAULTS[number:], options.steps, seed) for seed in range(options.seeds)]
        r, share = np.array(found).T
        name = "all faults" if number == 0 else f"without {FAULTS[number - 1]}"
        print(f"{name:<24} r {r.mean():+.3f} ({r.min():+.3f} to {r.max():+.3f}), BOLD {share.mean():.2%} of the loss",
              flush=True)  # fmt: skip
    banded = baselines.banded_ridge(place.material, 0, searches=8)
    linear, _ = baselines.reduced_rank(place.material, banded, BOTTLENECK)
    r = place.held.moments(place.held.predicted(linear.predict)).correlations().mean()
    print(f"{'ridge of reduced rank':<24} r {r:+.3f}")


if __name__ == "__main__":
    main()
