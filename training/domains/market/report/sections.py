"""The sections of the report: whether there is an edge, trades, paths, reliability, leaks, and the bars."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.domain import Section
from training.domains.market import places
from training.domains.market.decisions import CLASSES
from training.domains.market.evaluation import trials
from training.domains.market.evaluation.baselines import LOGISTIC, PRIOR, VOLATILITY
from training.domains.market.evaluation.judging import PROVED
from training.domains.market.evaluation.sharpe import Daily, deflated
from training.report.plots import chart, number
from training.report.reading import attempt, objects, read_json
from training.workspace import Workspace

HERE = Path(__file__).parent
STYLE = HERE / "market.css"
MOST_LINES = 6  # of a chart
AFTER_COSTS, BEFORE_COSTS, NONE = "edge after costs", "edge before costs", "no edge"
FEW_DAYS = 20  # trading days; from fewer, intervals and the deflated ratio are rough


def sections(workspace: Workspace) -> Iterator[Section]:
    """The sections of the job in `workspace`; those without data yet are left out."""
    metrics = attempt(lambda: read_json(workspace.exports / "metrics.json"), []) or {}
    judged = by_symbol(metrics)
    if judged:
        tables = [_table(workspace, symbol, runs) for symbol, runs in judged.items()]
        yield Section("edge", "Is there an edge?", HERE / "edge.html.j2", {"tables": tables, "proved": PROVED},
                      "after verdict", style=STYLE)  # fmt: skip
        charts = [one for symbol, runs in judged.items() for one in _equity(symbol, runs)]
        facts = {"charts": charts, "tables": tables}
        yield Section("trades", "Trades", HERE / "trades.html.j2", facts, "after results", style=STYLE)
    yield from _paths(workspace)
    if judged:
        charts = [one for symbol, runs in judged.items() for one in _reliability(symbol, runs)]
        yield Section("reliability", "Reliability", HERE / "reliability.html.j2", {"charts": charts}, "after results",
                      style=STYLE)  # fmt: skip
    yield from _leaks(workspace)
    problems: list[str] = []
    summary = attempt(lambda: read_json(workspace.manifests / "summary.json"), problems)
    if summary is not None:
        facts = {"summary": summary, "symbols": [_health(*one) for one in summary["symbols"].items()]}
        yield Section("bars", "Bars", HERE / "bars.html.j2", facts, "data", style=STYLE)


def by_symbol(metrics: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Symbol -> title of a family -> its entry in metrics.json."""
    out: dict[str, dict[str, dict[str, Any]]] = {}
    for run, entry in objects(metrics.get("families")):
        if "market" in entry:
            out.setdefault(entry["market"]["symbol"], {})[str(entry.get("title") or run)] = entry
    return out


# -- the edge ----------------------------------------------------------------------------------------------------------


def _table(workspace: Workspace, symbol: str, runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The families of a symbol beside the baselines, sorted by log-loss."""
    tried = max(1, len(trials.lines(places.trials_path(workspace.root), symbol)))
    first = next(iter(runs.values()))
    rows = sorted((_row(title, entry, tried) for title, entry in runs.items()), key=lambda row: row["loss"])
    loss, ic = (first["metrics"][name]["baselines"] for name in ("log_loss", "ic"))
    baselines = [
        {"name": name, "log_loss": number(loss[name]["value"]), "ic": number(ic[name]["value"], 2)}
        for name in (PRIOR, VOLATILITY, LOGISTIC)
    ]
    oracle = first["market"].get("oracle")
    if oracle:
        baselines.append({
            "name": "what could be known at best", "log_loss": number(oracle["oracle_log_loss"]),
            "ic": number(oracle["oracle_ic"], 2),
        })  # fmt: skip
    return {
        "symbol": symbol, "rows": rows, "baselines": baselines, "tried": tried, "days": first["market"]["days"],
        "decisions": first["market"]["decisions"], "detectable": number(first["market"]["detectable_ic"], 2),
        "oracle": bool(oracle), "answer": _answer(rows), "tested": any(row["sealed"] for row in rows),
        "few": first["market"]["days"] < FEW_DAYS,
    }  # fmt: skip


def _row(title: str, entry: Mapping[str, Any], tried: int) -> dict[str, Any]:
    loss, ic, market = entry["metrics"]["log_loss"], entry["metrics"]["ic"], entry["market"]
    trading = market["trading"]
    edge, ratio = _edge(entry, tried)
    test = entry.get("test")
    return {
        "name": title, "loss": loss["model"]["value"], "log_loss": number(loss["model"]["value"]),
        "ic": number(ic["model"]["value"], 2), "ic_bounds": _bounds(ic["model"]), "trades": trading["trades"],
        "sharpe": number(trading["sharpe"]["value"], 3), "sharpe_bounds": _bounds(trading["sharpe"]),
        "deflated": f"{ratio:.2f}", "total": number(trading["total"], 3), "drawdown": number(trading["drawdown"], 3),
        "random": f"{trading['random']['better']:.0%}",
        "skill": f"{market['oracle']['skill']:.0%}" if market.get("oracle") else "",
        "edge": edge, "sealed": _edge(test, tried)[0] if test else "",
    }  # fmt: skip


def _edge(entry: Mapping[str, Any], tried: int) -> tuple[str, float]:
    """Whether there is an edge on the days of an evaluation, and the deflated Sharpe ratio."""
    loss, ic = entry["metrics"]["log_loss"], entry["metrics"]["ic"]
    ratio = deflated(Daily(**entry["market"]["trading"]["daily"]), tried)
    gap = loss["baselines"][VOLATILITY].get("gap") or {"high": 0.0}
    if gap["high"] >= 0 or ic["model"]["low"] <= 0:
        return NONE, ratio
    return AFTER_COSTS if ratio > PROVED else BEFORE_COSTS, ratio


def _bounds(interval: Mapping[str, float]) -> str:
    return f"{number(interval['low'], 2)} to {number(interval['high'], 2)}"


def _answer(rows: Sequence[Mapping[str, Any]]) -> str:
    """The answer for a symbol. Held-out days have chosen checkpoints and are read for every family, so an edge on them
    is confirmed or not by the sealed test."""
    words = [row["edge"] for row in rows]
    found = [row for row in rows if row["edge"] == AFTER_COSTS]
    if found:
        answer = f"An edge is left after costs: {', '.join(row['name'] for row in found)}."
        if not all(row["sealed"] for row in found):
            return f"{answer} The sealed test has not been opened."
        refuted = [row["name"] for row in found if row["sealed"] != AFTER_COSTS]
        if not refuted:
            return f"{answer} The sealed test confirms it."
        return f"{answer} The sealed test does not confirm it: {', '.join(refuted)}."
    if BEFORE_COSTS in words:
        return "There is an edge before costs; after costs, none is proved."
    return "No edge: what the models know is volatility, or nothing."


# -- trades, paths, reliability ----------------------------------------------------------------------------------------


def _equity(symbol: str, runs: Mapping[str, Mapping[str, Any]]) -> Iterator[Any]:
    order = sorted(runs, key=lambda title: runs[title]["metrics"]["log_loss"]["model"]["value"])
    series = []
    for title in order[:MOST_LINES]:
        totals = [0.0, *(point["total"] for point in runs[title]["market"]["trading"]["equity"])]
        series.append((title, range(len(totals)), totals))
    found = chart(f"{symbol}: sum of results in ATRs, by trading day", series)
    if found is not None:
        yield found


def _paths(workspace: Workspace) -> Iterator[Section]:
    problems: list[str] = []
    found = attempt(lambda: read_json(places.paths_path(workspace)), problems)
    if not found and not problems:
        return
    symbols = []
    for symbol, of in objects(found):
        series = [
            (f"path {at}", range(len(path["equity"]) + 1), [0.0, *path["equity"]])
            for at, path in enumerate(of["paths"], 1)
        ]
        luck = of["overfitting"]
        symbols.append({
            "symbol": symbol, "strategy": of["strategy"], "splits": of["splits"],
            "sharpe": {name: number(value, 3) for name, value in of["sharpe"].items()},
            "luck": None if luck is None else f"{luck['probability']:.0%}", "strategies": len(of["strategies"]),
            "chart": chart(f"{symbol}: sum of results in ATRs on each path, by trading day", series),
        })  # fmt: skip
    yield Section("paths", "Other orders of the same time", HERE / "paths.html.j2", {"symbols": symbols},
                  "after results", style=STYLE, problems=tuple(problems))  # fmt: skip


def _reliability(symbol: str, runs: Mapping[str, Mapping[str, Any]]) -> Iterator[Any]:
    """For the best family: predicted probabilities and observed shares of each class, in percent."""
    title = min(runs, key=lambda title: runs[title]["metrics"]["log_loss"]["model"]["value"])
    series = []
    for name in CLASSES:
        points = [point for point in runs[title]["market"]["reliability"] if point["class"] == name]
        series.append((
            name, [100 * point["predicted"] for point in points], [100 * point["observed"] for point in points]
        ))  # fmt: skip
    series.append(("as it should be", [0, 100], [0, 100]))
    found = chart(f"{symbol}, {title}: observed share by predicted probability, both in %", series)
    if found is not None:
        yield found


# -- leaks and bars ----------------------------------------------------------------------------------------------------


def _leaks(workspace: Workspace) -> Iterator[Section]:
    problems: list[str] = []
    found = attempt(lambda: read_json(places.detector_path(workspace)), problems)
    if not found and not problems:
        return
    symbols = []
    for symbol, of in objects(found):
        earned = of.get("statistics")
        symbols.append({
            "symbol": symbol, "reasons": of["reasons"], "structure": of["structure"],
            "overlaps": sum(of["structure"]["overlaps"].values()), "null": earned["null"] if earned else "",
            "mean": number(earned["mean"], 2) if earned else "", "worlds": len(earned["correlations"]) if earned else 0,
            "probability": number(earned["probability"], 2) if earned else "",
        })  # fmt: skip
    yield Section("leaks", "Leaks", HERE / "leaks.html.j2", {"symbols": symbols}, "after results", style=STYLE,
                  problems=tuple(problems))  # fmt: skip


def _health(symbol: str, about: Mapping[str, Any]) -> dict[str, Any]:
    total = sum(about["labels"].values())
    return {
        "symbol": symbol, "about": about, "health": about["health"],
        "shares": {name: f"{count / total:.0%}" for name, count in about["labels"].items()},
        "cost": number(about["cost"], 2),
    }  # fmt: skip
