"""Boosted trees: a run in fresh processes ends in the bytes of one that was not interrupted; it learns; each setting
changes something."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from training.config import dotted_keys
from training.domains.market.trees.families import CatBoost, LightGBM, XGBoost
from training.domains.market.trees.growing import seed_of
from training.domains.market.trees.settings import TreeSettings
from training.domains.market.trees.state import Boosted

from .random_decisions import some_decisions, splits

KINDS = (XGBoost, LightGBM, CatBoost)
PLAIN = {"depth": 3, "rows": 0.6, "columns": 0.6, "bins": 32, "rate": 0.2, "leaf": 5}


def recipe(kind, folds: int = 2, **trees):
    made = kind(TreeSettings(trees=PLAIN | trees, folds={"count": folds, "purge": 2, "embargo": 10}))
    made.chunk = 4
    return made


def begun(kind, **trees):
    made = recipe(kind, **trees)
    return made, made.begin(splits(some_decisions()), {}, 42)


def continued(contents: dict[str, bytes], rounds: int) -> dict[str, bytes]:
    """Some more rounds of every family, in this process, from the saved states of those that have one."""
    out = {}
    for kind in KINDS:
        made, state = begun(kind)
        if kind.family in contents:
            state = made.load(contents[kind.family], splits(some_decisions()), {})
        out[kind.family] = made.dump(made.advance(state, rounds))
    return out


def test_a_run_continued_in_fresh_processes_ends_in_the_same_bytes():
    """With subsampling of rows and columns, which none of the libraries continues exactly."""
    contents: dict[str, bytes] = {}
    for rounds in (4, 8):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
            contents = fresh.submit(continued, contents, rounds).result()
    assert contents == continued({}, 12)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.family)
def test_every_model_learns_and_predicts_what_it_was_scored_with(kind):
    made, state = begun(kind)
    before = made.score(state, "val")["val_loss"]
    state = made.advance(state, 12)
    assert made.score(state, "val")["val_loss"] < 0.8 * before
    assert made.score(state, "train")["loss"] < 0.8 * before
    assert len(state.forests) == 3 and all(len(forest.roots) for forest in state.forests)
    known, loaded = state.known["val"], made.load(made.dump(state), None, {})
    features = known.features[known.rows]
    assert np.array_equal(loaded.margins(features, 2), known.margins)
    nothing = np.zeros(len(features), np.int64)
    given = np.stack([loaded.predict(number, features, nothing, nothing) for number in range(3)])
    assert given.shape == (3, len(features), 3) and given.dtype == np.float32
    assert np.abs(given.sum(-1) - 1).max() < 1e-6


def test_a_fold_model_knows_nothing_of_its_held_part():
    """Changing the labels of the first half of the days changes the second fold's model, and not the first's."""
    decisions = some_decisions()
    other = some_decisions()
    other.label[: len(other) // 3] = 0
    made = recipe(XGBoost)
    one, two = (made.advance(made.begin(splits(of), {}, 42), 4) for of in (decisions, other))
    same = [np.array_equal(a.value, b.value) for a, b in zip(one.forests, two.forests, strict=True)]
    assert same == [True, False, False]


def test_models_of_one_run_have_different_random_numbers():
    _, state = begun(XGBoost)
    assert len({fit.rows.tobytes() for fit in state.fits}) == 3
    assert len({fit.features.ctypes.data for fit in (*state.fits, *state.known.values())}) == 1, "one copy for all"
    made = recipe(XGBoost)
    fits = (state.fits[2],) * 3
    same = made.advance(Boosted(state.prior[[2, 2, 2]], state.forests, 0, state.trees, state.sample, fits), 4)
    assert len({forest.value.tobytes() for forest in same.forests}) == 3


CHANGES = {"trees.depth": 2, "trees.rate": 0.1, "trees.rows": 1.0, "trees.columns": 1.0, "trees.bins": 8,
           "trees.l2": 50.0, "trees.leaf": 60.0, "folds.count": 3, "folds.purge": 40, "folds.embargo": 60}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.family)
def test_every_setting_changes_the_trees(kind):
    own = {key for key in dotted_keys(TreeSettings) if key.startswith(("trees.", "folds."))}
    assert own == {*CHANGES, "trees.device"}
    rows = splits(some_decisions(20))

    def content(key: str | None = None, value=None) -> bytes:
        settings = {"trees": dict(PLAIN), "folds": {"count": 2, "purge": 2, "embargo": 10}}
        if key:
            section, name = key.split(".")
            settings[section][name] = value
        made = kind(TreeSettings(**settings))
        grown = made.advance(made.begin(rows, {}, 42), 2)
        return b"".join(array.tobytes() for forest in grown.forests for array in forest.arrays().values())

    plain = content()
    symmetric = {"trees.leaf"} if kind is CatBoost else set()  # CatBoost's symmetric trees have no such limit
    unchanged = {key for key, value in CHANGES.items() if content(key, value) == plain}
    assert unchanged == symmetric


def test_a_search_finds_the_better_settings_repeats_itself_and_notes_every_trial(tmp_path, monkeypatch):
    monkeypatch.setattr("training.domains.market.trees.search.ROUNDS", 4)
    rows = splits(some_decisions(), str(tmp_path))
    made = XGBoost(TreeSettings(trees=PLAIN | {"rate": 0.001}, folds={"count": 2, "purge": 2, "embargo": 10},
                                search={"trials": 4}))  # fmt: skip
    state = made.begin(rows, {}, 42)
    assert state.trees.rate >= 0.02, "trees that learn nothing are the worst trial"
    assert made.begin(rows, {}, 42).trees == state.trees
    assert made.load(made.dump(state), None, {}).trees == state.trees
    noted = (tmp_path / "runs/trials.jsonl").read_text().splitlines()
    assert len(noted) == 4, "the second search tried the same"
    assert made.score(made.advance(state, 4), "val")["val_loss"] < 1.1


def test_chunks_and_models_draw_different_rows_and_columns():
    """With one seed for all, every chunk would see the rows that the first has seen."""
    seeds = {seed_of(seed, model, first) for seed in (1, 2) for model in range(6) for first in range(0, 500, 10)}
    assert len(seeds) == 2 * 6 * 50 and max(seeds) < 2**31
