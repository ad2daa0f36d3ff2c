"""The command `estimate`: one training, or those of all items of a family, one after the other."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from training.budget.account import Account, ledger_path
from training.budget.ledger import RecordedJob
from training.budget.limit import HOUR
from training.recipe import Recipe
from training.stages.command_budget import command_limit, endings_of
from training.stages.estimate import Estimate, estimate, show
from training.stages.fan_out import runs_of
from training.stages.run_names import others
from training.units import duration
from training.workspace import Workspace


def estimate_command(
    options: argparse.Namespace, data: Mapping[str, Any], recipe_of: Callable[[argparse.Namespace, Workspace], Recipe]
) -> None:
    """Estimate the training of `options.family` with the options of the command, and print it. Of a family that trains
    one model per item (`amp`, not `amp/lead`), that of each item and their sum. `data`: the options of the domain.
    Raises what `estimate` raises."""
    workspace, family = Workspace(options.out), options.family
    runs = [family] if "/" in family else runs_of(options.of, family, workspace)
    found = {}
    for number, run in enumerate(runs):
        if run != family:
            print(f"{run}, {number + 1} of {len(runs)}:")
        left = options.families_left + len(runs) - 1 - number
        one = argparse.Namespace(**{**vars(options), "family": run, "families_left": left})
        found[run] = _estimated(one, data, recipe_of(one, workspace), workspace)
    if runs != [family]:
        print(_sum(family, found, command_limit(options).price))


def _estimated(
    options: argparse.Namespace, data: Mapping[str, Any], recipe: Recipe, workspace: Workspace
) -> Estimate | None:
    rest = others(options.of, workspace, options.family)
    endings = endings_of(options, [options.family, *rest])
    account = Account(workspace, command_limit(options), RecordedJob(ledger_path(workspace)), endings=endings)
    found = estimate(
        recipe,
        workspace,
        device=options.device,
        resume=options.resume,
        options=data,
        ending=lambda millions, seconds: sum(
            account.kept_back([options.family], {options.family: seconds}, **{options.family: millions}).values()
        ),
    )
    if found is not None:
        show(found, account, options.family, options.families_left, rest)
    return found


def _sum(family: str, found: Mapping[str, Estimate | None], price: float | None) -> str:
    """One line for all items. What makes one of them slower than expected is of the host, and slows all: their
    uncertainties are added."""
    left = [one for one in found.values() if one is not None]
    seconds, doubt = sum(one.all for one in left), sum(one.doubt for one in left)
    money = "" if price is None else f"; {seconds / HOUR * price:.2f} USD at {price:g} USD/h"
    return (
        f"{family}, {len(left)} of {len(found)} items to train, one after the other: {duration(seconds)} in all, "
        f"between {duration(max(0.0, seconds - doubt))} and {duration(seconds + doubt)}{money}"
    )
