"""Faulty pipelines: every leak of the design, as a mutant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from training.domains.market.bars.timeframes import bars_of, latest
from training.domains.market.bars.times import MINUTE
from training.domains.market.detector.pipeline import PARTS, Pipeline
from training.domains.market.features.computing import compute, of_bars
from training.domains.market.features.declared import FEATURES, NAMES
from training.domains.market.splits.purging import Spans, blocks


def random_folds(spans: Spans):
    order = np.random.default_rng(0).permutation(len(spans))
    return [(np.sort(np.setdiff1d(order, held)), np.sort(held)) for held in np.array_split(order, PARTS)]


def contiguous_folds(spans: Spans):
    every = np.arange(len(spans))
    return [(np.concatenate([every[:a], every[b:]]), every[a:b]) for a, b in blocks(len(spans), PARTS)]


def with_column(column):
    """Features whose first column is another function of the base bars' closes."""

    def features(minutes):
        found = compute(minutes)
        values = found.values.copy()
        values[:, 0] = column(found.base.values[3])[found.bar]
        return replace(found, values=values)

    return features


def centred_average(close):
    kernel = np.ones(21) / 21
    return (close / np.convolve(close, kernel, "same") - 1).astype(np.float32)


def next_close(close):
    return np.append(np.log(close[1:] / close[:-1]), 0.0).astype(np.float32)


def left_stamped_hour(minutes):
    found = compute(minutes)
    hours = bars_of(minutes, "h1")
    own = [feature for feature in FEATURES if feature.timeframe == "h1"]
    early = replace(hours, complete=hours.complete - 60 * MINUTE)
    index = latest(early, found.decided, found.base.segment[found.bar])
    values = found.values.copy()
    values[:, [NAMES.index(feature.name) for feature in own]] = of_bars(hours, own)[index]
    return replace(found, values=np.nan_to_num(values))


def scaled_over_all(minutes):
    found = compute(minutes)
    return replace(found, values=(found.values - found.values.mean(0)) / (found.values.std(0) + np.float32(1e-12)))


MUTANTS = {
    "clean": Pipeline(),
    "random folds": Pipeline(folds=random_folds),
    "centred average": Pipeline(with_column(centred_average)),
    "hour stamped left": Pipeline(left_stamped_hour),
    "next close as feature": Pipeline(with_column(next_close)),
    "z-score over all": Pipeline(scaled_over_all),
    "no purge, contiguous folds": Pipeline(folds=contiguous_folds),
}
