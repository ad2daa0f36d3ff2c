"""Settings of the folds, which all families have."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from training.config import Section
from training.domains.market.decisions import Decisions
from training.domains.market.splits.purging import Fold, Spans, folds
from training.settings import Count


class Folds(Section):
    count: Annotated[int, Field(ge=2, le=20)]  # models beside the final one; each leaves out a part of the decisions
    purge: Count = 60  # decisions left out before a held-out part, in any case
    embargo: Count = 1440  # and after the end of its last label

    def of(self, decisions: Decisions, index: np.ndarray) -> list[Fold]:
        """Pairs (fit, held) of positions in `index`, int64."""
        return folds(Spans(decisions.decided[index], decisions.ends[index]), self.count, self.purge, self.embargo)
