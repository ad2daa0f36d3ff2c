"""`predict`: blocks give the bits of the complete file; the file has what was evaluated."""

from __future__ import annotations

import json
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import polars
import pytest

from training.data.files import write_atomic
from training.domain import Job
from training.domains.market import building, places
from training.domains.market.evaluation.trading import sides
from training.domains.market.features.computing import compute
from training.domains.market.labels.costs import Barriers, Costs
from training.domains.market.predicting.blocks import NEEDED, blocks
from training.domains.market.predicting.command import predict
from training.errors import DataError, UsageError
from training.workspace import Workspace

from .making import minutes

WINDOW = 7
TRADE = building.Trade(Barriers(1.5, 1.0, 12), Costs(0.25, 0.5, 0.5, 1.0))


@pytest.fixture(scope="module")
def bars():
    """A few days more than the features look back, with a gap of an hour."""
    made = minutes((NEEDED["d1"] + 6) * 1380)
    kept = np.r_[0 : len(made) - 2000, len(made) - 1940 : len(made)]
    columns = {name: getattr(made, name)[kept] for name in ("time", "open", "high", "low", "close", "volume", "bad")}
    return type(made)(made.symbol, **columns, segment=made.segment[kept], session=made.session)


class Model:
    """Probabilities that depend on every feature of the window, by sums in a fixed order."""

    window = WINDOW

    def predict(self, number, features, run, decided):
        out = np.full((len(features), 3), np.nan, np.float32)
        for at in range(WINDOW - 1, len(features)):
            if run[at - WINDOW + 1] == run[at]:
                rows = np.ascontiguousarray(features[at - WINDOW + 1 : at + 1]).tobytes()
                share = np.random.default_rng(list(rows[:4096])).dirichlet(np.ones(3))
                out[at] = share
        return out


def test_blocks_have_the_decisions_of_the_complete_file_bit_by_bit(bars):
    every = compute(bars)
    assert len(every.decided) > 800
    for size in (100, 350):
        decided, values, runs = [], [], []
        for block in blocks(bars, WINDOW, size):
            own = slice(block.first, None)
            decided.append(block.computed.decided[own])
            values.append(block.computed.values[own])
            runs.append(block.computed.run[own])
            before = block.computed.decided[: block.first]
            assert len(before) <= WINDOW - 1 and (not len(before) or before[-1] < block.computed.decided[block.first])
        assert np.array_equal(np.concatenate(decided), every.decided)
        assert np.array_equal(np.concatenate(values), every.values)
        assert np.array_equal(np.diff(np.concatenate(runs)) != 0, np.diff(every.run) != 0)


@pytest.fixture
def job(bars, tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    columns = {name: getattr(bars, name) for name in ("open", "high", "low", "close", "volume")}
    frame = polars.DataFrame({"ts": bars.time, **columns})
    frame.write_parquet(folder / "MES_1m.parquet")
    workspace = Workspace(tmp_path / "out")
    about = {"barriers": asdict(TRADE.barriers), "costs": asdict(TRADE.costs), "session": bars.session.plain(),
             "usual_gap": 2e-4}  # fmt: skip
    write_atomic(places.about_path(workspace, "MES"), json.dumps(about).encode())
    options = {"bars": str(folder), "symbol": "MES", "family": None, "timezone": None, "stamp": None, "adjusted": False,
               "rolls": None, "device": "cpu", "out": str(tmp_path / "scores.parquet")}  # fmt: skip
    return Job(workspace, options, say=lambda text: None)


def test_the_file_has_the_probabilities_of_the_prepared_decisions_bit_by_bit(job, bars, tmp_path):
    loaded = []

    def load(run):
        loaded.append(run)
        return SimpleNamespace(model=Model(), sha256="0123456789abcdef" * 4)

    predict(job, [], load)
    found = polars.read_parquet(tmp_path / "scores.parquet")
    assert loaded == ["ensemble/MES"]
    assert found.columns == ["ts", "p_down", "p_flat", "p_up", "edge", "digest"]
    assert found["digest"].unique().to_list() == ["0123456789abcdef"]
    decisions = building.build(bars, TRADE)
    proba = Model().predict(-1, decisions.features, decisions.run, decisions.decided)
    kept = np.isfinite(proba).all(1)
    where = {time: at for at, time in enumerate(found["ts"].cast(polars.Int64).to_list())}
    rows = [where[time] for time in decisions.decided[kept].tolist()]
    written = found.select("p_down", "p_flat", "p_up").to_numpy()[rows]
    assert len(rows) > 500 and np.array_equal(written, proba[kept])
    assert np.array_equal(np.sign(found["edge"].to_numpy()[rows]), sides(proba[kept], decisions.take(kept)))


def test_a_roll_is_found_by_the_usual_gap_of_the_prepared_bars(job, tmp_path):
    """A file of a few days has too few pauses to know how large a gap usually is, and features must not cross it."""
    path = tmp_path / "new" / "MES_1m.parquet"
    frame = polars.read_parquet(path).tail(14 * 1_380)
    pause = int(np.flatnonzero(np.diff(frame["ts"]) > 30 * 60_000_000_000)[-3]) + 1
    later = polars.int_range(polars.len()) >= pause
    frame.with_columns(
        polars.when(later).then(polars.col(name) * 1.012).otherwise(polars.col(name)).alias(name)
        for name in ("open", "high", "low", "close")
    ).write_parquet(path)
    with pytest.raises(DataError, match=r"\+1\.\d+% over a pause(?s:.*)--rolls"):
        predict(job, [], lambda run: SimpleNamespace(model=Model(), sha256="0" * 64))


def test_what_is_missing_is_named(job):
    def load(run):
        raise AssertionError

    other = Job(job.workspace, {**job.options, "symbol": "ES"})
    with pytest.raises(UsageError, match="ES is not prepared"):
        predict(other, [], load)
    with pytest.raises(UsageError, match="--symbol SYMBOL"):
        predict(Job(job.workspace, {**job.options, "bars": None}), [], load)
