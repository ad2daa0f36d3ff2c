"""Settings of the folds, which all families have."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from training.config import Section
from training.settings import AtLeastOne


class Folds(Section):
    count: Annotated[int, Field(ge=2, le=20)]  # models beside the final one; each leaves out a part of the days
    embargo: AtLeastOne = 1440  # minutes left out after a held-out part
