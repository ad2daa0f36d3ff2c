"""The ensemble: a combination of the families that are trained, fitted on their out-of-fold predictions alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field
from safetensors.numpy import load, save

from training.config import Section
from training.domains.market import decisions as of_market
from training.domains.market.decisions import CLASSES, Decisions
from training.domains.market.exports.ensemble import ensemble_graph
from training.domains.market.stacking.combining import Combination, Problem
from training.domains.market.stacking.judging import beside, judge_some
from training.domains.market.stacking.members import final, log_probabilities, out_of_fold, place, window_of
from training.engine.process.distributed import choose_device
from training.errors import DataError, UsageError
from training.recipe import Fitted
from training.settings import RunSettings

if TYPE_CHECKING:
    from training.data.rows import Row

SAMPLE = 256  # decisions with which the exported file is compared


class Stack(Section):
    l2: Annotated[float, Field(gt=0)] = 0.05  # on the distance from equal weights, beside the mean log-loss


class EnsembleSettings(RunSettings):
    stack: Stack = Stack()


@dataclass(frozen=True, eq=False)
class Stacked:
    """A combination of members. `members`, family -> its trained model, and `problems`, split -> what it is fitted and
    scored on, are in memory alone."""

    combination: Combination
    names: tuple[str, ...]  # of the members, in the order of the weights
    digests: tuple[str, ...]  # SHA-256 of each member's checkpoint
    losses: np.ndarray  # float64 [M + 1]: out-of-fold log-loss of each member, and of equal weights
    sample: np.ndarray  # float32 [n, F]
    members: Mapping[str, Any] = field(default_factory=dict)
    problems: Mapping[str, Problem] = field(default_factory=dict)

    @property
    def window(self) -> int:
        """How many decisions the ensemble looks at."""
        return max(window_of(one.model) for one in self.members.values())

    @property
    def best(self) -> str:
        """The member with the lowest out-of-fold log-loss."""
        return self.names[int(self.losses[:-1].argmin())]

    def finals(self, decisions: Decisions, index: np.ndarray) -> dict[str, np.ndarray]:
        """Member -> probabilities of its final model for some decisions: float32 [n, C], NaN without a window."""
        return {name: final(self.members[name], decisions, index) for name in self.names}

    def combined(self, of_members: Mapping[str, np.ndarray]) -> np.ndarray:
        """The members' probabilities -> those of the ensemble, float32 [n, C]; NaN where one member has none."""
        return self.combination.probabilities(log_probabilities(of_members)).astype(np.float32)

    def equal(self, of_members: Mapping[str, np.ndarray]) -> np.ndarray:
        """The same with equal weights."""
        equal = Combination.equal(len(self.names), len(CLASSES))
        return equal.probabilities(log_probabilities(of_members)).astype(np.float32)

    def predict(self, number: int, features: np.ndarray, run: np.ndarray, decided: np.ndarray) -> np.ndarray:
        """As the predict of a member: probabilities float32 [N, C] for features float32 [N, F]; `number` is -1, as an
        ensemble has no models of folds."""
        given = {name: one.model.predict(number, features, run, decided) for name, one in self.members.items()}
        return self.combined(given)


class Ensemble(Fitted):
    """A round is one step of Newton's method."""

    family, title, manifest, settings_type = "ensemble", "Ensemble", "market", EnsembleSettings
    chunk = 1
    settings: EnsembleSettings

    def encoders(self):
        return of_market.encoders()

    def begin(self, rows, constants, seed):
        names = tuple(sorted(self.needed))
        if not names:
            raise UsageError("The ensemble combines trained families, and none is trained. Train one first.")
        digests = tuple(self.needed[name].sha256 for name in names)
        decisions, index = of_market.of_rows(rows["train"])
        some = np.unique(np.linspace(0, len(index) - 1, SAMPLE).astype(int))
        equal = Combination.equal(len(names), len(CLASSES))
        empty = Stacked(equal, names, digests, np.zeros(0), np.ascontiguousarray(decisions.features[index[some]]))
        state = self._with_data(empty, rows)
        train = state.problems["train"]
        single = Combination.equal(1, len(CLASSES))
        parts = [Problem(train.logs[:, [at]], train.label, train.weight) for at in range(len(names))]
        losses = np.array([*(part.loss(single) for part in parts), train.loss(equal)])
        return replace(state, losses=losses)

    def _with_data(self, state: Stacked, rows: Mapping[str, Sequence[Row]]) -> Stacked:
        state = replace(state, members=self._members(state))
        place(state, choose_device("auto"))  # it predicts years of decisions
        problems = {}
        for split, predict in (("train", out_of_fold), ("val", final)):
            decisions, index = of_market.of_rows(rows[split])
            given = {name: predict(one, decisions, index) for name, one in state.members.items()}
            problems[split] = _problem(decisions, index, given, split)
        return replace(state, problems=problems)

    def _members(self, state: Stacked) -> dict[str, Any]:
        """The trained members. Raises UsageError if one is not the model that the ensemble was fitted on."""
        for name, digest in zip(state.names, state.digests, strict=True):
            if name not in self.needed or self.needed[name].sha256 != digest:
                what = "was trained again" if name in self.needed else "is not there"
                raise UsageError(
                    f"{self.run} was fitted on {name}, which {what}. Fit it again: python -m training train {self.run}"
                )
        return {name: self.needed[name] for name in state.names}

    def advance(self, state, rounds):
        one = state.combination
        for _ in range(rounds):
            one = state.problems["train"].improved(one, self.settings.stack.l2)
        return replace(state, combination=one)

    def score(self, state, split):
        return {"val_loss" if split == "val" else "loss": state.problems[split].loss(state.combination)}

    def dump(self, state):
        names = np.frombuffer(json.dumps([state.names, state.digests]).encode(), np.uint8)
        return save({"weights": state.combination.weights, "bias": state.combination.bias, "names": names,
                     "losses": state.losses, "sample": state.sample})  # fmt: skip

    def load(self, content, rows, constants):
        arrays = load(content)
        names, digests = (tuple(part) for part in json.loads(arrays["names"].tobytes()))
        one = Combination(arrays["weights"], arrays["bias"])
        state = Stacked(one, names, digests, arrays["losses"], arrays["sample"])
        return self._with_data(state, rows) if rows else replace(state, members=self._members(state))

    # -- evaluation ------------------------------------------------------------------------------------------------

    def evaluate(self, context):
        model, seed = context.model, self.settings.seed
        given = model.finals(*of_market.of_rows(context.held_out))
        proba = model.combined(given)
        others = {f"{model.best} alone": given[model.best], "equal weights": model.equal(given)}
        judgement = judge_some(context, proba, name=self.family, seed=seed)
        return beside(judgement, context.held_out, proba, others, seed)

    # -- export ----------------------------------------------------------------------------------------------------

    def graphs(self, model):
        return [ensemble_graph(self.family, model.members, model.combination, model.sample)]


def _problem(decisions: Decisions, index: np.ndarray, members: Mapping[str, np.ndarray], split: str) -> Problem:
    """The decisions for which every member has probabilities."""
    kept = np.all([np.isfinite(given).all(1) for given in members.values()], 0)
    if not kept.any():
        raise DataError(f"No decision of the {split} split has a prediction of every family: {', '.join(members)}.")
    weight = decisions.weight[index[kept]].astype(np.float64)
    logs = log_probabilities({name: given[kept] for name, given in members.items()})
    return Problem(logs, decisions.label[index[kept]].astype(np.int64), weight / weight.mean())
