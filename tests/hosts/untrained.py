"""Exports of models with random weights, made by the exporter that every job uses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from training.domains.amp.exports.stream import graphs
from training.domains.amp.networks.network import Network
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


def export_capture(network: Network, name: str, folder: Path, merge: Callable[..., None]) -> None:
    """Write the ONNX and golden file of an amplifier's network, and its receipt."""
    recipe = SimpleNamespace(
        title=name, run=f"amp/{name}", weights=lambda model: None, graphs=lambda model: graphs([model]),
        artefacts=lambda model: [],
    )  # fmt: skip
    package = Package(folder, recipe, {"checkpoint_sha256": "0" * 64, "synthetic": "true"}, say=lambda line: None)
    package.make(network, None)
    entry = {"title": name, "synthetic": True, "checkpoint": {"sha256": "0" * 64}, "files": package.files,
             "graphs": package.graphs, **package.expected_files}  # fmt: skip
    merge(folder, recipe.run, entry)
