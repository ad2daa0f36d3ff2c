"""Exports of models with random weights, made by the exporter that every job uses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from training.export.package import Package
from training.registry import recipe_with, settings_layers


def export_untrained(family: str, folder: Path, merge: Callable[..., None]) -> None:
    """Write the ONNX and golden files of `family`, at the sizes of preset `debug`, and their receipt."""
    torch.manual_seed(0)
    changes = ["export.formats=[onnx]"] if family == "midi_generator" else ["export.coreml=false", "export.int8=false"]
    recipe = recipe_with(family, settings_layers(family, "debug"), changes)
    constants = {"mean": np.zeros(128, np.float32), "std": np.ones(1, np.float32)}
    model = recipe.build(constants if family == "spectocloud" else {}).eval()
    package = Package(folder, recipe, {"checkpoint_sha256": "0" * 64, "synthetic": "true"}, say=lambda line: None)
    package.make(model, None)
    entry = {"title": recipe.title, "synthetic": True, "checkpoint": {"sha256": "0" * 64}, "files": package.files,
             "graphs": package.graphs, **package.expected_files}  # fmt: skip
    merge(folder, family, entry)
