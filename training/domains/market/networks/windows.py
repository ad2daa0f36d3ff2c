"""Windows of decisions. A window is a view of the features [N, F]: nothing is copied before a batch is made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from training.domains.market.decisions import Decisions


def complete(run: np.ndarray, window: int) -> np.ndarray:
    """bool [N]: whether the `window` decisions that end at each lie in one contiguous stretch (run int [N])."""
    out = np.zeros(len(run), bool)
    out[window - 1 :] = run[window - 1 :] == run[: len(run) - window + 1]
    return out


def views(features: np.ndarray, window: int) -> np.ndarray:
    """A view float32 [N - window + 1, window, F] of features [N, F]; entry i ends at decision i + window - 1."""
    return np.lib.stride_tricks.sliding_window_view(features, window, 0).swapaxes(1, 2)


class Windows:
    """The dataset of a split: a window, its label, and how much it counts for each of the K+1 networks.

    `index`: the decisions, int64 [n]; those without a complete window are left out. `member`: bool [n, K+1], whether a
    decision is in the fit set of each network.
    """

    def __init__(self, decisions: Decisions, index: np.ndarray, member: np.ndarray, window: int):
        kept = complete(decisions.run, window)[index]
        self.index, self.window, self.features = index[kept], window, decisions.features
        self.label = decisions.label.astype(np.int64)
        weight = decisions.weight[self.index]
        self.weight = (weight / weight.mean() if len(weight) else weight)[:, None] * member[kept].astype(np.float32)

    def __len__(self) -> int:
        return len(self.index)

    def item(self, epoch: int, index: int) -> dict[str, np.ndarray]:
        end = int(self.index[index]) + 1
        return {"window": self.features[end - self.window : end], "label": self.label[end - 1],
                "weight": self.weight[index]}  # fmt: skip

    def collate(self, items: Sequence[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(np.stack([item[name] for item in items])) for name in items[0]}
