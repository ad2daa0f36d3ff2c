"""What the commands of the stages import: for processes that are forked with it (warm.py)."""

from __future__ import annotations

import torch
import torch._dynamo

import training.budget.account
import training.cli
import training.domains.music.midi_generator.recipe
import training.engine.checkpoints.resume
import training.engine.fit.fitted
import training.engine.loop.loop
import training.engine.tracking.tracker
import training.export.onnx
import training.persist.lease
import training.persist.replicator
import training.report.page
import training.stages.doctor
import training.stages.evaluate
import training.stages.export
import training.stages.fan_out
import training.stages.nodes
import training.stages.persist
import training.stages.train
import training.stages.verify
from tests.probes import SHORT


def unchanged(words: list[str]) -> list[str]:
    """The words of a command, as they came."""
    torch.set_num_threads(1)
    training.budget.reserve.PROBE = SHORT
    return words
