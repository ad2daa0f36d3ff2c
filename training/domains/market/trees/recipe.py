"""The families of boosted trees: the models of all folds and the final model grow side by side in one run."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from training import threads
from training.domains.market import decisions as of_market
from training.domains.market import places
from training.domains.market.decisions import CLASSES, Decisions
from training.domains.market.evaluation.trials import record
from training.domains.market.exports.trees import on_thresholds, write_forest
from training.domains.market.rows import DECISIONS_PATH
from training.domains.market.stacking.judging import judged
from training.domains.market.trees.forest import Forest, log_loss
from training.domains.market.trees.growing import Chunk, Library, seed_of
from training.domains.market.trees.settings import Trees, TreeSettings
from training.domains.market.trees.state import Boosted, Fit, Known
from training.engine.process.heartbeat import beat
from training.graphs import Graph, TensorSpec
from training.recipe import Fitted

if TYPE_CHECKING:
    from training.data.rows import Row

MANIFEST = "market"
SAMPLE = 256  # decisions with which exported files are compared


class Boosting(Fitted):
    """Trees of one library. A round adds a tree for every class to each of the K+1 models."""

    manifest, settings_type = MANIFEST, TreeSettings
    chunk = 10
    settings: TreeSettings

    @abstractmethod
    def library(self) -> Library:
        """The library that grows the trees."""

    def encoders(self):
        return of_market.encoders()

    # -- growing ---------------------------------------------------------------------------------------------------

    def begin(self, rows, constants, seed):
        decisions, index = of_market.of_rows(rows["train"])
        fits = [fit for fit, _ in self.settings.folds.of(decisions, index)]
        prior = np.stack([_prior(decisions, index[fit]) for fit in (*fits, slice(None))])
        some = np.unique(np.linspace(0, len(index) - 1, SAMPLE).astype(int))
        sample = np.ascontiguousarray(decisions.features[index[some]])
        empty = Boosted(prior, (Forest.empty(len(CLASSES)),) * len(prior), 0, self.settings.trees, sample)
        trials = self.settings.search.trials
        if trials > 1:
            from training.domains.market.trees.search import searched

            chosen = searched(partial(self._tried, empty, rows), self.settings.trees, trials, seed)
            empty = replace(empty, trees=chosen)
        return self._with_data(empty, rows)

    def _tried(self, empty: Boosted, rows: Mapping[str, Sequence[Row]], trees: Trees) -> float:
        """A trial of a search, which is noted in the list of trials: the out-of-fold log-loss of the fold models."""
        from training.domains.market.trees.search import ROUNDS

        state = self._with_data(replace(empty, trees=trees), {"train": rows["train"]})
        folds = replace(state, fits=state.fits[:-1], forests=state.forests[:-1], known={})
        folds = self.advance(folds, ROUNDS)
        decisions, index = of_market.of_rows(rows["train"])
        label, weight = _truth(decisions, index)
        margins = np.zeros((len(index), len(CLASSES)))
        for number, (_, held) in enumerate(self.settings.folds.of(decisions, index)):
            margins[held] = folds.margins(decisions.features, number, index[held])
        values = rows["train"][0].values
        digest = hashlib.sha256(f"{self.family} {trees.model_dump_json()}".encode()).hexdigest()[:16]
        path = places.trials_path(places.root_of(Path(values[DECISIONS_PATH])))
        record(path, values["symbol"], f"{self.family} (search)", digest)
        beat()  # a trial may take as long as many rounds
        return log_loss(margins, label, weight)

    def _with_data(self, state: Boosted, rows: Mapping[str, Sequence[Row]]) -> Boosted:
        """The state with the data that it advances on, and the margins of its trees there."""
        decisions, index = of_market.of_rows(rows["train"])
        used = [fit for fit, _ in self.settings.folds.of(decisions, index)]
        used.append(np.arange(len(index)))
        library, fits = self.library(), []
        for number, fit in enumerate(used):
            own = index[fit]
            # the library copies what it is given into bins of a byte each; nothing keeps the floats but the file
            features = np.ascontiguousarray(decisions.features[own])
            table = library.table(features, *_truth(decisions, own), state.trees, threads.count())
            fits.append(Fit(decisions.features, own, table, state.margins(decisions.features, number, own)))
        known = {}
        for split, of in rows.items():
            decisions, own = of_market.of_rows(of)
            margins = state.margins(decisions.features, len(used) - 1, own)
            known[split] = Known(decisions.features, own, *_truth(decisions, own), margins)
        return replace(state, fits=tuple(fits), known=known)

    def advance(self, state, rounds):
        end = state.rounds + rounds
        while state.rounds < end:
            border = (state.rounds // self.chunk + 1) * self.chunk
            state = self._grown(state, min(end, border) - state.rounds)
        return state

    def _grown(self, state: Boosted, rounds: int) -> Boosted:
        library, forests = self.library(), []
        for number, (fit, before) in enumerate(zip(state.fits, state.forests, strict=True)):
            seed = seed_of(self.settings.seed, number, state.rounds)
            chunk = Chunk(state.rounds, rounds, seed, threads.count())
            new = library.forest(library.grow(fit.table, fit.margins, chunk, state.trees))
            new.add_to(fit.margins, fit.features, fit.rows)
            forests.append(Forest.join([before, new]))
            if number == len(state.fits) - 1:  # the final model, which alone is scored
                for known in state.known.values():
                    new.add_to(known.margins, known.features, known.rows)
        return replace(state, forests=tuple(forests), rounds=state.rounds + rounds)

    def score(self, state, split: Literal["train", "val"]):
        known = state.known[split]
        loss = log_loss(known.margins, known.label, known.weight)
        return {"val_loss" if split == "val" else "loss": loss}

    def dump(self, state):
        return state.dump()

    def load(self, content, rows, constants):
        state = Boosted.loaded(content)
        return self._with_data(state, rows) if rows else state

    # -- evaluation ------------------------------------------------------------------------------------------------

    def evaluate(self, context):
        return judged(context, name=self.family, seed=self.settings.seed)

    # -- export ----------------------------------------------------------------------------------------------------

    def graphs(self, model):
        forest, prior, count = model.forests[-1], model.prior[-1], model.sample.shape[1]

        def example(sizes, seed):
            return (on_thresholds(forest, model.sample, sizes["batch"], seed),)

        def reference(inputs):
            nothing = np.zeros(len(inputs["features"]), np.int64)
            return {"proba": model.predict(-1, inputs["features"], nothing, nothing)}

        return [
            Graph(
                self.family, None,
                (TensorSpec("features", "float32", ("batch", count), "raw features"),),
                (TensorSpec("proba", "float32", ("batch", len(CLASSES)), f"of {', '.join(CLASSES)}"),),
                {"batch": (1, 65536)}, example, ({"batch": 1}, {"batch": 512}), tolerance=1e-5,
                write=lambda path: write_forest(path, forest, prior, count), reference=reference,
            )
        ]  # fmt: skip


def _truth(decisions: Decisions, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels int64 [n], and weights float32 [n] of mean 1, of some decisions."""
    weight = decisions.weight[index]
    return decisions.label[index].astype(np.int64), (weight / weight.mean()).astype(np.float32)


def _prior(decisions: Decisions, index: np.ndarray) -> np.ndarray:
    """Log shares of the classes by weight, float64 [C]; each class counts one decision more, so that none is 0."""
    weight = decisions.weight[index] / decisions.weight[index].mean()
    count = np.bincount(decisions.label[index], weight, len(CLASSES)) + 1
    return np.log(count / count.sum())
