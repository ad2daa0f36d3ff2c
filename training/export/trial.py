"""A fixed export, to time this host by: `python -m training.export.trial`.

Evaluating, exporting and verifying are processes that import torch, trace, convert, run ONNX Runtime and compute on
all cores. So is this one, on a model of two layers that is the same everywhere. How long it takes here, as a multiple
of what it takes on the reference cores, predicts how long those stages will take (budget/reserve.py).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from training.export import proof
from training.export.int8 import write_int8
from training.export.onnx import write_onnx
from training.export.trace import trace
from training.graphs import Graph, TensorSpec

WIDTH, LENGTH, HEADS, LAYERS = 64, 32, 4, 2
STEPS, ROWS = 12, 32  # of training, for what computes rather than converts


class _Block(nn.Module):
    """x [B, LENGTH, WIDTH] -> the same shape: attention and a feed-forward part."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.wide, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = self.qkv(self.norm(x)).view(-1, LENGTH, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        q, k, v = heads[0], heads[1], heads[2]
        weights = torch.softmax(q @ k.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5, dim=-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(-1, LENGTH, WIDTH))
        return x + self.narrow(torch.nn.functional.gelu(self.wide(x)))


def _example(sizes: Mapping[str, int], seed: int) -> tuple[np.ndarray, ...]:
    return (np.random.default_rng(seed).standard_normal((sizes["batch"], LENGTH, WIDTH)).astype(np.float32),)


def fixed_graph() -> Graph:
    """The model that is exported: untrained, but for a few steps that are taken for their time."""
    torch.manual_seed(0)
    model = nn.Sequential(*(_Block() for _ in range(LAYERS)))
    x = torch.from_numpy(_example({"batch": ROWS}, 0)[0])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for _ in range(STEPS):
        optimizer.zero_grad()
        (model(x) - x).square().mean().backward()
        optimizer.step()
    spec = {name: TensorSpec(name, "float32", ("batch", LENGTH, WIDTH), "") for name in ("x", "y")}
    return Graph(
        "trial", model.eval().requires_grad_(False), (spec["x"],), (spec["y"],), axes={"batch": (1, ROWS)},
        example=_example, trials=tuple({"batch": n} for n in (1, 2, 7)),
    )  # fmt: skip


def run(folder: Path) -> None:
    """Export the fixed model into `folder` and prove it. Raises ExportError where a file differs from the model."""
    graph, path = fixed_graph(), folder / "trial.onnx"
    write_onnx(graph, trace(graph), path, {})
    answers = proof.truth(graph)
    cases = [(sizes, inputs, answers(inputs)) for sizes, inputs in proof.trial_inputs(graph)]
    proof.require(path.name, proof.compare(proof.session(path), cases), graph.tolerance)
    write_int8(path, folder / "trial.int8.onnx")
    proof.session(folder / "trial.int8.onnx")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as room:
        run(Path(room))
