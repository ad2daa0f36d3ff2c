"""Prepare: from a folder of bars to decisions and manifests, once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.domains.market.making import raw_bars
from training.data.identity import MARKER
from training.domain import Job, Request
from training.domains.market import decisions as of_market
from training.domains.market import places
from training.domains.market.demo import world
from training.domains.market.demo.making import open_minutes
from training.domains.market.domain import MARKET
from training.domains.market.prepare import prepare
from training.errors import DataError, HostError, UsageError
from training.workspace import Workspace, exclusive

MINUTES = 110_000


def job_of(folder: Path, **options) -> tuple[Job, list[str]]:
    lines: list[str] = []
    return Job(Workspace(folder / "work"), {"bars": folder / "bars", **options}, workers=1, say=lines.append), lines


def write_bars(path: Path, raw, zone: str | None = "UTC") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = pl.Series(raw["time"]).cast(pl.Datetime("ns"))
    columns = {name: raw[name] for name in ("open", "high", "low", "close", "volume")}
    pl.DataFrame({"time": time.dt.replace_time_zone(zone) if zone else time, **columns}).write_parquet(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Bars of MES, and of a symbol that is refused."""
    place = tmp_path_factory.mktemp("market")
    raw = raw_bars(MINUTES, seed=1)
    raw["volume"][77] = -5
    write_bars(place / "bars" / "MES_1m.parquet", raw)
    write_bars(place / "bars" / "MGC_1m.parquet", raw_bars(3_000))
    (place / "bars" / "MES_5m.csv").write_text("bars of five minutes")
    return place


@pytest.fixture(scope="module")
def prepared(folder):
    job, lines = job_of(folder)
    prepare(job)
    return job, lines


def test_files_and_costs_that_are_not_used_are_named(folder, tmp_path):
    costs = tmp_path / "costs.yaml"
    costs.write_text("mes: {tick: 0.25, spread: 0.5, slippage: [0.5, 1.0]}\n")
    job, lines = job_of(tmp_path, bars=folder / "bars", symbols="MGC", costs=costs)
    with pytest.raises(DataError):
        prepare(job)
    assert any("not SYMBOL_1m: MES_5m.csv" in line for line in lines)
    assert any("costs of mes: there are no such bars" in line for line in lines)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_decisions_are_complete_and_ordered(prepared):
    job, _ = prepared
    found = of_market.read(places.decisions_path(job.workspace, "MES"))
    assert found.features.shape == (len(found), 150) and np.isfinite(found.features).all()
    assert (np.diff(found.decided) > 0).all() and (found.ends > found.entered).all()
    assert (found.entered >= found.decided).all()
    assert set(found.label.tolist()) == {0, 1, 2}
    assert (found.up > 3.0).all() and (found.down == np.float32(2.1)).all() and (found.cost > 0).all()


def test_splits_are_rows_of_days_that_do_not_overlap(prepared):
    job, _ = prepared
    seen, last = set(), 0
    for split in ("train", "val", "test"):
        rows = [json.loads(line) for line in job.workspace.manifest("market/MES", split).read_text().splitlines()]
        assert len(rows) > 5
        assert not seen & {row["day"] for row in rows}
        assert min(row["begin"] for row in rows) >= last
        last = max(row["end"] for row in rows)
        seen |= {row["day"] for row in rows}


def test_a_symbol_that_is_refused_is_quarantined_and_the_others_are_used(prepared):
    job, lines = prepared
    assert MARKET.items(job.workspace) == ("MES",)
    quarantine = [json.loads(line) for line in (job.workspace.manifests / "quarantine.jsonl").read_text().splitlines()]
    assert any("MGC has 600 bars of five minutes; 20,000 are needed" in item["reason"] for item in quarantine)
    bar = next(item for item in quarantine if "volume is below 0" in item["reason"])
    assert bar["place"] == "MES_1m.parquet:78"
    assert any("quarantined: 2" in line for line in lines)


def test_a_second_run_changes_no_file(folder, prepared):
    before = files(folder / "work" / "data")
    job, lines = job_of(folder)
    prepare(job)
    assert files(folder / "work" / "data") == before
    assert any("up to date" in line for line in lines)


def test_two_processes_do_not_prepare_in_one_workspace_at_once(folder):
    job, _ = job_of(folder)
    with exclusive(job.workspace.manifests, "another"), pytest.raises(HostError, match="in use"):
        prepare(job)


def test_another_horizon_computes_again_and_back_gives_the_same_bytes(folder, prepared):
    job, _ = prepared
    path = places.decisions_path(job.workspace, "MES")
    before = path.read_bytes()
    prepare(job_of(folder, horizon=5)[0])
    assert path.read_bytes() != before
    prepare(job_of(folder)[0])
    assert path.read_bytes() == before


def test_no_symbol_left_is_refused_with_every_reason(tmp_path):
    write_bars(tmp_path / "bars" / "MES_1m.parquet", raw_bars(2_000))
    (tmp_path / "bars" / "MGC_1m.csv").write_text("nothing\n")
    with pytest.raises(DataError, match=r"(?s)No symbol.*no columns.*20,000 are needed"):
        prepare(job_of(tmp_path)[0])


def test_naive_times_without_a_zone_are_wrong_usage(tmp_path):
    write_bars(tmp_path / "bars" / "MES_1m.parquet", raw_bars(2_000), zone=None)
    with pytest.raises(UsageError, match="--timezone"):
        prepare(job_of(tmp_path)[0])


def test_symbols_without_costs_are_reported_before_anything_is_decoded(tmp_path):
    write_bars(tmp_path / "bars" / "SPY_1m.parquet", raw_bars(2_000))
    with pytest.raises(UsageError, match="--costs"):
        prepare(job_of(tmp_path)[0])
    assert not (tmp_path / "work" / "cache").exists()


def test_the_demo_is_made_once_with_a_marker_and_its_twin(tmp_path):
    job = Job(Workspace(tmp_path), {"minutes": 3_000}, say=lambda line: None)
    options = MARKET.demo(job)
    folder = options["bars"]
    assert (folder / MARKER).is_file()
    before = files(folder)
    assert {"PLANTED_1m.parquet", "NULL_1m.parquet", "PLANTED_state.npz"} < set(before)
    MARKET.demo(job)
    assert files(folder) == before


def test_the_twin_has_the_same_volumes_and_volatility_and_no_direction():
    minute = open_minutes(30_000)
    planted, null = (world.make(minute, 1, has_direction) for has_direction in (True, False))
    assert np.array_equal(planted.volume, null.volume) and np.array_equal(planted.level, null.level)
    assert planted.direction.any() and not null.direction.any()
    moves = [np.diff(np.log(one.close)) for one in (planted, null)]
    slow = [np.log(one.close)[60::60] - np.log(one.close)[:-60:60] for one in (planted, null)]
    assert moves[0].std() == pytest.approx(moves[1].std(), rel=0.1)
    assert slow[0].std() > 1.5 * slow[1].std()


def test_options_about_the_bars_need_the_bars():
    with pytest.raises(UsageError, match="--timezone needs --bars"):
        MARKET.arrange(Request({"timezone": "UTC"}, ("xgboost",)))


def test_inspect_reports_what_prepare_would_do(folder):
    found = MARKET.inspect(job_of(folder)[0], folder / "bars" / "MES_1m.parquet")
    assert found.facts["rows"] == MINUTES and found.facts["zone"] == "UTC"
    assert {"what": "the volume is below 0", "count": 1} in found.tables["found"]


def test_doctor_finds_symbols_and_missing_costs(folder, tmp_path):
    found = list(MARKET.checks(job_of(folder)[0]))
    assert [finding.state for finding in found] == ["ok", "note"] and "MES_5m.csv" in found[1].text
    write_bars(tmp_path / "bars" / "SPY_1m.parquet", raw_bars(100))
    assert [finding.state for finding in MARKET.checks(job_of(tmp_path)[0])] == ["ok", "fails"]


def broker_export(folder: Path) -> tuple[Path, str]:
    """A CSV of a market that is open every day but from 22:00 to 23:00 UTC: naive local times of New York over the end
    of summer time, a gap, a bad tick, and a roll. Returns the file and the time of the roll."""
    minute = 19_981 * 1_440 + np.arange(145_000)  # from 2024-09-15
    minute = minute[minute % 1_440 // 60 != 22]
    raw = raw_bars(len(minute), seed=3)
    raw["time"] = minute * 60_000_000_000
    pause = np.flatnonzero(np.diff(minute) > 30)[60] + 1
    for name in ("open", "high", "low", "close"):
        raw[name][pause:] *= 1.015
    raw["high"][50_000] *= 1.06
    keep = np.ones(len(minute), bool)
    keep[70_000:70_040] = False
    local = pl.Series(raw["time"]).cast(pl.Datetime("ns")).dt.replace_time_zone("UTC")
    local = local.dt.convert_time_zone("America/New_York").dt.replace_time_zone(None)
    columns = {"Open": "open", "High": "high", "Low": "low", "Close": "close", "Volume": "volume"}
    table = pl.DataFrame({
        "Date": local.dt.strftime("%m/%d/%Y"), "Time": local.dt.strftime("%H:%M"),
        **{name: raw[column] for name, column in columns.items()},
    }).filter(pl.Series(keep))  # fmt: skip
    path = folder / "bars" / "MES_1m.csv"
    path.parent.mkdir(parents=True)
    table.write_csv(path)
    return path, str(np.datetime64(int(raw["time"][pause]), "ns").astype("datetime64[m]"))


def test_a_csv_as_a_broker_exports_it_is_prepared_with_everything_that_is_in_it(tmp_path):
    _, roll = broker_export(tmp_path)
    with pytest.raises(UsageError, match="--timezone"):
        prepare(job_of(tmp_path)[0])
    with pytest.raises(DataError, match=rf"{roll}Z: \+1\.\d+% over a pause(?s:.*)--rolls"):
        prepare(job_of(tmp_path, timezone="America/New_York")[0])
    (tmp_path / "rolls.csv").write_text(f"symbol,time\nMES,{roll}\n")
    job, _ = job_of(tmp_path, timezone="America/New_York", rolls=tmp_path / "rolls.csv")
    prepare(job)
    summary = json.loads((job.workspace.manifests / "summary.json").read_text())
    health = summary["symbols"]["MES"]["health"]
    assert health["reasons"] == {"the hour occurs twice when the clocks are set back": 120}
    assert health["bad_ticks"] == 1 and len(health["jumps"]) == 1
    assert health["gaps"] == 2  # the 40 minutes, and the two hours in autumn
    found = of_market.read(places.decisions_path(job.workspace, "MES"))
    at = np.datetime64(roll, "ns").astype(np.int64)
    crossing = (found.decided < at) & (found.ends > at)
    assert not crossing.any()
    after = found.decided[found.decided > at][0] - at
    assert after > 4 * 86_400_000_000_000  # the features begin again
