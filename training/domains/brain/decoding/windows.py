"""Windows of moments with the volumes after them that they are decoded from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from training.domains.brain.encoding.windows import BoldWindows

if TYPE_CHECKING:
    from training.data.rows import Row


class DecodingWindows(BoldWindows):
    """Windows of `moments` volumes, and as many more as the last of the `delays`.

    An item is that of BoldWindows without history, and valid float32 [S, moments]: 1 where the subject has the moment
    and the volumes at all delays after it.
    """

    def __init__(self, rows: Sequence[Row], moments: int, delays: Sequence[int], seed: int, training: bool):
        super().__init__(rows, moments + max(delays), 0, seed, training, overlap=max(delays))
        self.delays = tuple(delays)

    def item(self, epoch: int, index: int) -> dict[str, np.ndarray]:
        out = super().item(epoch, index)
        valid = out["present"][:, : self.stride].copy()
        for delay in self.delays:
            valid *= out["present"][:, delay : delay + self.stride]
        return out | {"valid": valid}
