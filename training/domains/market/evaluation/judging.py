"""Judges a model: is there an edge, is it left after costs, and is it more than luck?"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.domains.market import places
from training.domains.market.decisions import Decisions, of_rows
from training.domains.market.evaluation import trials
from training.domains.market.evaluation.baselines import LOGISTIC, PRIOR, VOLATILITY, baselines
from training.domains.market.evaluation.measures import ABOUT, POWER, reliability, summarise, sums_of
from training.domains.market.evaluation.sharpe import Daily, deflated, probabilistic, yearly
from training.domains.market.evaluation.trading import DRAWS, Trades, drawdown, random_entries, sides, trade
from training.domains.market.families import DAY
from training.domains.market.rows import DECISIONS_PATH
from training.judgement import (
    BootstrapDraws,
    Finding,
    Interval,
    Judgement,
    Metric,
    Resampling,
    Verdict,
    against,
    compare,
    drawn,
    resample,
    verdict,
)

if TYPE_CHECKING:
    from training.data.rows import Row

PROVED = 0.95  # the deflated Sharpe ratio above which an edge is left after costs


def judge(
    proba: np.ndarray, train: Sequence[Row], held: Sequence[Row], *, name: str, seed: int, counts: bool = True
) -> Judgement:
    """Judge predictions on the held-out rows.

    Args:
        proba: float [N, 3] of all decisions of the symbol, in order; nan where the model has none.
        train: rows on which baselines are fitted.
        name: of the model, for the list of trials.
        counts: whether this is a trial: the sealed test of a model that was judged before is none.
    """
    decisions, index = of_rows(held)
    fitted = decisions.take(of_rows(train)[1])
    index = index[np.isfinite(proba[index]).all(1)]
    of_held, own = decisions.take(index), np.asarray(proba[index], np.float64)
    others = baselines(fitted, of_held)
    resampling = Resampling(len(np.unique(of_held.day)), seed)
    draws = resample(sums_of(own, of_held), resampling, summarise)
    metrics = compare(ABOUT, draws, {
        other: resample(sums_of(of, of_held), resampling, summarise) for other, of in others.items()
    })  # fmt: skip
    symbol, root = held[0].values["symbol"], places.root_of(Path(held[0].values[DECISIONS_PATH]))
    tried = _tried(root, symbol, name, own, counts)
    trading = _trading(own, of_held, resampling, seed, tried)
    more = {
        "symbol": symbol,
        "decisions": len(index),
        "days": len(np.unique(of_held.day)),
        "detectable_ic": detectable(draws["ic"]),
        "reliability": reliability(own, of_held.label),
        "trading": trading,
        "trials": tried,
        "oracle": against_oracle(root, symbol, of_held, own, others[PRIOR]),
    }
    found = verdict([*edge(metrics), after_costs(trading, tried)])
    why = [*found.why, beside_logistic(metrics["log_loss"])]
    return Judgement(metrics, Verdict(found.word, why), {"market": more})


def _tried(root: Path, symbol: str, name: str, proba: np.ndarray, counts: bool) -> int:
    digest = hashlib.sha256(np.ascontiguousarray(proba, np.float32).tobytes()).hexdigest()[:16]
    path = places.trials_path(root)
    return trials.record(path, symbol, name, digest) if counts else max(1, len(trials.lines(path, symbol)))


def detectable(ic: BootstrapDraws) -> float:
    """The smallest information coefficient that so many days would show in four of five samples."""
    return float(POWER * np.nanstd(ic.draws))


# -- is there an edge? -------------------------------------------------------------------------------------------------


def edge(metrics: Mapping[str, Metric]) -> list[Finding]:
    """Better than class shares; better than volatility alone; a predicted return that goes with the realised one."""
    loss, ic = metrics["log_loss"], metrics["ic"]
    shares = against(loss, PRIOR, "the class shares", "log-loss", paired=True, ahead="fair", unit=DAY)
    volatility = against(loss, VOLATILITY, "volatility alone", "log-loss", paired=True, ahead="fair", unit=DAY)
    if volatility.mark == "bad":
        volatility = Finding("fair", f"No edge: {_lower(volatility.sentence)}")
    figure = ic.model.formatted()
    if ic.estimated and ic.model.low > 0:
        direction = Finding("good", f"The information coefficient is above 0: {figure}.")
    else:
        direction = Finding("fair", f"The information coefficient is not above 0 with certainty: {figure}.")
    return [shares, volatility, direction]


def beside_logistic(loss: Metric) -> str:
    """A sentence on whether a simpler model would do; it does not change the verdict."""
    found = against(loss, LOGISTIC, "a logistic regression", "log-loss", paired=True, ahead="fair", unit=DAY)
    return found.sentence if found.mark == "good" else f"A logistic regression would do: {_lower(found.sentence)}"


def _lower(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]


def after_costs(trading: Mapping[str, Any], tried: int) -> Finding:
    """Whether the trades would have earned more than luck."""
    ratio = Interval(**trading["sharpe"]).formatted()
    what = f"Sharpe ratio a year {ratio}, deflated {trading['deflated']:.2f} ({tried} tried)"
    if trading["deflated"] > PROVED:
        return Finding("good", f"An edge is left after costs: {what}.")
    return Finding("fair", f"After costs, no edge is proved: {what}; {PROVED} is needed.")


# -- trades ------------------------------------------------------------------------------------------------------------


def _trading(proba: np.ndarray, decisions: Decisions, resampling: Resampling, seed: int, tried: int) -> dict[str, Any]:
    trades = trade(decisions, sides(proba, decisions))
    daily = Daily.of(trades.daily)
    interval = drawn(lambda days: yearly(trades.daily[days]), resampling).interval()
    luck = random_entries(decisions, trades, seed)
    return {
        "trades": len(trades.index),
        "bought": int((trades.side > 0).sum()),
        "total": float(trades.daily.sum()),
        "costs": float(decisions.cost[trades.index].sum()),
        "won": float((trades.result > 0).mean()) if len(trades.index) else None,
        "sharpe": vars(interval),
        "daily": daily.plain(),
        "probabilistic": probabilistic(daily),
        "deflated": deflated(daily, tried),
        "drawdown": drawdown(trades.daily),
        "random": {"draws": DRAWS, "mean": float(luck.mean()), "better": float((luck >= trades.daily.sum()).mean())},
        "equity": _equity(decisions, trades),
    }


def _equity(decisions: Decisions, trades: Trades) -> list[dict[str, Any]]:
    """The cumulative result at the end of every trading day."""
    days = [str(np.datetime64(int(day), "D")) for day in np.unique(decisions.day)]
    path = np.cumsum(trades.daily)
    return [{"day": day, "total": round(float(total), 4)} for day, total in zip(days, path, strict=True)]


# -- a demo's oracle ---------------------------------------------------------------------------------------------------


def against_oracle(
    root: Path, symbol: str, decisions: Decisions, proba: np.ndarray, prior: np.ndarray
) -> dict[str, float] | None:
    """For a demo's market: log-losses and information coefficients beside those of the oracle, which knows the hidden
    state, on the decisions that it was simulated for. `skill`: the share of the oracle's gain over the class shares."""
    path = places.oracle_path(root, symbol)
    if not path.is_file():
        return None
    from safetensors.numpy import load

    arrays = load(path.read_bytes())
    place = np.searchsorted(arrays["decided"], decisions.decided)
    place = np.minimum(place, len(arrays["decided"]) - 1)
    index = np.flatnonzero(arrays["decided"][place] == decisions.decided)
    if not len(index):
        return None
    some = decisions.take(index)
    best = {"oracle": arrays["proba"][place[index]], "model": proba[index], "prior": prior[index]}
    found = {who: summarise(_means(sums_of(of, some))) for who, of in best.items()}
    possible = found["prior"]["log_loss"] - found["oracle"]["log_loss"]
    gained = found["prior"]["log_loss"] - found["model"]["log_loss"]
    return {
        "decisions": len(index),
        **{f"{who}_{measure}": found[who][measure] for who in found for measure in ("log_loss", "ic")},
        "skill": gained / possible if possible > 0 else 0.0,
    }


def _means(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {name: float(table[:, 0].sum() / table[:, 1].sum()) for name, table in sums.items()}
