"""Searches hyper-parameters of trees by their out-of-fold log-loss on the training split (`--trials N`).

The first trial is the settings as they are. A trial's random numbers are a function of (seed, trial), so a search that
is repeated after a kill finds the same.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import optuna

from training.domains.market.trees.settings import Trees

ROUNDS = 100  # of a trial


def searched(loss: Callable[[Trees], float], given: Trees, trials: int, seed: int) -> Trees:
    """The best of `trials` settings. `loss`: out-of-fold log-loss after ROUNDS rounds."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize")
    best = loss(given), given
    for number in range(1, trials):
        own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        study.sampler = optuna.samplers.TPESampler(seed=own)
        trial = study.ask()
        tried = Trees(**given.model_dump() | {name: suggest(trial, name) for name, suggest in SPACE.items()})
        found = loss(tried)
        study.tell(trial, found)
        if found < best[0]:
            best = found, tried
    return best[1]


def _real(low: float, high: float, log: bool = False) -> Callable[[optuna.Trial, str], float]:
    return lambda trial, name: trial.suggest_float(name, low, high, log=log)


SPACE: dict[str, Callable[[optuna.Trial, str], float]] = {
    "depth": lambda trial, name: trial.suggest_int(name, 2, 8),
    "rate": _real(0.02, 0.3, log=True),
    "rows": _real(0.4, 1.0),
    "columns": _real(0.2, 1.0),
    "l2": _real(0.05, 50.0, log=True),
    "leaf": _real(2.0, 500.0, log=True),
}
