"""The domain's sections of the report."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tests.domains.market.test_evaluation import fitted, market, rows_of
from training.domains.market import places
from training.domains.market.detector.statistics import Statistics
from training.domains.market.detector.structure import Structure
from training.domains.market.domain import MARKET
from training.domains.market.evaluation import paths
from training.domains.market.evaluation.judging import judge
from training.workspace import PROJECT, Workspace

TEMPLATES = PROJECT / "training" / "report" / "templates"


def shown(workspace: Workspace) -> dict[str, str]:
    """Section -> its HTML."""
    out = {}
    for section in MARKET.sections(workspace):
        environment = Environment(
            loader=FileSystemLoader([section.template.parent, TEMPLATES]), undefined=StrictUndefined, autoescape=True
        )
        out[section.name] = environment.get_template(section.template.name).render(facts=section.facts)
    return out


@pytest.fixture
def workspace(tmp_path):
    """A job with a model that has an edge, one that knows volatility, a detector's findings, and paths."""
    of = market(120, edge=0.5, seed=5)
    rows, entries = rows_of(of, tmp_path), {}
    for name, columns in {"Good": [0, 1, 2], "Volatile": [1]}.items():
        found = judge(fitted(of, columns), *rows, name=name, seed=1)
        entries[f"{name.lower()}/MES"] = {
            "title": name, "metrics": {key: metric.plain() for key, metric in found.metrics.items()}, **found.more,
        }  # fmt: skip
    made = Workspace(tmp_path)
    made.exports.mkdir()
    (made.exports / "metrics.json").write_text(json.dumps({"format": 1, "families": entries}))
    built = Structure({"the folds": 0}, 12, 3, {"h1_ret_1": 3})
    earned = Statistics("signs", [0.3, 0.4], 0.35, 0.001)
    found = {"structure": asdict(built), "statistics": asdict(earned), "reasons": [*built.reasons, *earned.reasons]}
    places.detector_path(made).write_text(json.dumps({"MES": found}))
    return made


def test_the_answer_is_shown_for_each_symbol(workspace):
    html = shown(workspace)
    assert "An edge is left after costs: Good. The sealed test has not been opened." in html["edge"]
    rows = html["edge"].split("<tr>")
    assert any("Good" in row and "edge after costs" in row for row in rows)
    assert any("Volatile" in row and "no edge" in row for row in rows)
    assert "volatility only" in html["edge"] and "tried so far: 2." in html["edge"]


def test_an_edge_on_held_out_days_is_confirmed_by_the_sealed_test_or_not(workspace):
    path = workspace.exports / "metrics.json"
    metrics = json.loads(path.read_text())
    good, volatile = metrics["families"]["good/MES"], metrics["families"]["volatile/MES"]
    good["test"] = {name: good[name] for name in ("metrics", "market")}
    path.write_text(json.dumps(metrics))
    html = shown(workspace)["edge"]
    assert "Good. The sealed test confirms it." in html and html.count("<td>edge after costs</td>") == 2
    good["test"] = {name: volatile[name] for name in ("metrics", "market")}
    path.write_text(json.dumps(metrics))
    assert "The sealed test does not confirm it: Good." in shown(workspace)["edge"]


def test_a_few_days_are_called_few(workspace):
    assert "trading days are few" not in shown(workspace)["edge"]
    path = workspace.exports / "metrics.json"
    metrics = json.loads(path.read_text())
    for entry in metrics["families"].values():
        entry["market"]["days"] = 5
    path.write_text(json.dumps(metrics))
    assert "But 5 trading days are few" in shown(workspace)["edge"]


def test_trades_reliability_and_leaks_are_shown(workspace):
    html = shown(workspace)
    assert html["trades"].count("<svg") == 1 and "Good" in html["trades"]
    assert "observed share" in html["reliability"]
    assert "3 of 12" in html["leaks"] and "h1_ret_1" in html["leaks"] and "IC 0.35" in html["leaks"]


def test_a_model_judged_before_others_were_tried_is_deflated_by_all(workspace):
    before = shown(workspace)["edge"]
    path = places.trials_path(workspace.root)
    with path.open("a") as stream:
        stream.writelines(json.dumps({"symbol": "MES", "name": "x", "digest": str(n)}) + "\n" for n in range(500))
    assert "tried so far: 502." in shown(workspace)["edge"] and shown(workspace)["edge"] != before


def test_paths_are_shown_with_the_probability_of_overfitting(workspace, monkeypatch):
    from training.domains.market.detector.statistics import ridge

    monkeypatch.setattr(paths, "STRATEGIES", {"ridge regression": ridge})
    found = paths.walk_paths(market(300, edge=0.5, seed=7))
    places.paths_path(workspace).write_text(json.dumps({"MES": found}))
    html = shown(workspace)["paths"]
    assert "path 5" in html and "15 splits" in html and "probability of" in html


def test_an_empty_job_has_no_sections(tmp_path):
    assert MARKET.sections(Workspace(tmp_path)) == ()


def test_the_bars_are_shown_with_what_was_found_in_them(tmp_path):
    health = {"rows": 10, "used": 9, "duplicates": 1, "reasons": {"no number": 2}, "bad_ticks": 3, "jumps": [],
              "gaps": 4, "missing": 30, "remarks": ["there are no volumes"]}  # fmt: skip
    about = {
        "decisions": 5_000, "features": 150, "first": "2024-01-01", "last": "2024-02-01", "days": 30, "cost": 0.17,
        "labels": {"down": 50, "flat": 10, "up": 40}, "splits": {"train": {"decisions": 7, "from": "a", "to": "b"}},
        "health": health,
    }  # fmt: skip
    summary = {"horizon": 20, "stamp": "open", "symbols": {"MES": about}, "quarantined_count": 2, "quarantined": [
        {"path": "MES_1m.csv", "reason": "<script>", "kind": "bars", "place": ""}]}  # fmt: skip
    made = Workspace(tmp_path)
    made.manifests.mkdir(parents=True)
    (made.manifests / "summary.json").write_text(json.dumps(summary))
    html = shown(made)["bars"]
    assert "there are no volumes" in html
    assert "50% / 10% / 40%" in html and "no number 2" in html
    assert "<script>" not in html
