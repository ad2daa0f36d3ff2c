"""Predictions of trained families, as the ensemble sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from training.domains.market.decisions import CLASSES, Decisions

LEAST = 1e-6  # probabilities below it count as this one: a logarithm must be finite


def window_of(model: Any) -> int:
    """How many decisions a family's model looks at; 1 for trees."""
    return getattr(model, "window", 1)


def place(model: Any, device: torch.device) -> None:
    """Move the networks of a family's model, or of an ensemble's members, to a device; trees stay on the CPU."""
    members = getattr(model, "members", None)
    for one in [model] if members is None else [member.model for member in members.values()]:
        if isinstance(one, torch.nn.Module):
            one.to(device)


def final(trained: Any, decisions: Decisions, index: np.ndarray) -> np.ndarray:
    """The probabilities of the final model for some decisions (int64 [n], ascending): float32 [n, C], NaN where its
    window does not fit into a contiguous stretch."""
    return predicted(trained.model, -1, decisions, index)


def out_of_fold(trained: Any, decisions: Decisions, index: np.ndarray) -> np.ndarray:
    """For each of the training decisions (int64 [n], ascending) the probabilities of the model of the fold that holds
    it out: float32 [n, C], NaN as for `final`."""
    out = np.full((len(index), len(CLASSES)), np.nan, np.float32)
    for number, (_, held) in enumerate(trained.recipe.settings.folds.of(decisions, index)):
        out[held] = predicted(trained.model, number, decisions, index[held])
    return out


def predicted(model: Any, number: int, decisions: Decisions, index: np.ndarray) -> np.ndarray:
    """The probabilities of one of a family's models (-1: the final one) for some decisions: as `final`."""
    first = max(0, int(index[0]) - window_of(model) + 1)  # the first window begins before its decision
    part = slice(first, int(index[-1]) + 1)
    columns = (np.asarray(column[part]) for column in (decisions.features, decisions.run, decisions.decided))
    return model.predict(number, *columns)[index - first]


def log_probabilities(of_members: Mapping[str, np.ndarray]) -> np.ndarray:
    """Member -> probabilities float32 [n, C] becomes float64 [n, M, C]: their logarithms."""
    stacked = np.stack(list(of_members.values()), 1)
    return np.log(np.maximum(stacked, np.float32(LEAST)).astype(np.float64))
