"""Judges a trained family on held-out rows, and the ensemble beside what it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from training.domains.market.decisions import CLASSES, of_rows
from training.domains.market.evaluation.judging import judge
from training.domains.market.evaluation.measures import ABOUT, summarise, sums_of
from training.domains.market.families import DAY
from training.domains.market.stacking.members import predicted
from training.judgement import Judgement, Resampling, Verdict, against, compare, resample

if TYPE_CHECKING:
    from training.data.rows import Row
    from training.recipe import EvaluationContext


def judged(context: EvaluationContext, *, name: str, seed: int) -> Judgement:
    """Judge the final model of the family `name`."""
    decisions, index = of_rows(context.held_out)
    return judge_some(context, predicted(context.model, -1, decisions, index), name=name, seed=seed)


def judge_some(context: EvaluationContext, given: np.ndarray, *, name: str, seed: int) -> Judgement:
    """The same for probabilities float32 [n, C] of the held-out decisions, NaN where there are none."""
    decisions, index = of_rows(context.held_out)
    proba = np.full((len(decisions), len(CLASSES)), np.nan, np.float32)
    proba[index] = given
    # opening the sealed test is no further trial
    return judge(proba, context.train, context.held_out, name=name, seed=seed, counts=context.split == "val")


def beside(
    judgement: Judgement, held: Sequence[Row], proba: np.ndarray, others: Mapping[str, np.ndarray], seed: int
) -> Judgement:
    """The judgement of the ensemble, with simpler `others` beside it (title -> probabilities), and a sentence that
    recommends the best of those than which the ensemble is not significantly better. `proba` and `others`: float32
    [n, C] of the decisions of `held`, NaN where there are none."""
    decisions, index = of_rows(held)
    kept = np.all([np.isfinite(of).all(1) for of in (proba, *others.values())], 0)
    some = decisions.take(index[kept])
    resampling = Resampling(len(np.unique(some.day)), seed)
    own, *rest = (resample(sums_of(of[kept].astype(np.float64), some), resampling, summarise)
                  for of in (proba, *others.values()))  # fmt: skip
    found = compare(ABOUT, own, dict(zip(others, rest, strict=True)))
    metrics = {
        name: replace(
            metric, baselines={**metric.baselines, **found[name].baselines}, gaps={**metric.gaps, **found[name].gaps}
        )
        for name, metric in judgement.metrics.items()
    }
    findings = {name: against(found["log_loss"], name, name, "log-loss", paired=True, ahead="fair", unit=DAY)
                for name in others}  # fmt: skip
    loss = found["log_loss"].baselines
    as_good = sorted((name for name, one in findings.items() if one.mark != "good"), key=lambda name: loss[name].value)
    sentence = f"Use {as_good[0]} instead, which is simpler. {findings[as_good[0]].sentence}" if as_good else (
        "Better than each member, and than equal weights: " + " ".join(one.sentence for one in findings.values())
    )  # fmt: skip
    market = {**judgement.more["market"], "use": as_good[0] if as_good else "ensemble"}
    why = [sentence, *judgement.verdict.why]
    return replace(judgement, metrics=metrics, verdict=Verdict(judgement.verdict.word, why),
                   more={**judgement.more, "market": market})  # fmt: skip
