"""Exports for the hosts' tests, and uniform numbers that every host can repeat."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import pytest

from training.export.receipt import merge_family, read_receipt
from training.workspace import PROJECT

FAMILIES = ("midi_generator", "spectocloud")


def usable(folder: Path) -> bool:
    """Whether a folder has the exports of both families, with the tables that hosts read."""
    receipt = read_receipt(folder)
    if receipt is None or not set(FAMILIES) <= set(receipt["families"]):
        return False
    model = onnx.load(folder / "midi_generator_step.onnx", load_external_data=False)
    about = {entry.key: entry.value for entry in model.metadata_props}
    return "grammar_rules" in about and '"closing"' in about.get("generation", "")


@pytest.fixture(scope="session")
def exports(tmp_path_factory) -> Path:
    """The exports of a job: those that ATHANOR_TEST_EXPORTS names, or those in this project's folder (.ci/run makes
    them), or of untrained models of the debug preset."""
    named = Path(os.environ.get("ATHANOR_TEST_EXPORTS", PROJECT / "exports"))
    if usable(named):
        return named
    from tests.hosts.untrained import export_untrained

    folder = tmp_path_factory.mktemp("exports")
    for family in FAMILIES:
        export_untrained(family, folder, merge_family)
    return folder


class SplitMix:
    """The uniform numbers of the hosts: SplitMix64, the upper 53 bits."""

    def __init__(self, seed: int):
        self.state = seed

    def random(self) -> float:
        mask = (1 << 64) - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return ((z ^ (z >> 31)) >> 11) / 2**53
