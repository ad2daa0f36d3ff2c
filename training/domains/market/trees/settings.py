"""Settings of the families of trees."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from training.config import Section
from training.domains.market.stacking.settings import Folds
from training.settings import AtLeastOne, Positive, RunSettings


class Trees(Section):
    depth: Annotated[int, Field(ge=1, le=12)] = 6
    rate: Positive = 0.05  # learning rate
    rows: Annotated[float, Field(gt=0, le=1)] = 0.8  # share of the decisions that a round uses
    columns: Annotated[float, Field(gt=0, le=1)] = 0.8  # share of the features that a tree uses
    bins: Annotated[int, Field(ge=2, le=255)] = 127  # values that a feature is rounded to
    l2: Annotated[float, Field(ge=0)] = 1.0  # on leaf values
    leaf: Positive = 20.0  # least weight of a leaf, in decisions of average weight
    # cuda: XGBoost needs its package with CUDA (docs/market.md); LightGBM always uses the CPU
    device: Literal["cpu", "cuda"] = "cpu"


class Search(Section):
    trials: AtLeastOne = 1  # settings of `trees` that are tried; 1: those that are given


class TreeSettings(RunSettings):
    trees: Trees = Trees()
    search: Search = Search()
    folds: Folds = Folds(count=5)
