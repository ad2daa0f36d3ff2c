"""The budget of one command: its limit, the time that a stage is counted with, and what a training may use of it."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from training.budget.account import Account, counted, ledger_path
from training.budget.ending import Ending
from training.budget.ledger import Seen
from training.budget.limit import Limit, limit_of
from training.budget.reserve import TRIAL, TRIAL_SECONDS
from training.registry import facts
from training.stages.run_names import others
from training.workspace import Workspace

#: The time left to train, in trials, from which a trial is worth its time.
TRIED_FROM = 2.0


def command_limit(options: argparse.Namespace) -> Limit:
    return limit_of(options.max_hours, options.budget_usd, options.price_per_hour)


def endings_of(options: argparse.Namespace, families: Sequence[str]) -> dict[str, Ending]:
    """What the end of each family takes on the reference cores. Those that are not trained yet have the size of this
    command's preset."""
    preset = preset_of(options, Workspace(options.out)) if hasattr(options, "preset") else None
    about = {family: facts(family) for family in families}
    return {
        family: replace(one.ending, millions=one.millions.get(preset) if preset else None)
        for family, one in about.items()
    }


@contextmanager
def counted_stage(
    options: argparse.Namespace, stage: str, families: Sequence[str] = (), *, fresh: bool = False
) -> Iterator[Account | None]:
    """The stage's session in the ledger; None on all ranks but the first, which counts for all."""
    if os.environ.get("RANK", "0") != "0":
        yield None
        return
    workspace = Workspace(options.out)
    rest = others(options.of, workspace, options.family) if stage == "train" else []
    endings = endings_of(options, [*families, *rest])
    with counted(workspace, stage, families, command_limit(options), fresh=fresh, endings=endings) as account:
        yield account


def preset_of(options: argparse.Namespace, workspace: Workspace) -> str | None:
    """The preset that is meant; None where a --config stands in for one."""
    from training.data.summary import summary_of

    if options.config is not None or options.preset is not None:
        return options.preset
    summary = summary_of(workspace)
    return "demo" if summary is not None and summary["synthetic"] else "full"


def allowance(options: argparse.Namespace, account: Account | None):
    """(seconds that this training may still use, seconds of the job), or (None, None) without a limit."""
    if options.max_hours is None and options.budget_usd is None:
        return None, None
    if account is None:  # the first rank counts for all
        return (lambda: math.inf), math.inf
    rest = others(options.of, account.workspace, options.family)
    left = account.training_left(options.family, options.families_left, rest)
    account.require_time(left(), [options.family, *rest])
    return left, round(account.seconds, 1)  # it is recorded and compared: no noise in its last digits


def time_host(options: argparse.Namespace, workspace: Workspace) -> None:
    """Under a limit, time this host once, so that what is kept back for the end is what the end takes here."""
    limited = options.max_hours is not None or options.budget_usd is not None
    if not limited or os.environ.get("RANK", "0") != "0":
        return
    from training.stages.trial import trial

    rest = others(options.of, workspace, options.family)
    endings = endings_of(options, [options.family, *rest])
    account = Account(workspace, command_limit(options), Seen(ledger_path(workspace)), endings=endings)
    left = account.training_left(options.family, options.families_left, rest)
    if account.is_measured() or left is None:
        return
    if left() * options.families_left < TRIED_FROM * TRIAL_SECONDS * account.slow:
        return
    with counted_stage(options, TRIAL, fresh=options.resume == "never"):
        print(f"A fixed export, by which the time that is kept back is measured, took {trial():.0f} s.", flush=True)
