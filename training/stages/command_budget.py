"""The budget of one command: the limit in its options, the record of its stage in the ledger, and the time that a
training may use."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from training.budget.account import Account, counted, ledger_path
from training.budget.ending import Ending
from training.budget.ledger import RecordedJob
from training.budget.limit import Limit, limit_of
from training.budget.reserve import TRIAL, TRIAL_SECONDS, trial_pays
from training.registry import facts
from training.stages.run_names import others
from training.workspace import Workspace


def command_limit(options: argparse.Namespace) -> Limit:
    """The limit that the options of a command give. Raises UsageError for a --budget-usd without a known price."""
    return limit_of(options.max_hours, options.budget_usd, options.price_per_hour)


def endings_of(options: argparse.Namespace, families: Sequence[str]) -> dict[str, Ending]:
    """Family -> how long evaluating, exporting and verifying it takes on the reference cores. A family that is not
    trained yet is assumed to have the size that this command's preset gives it."""
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
    """Record the time of the block as a session of `stage` in the ledger. Gives the account; None on all ranks but rank
    0, which records the time for all."""
    if os.environ.get("RANK", "0") != "0":
        yield None
        return
    workspace = Workspace(options.out)
    rest = others(options.of, workspace, options.family) if stage == "train" else []
    endings = endings_of(options, [*families, *rest])
    with counted(workspace, stage, families, command_limit(options), fresh=fresh, endings=endings) as account:
        yield account


def preset_of(options: argparse.Namespace, workspace: Workspace) -> str | None:
    """The preset of the command: the given one, or `demo` for synthetic data and `full` for other data; None if
    --config is used instead."""
    from training.data.summary import summary_of

    if options.config is not None or options.preset is not None:
        return options.preset
    summary = summary_of(workspace)
    return "demo" if summary is not None and summary["synthetic"] else "full"


def allowance(options: argparse.Namespace, account: Account | None):
    """(a function that returns the seconds that this training may still use, the job's limit in seconds), or
    (None, None) without a limit. Raises TrainingError if there is no time to train."""
    if options.max_hours is None and options.budget_usd is None:
        return None, None
    if account is None:  # not rank 0, which decides for all
        return (lambda: math.inf), math.inf
    rest = others(options.of, account.workspace, options.family)
    left = account.training_left(options.family, options.families_left, rest)
    account.require_time(left(), [options.family, *rest])
    return left, round(account.seconds, 1)  # rounded, as it is recorded, and later compared with another limit


def time_host(options: argparse.Namespace, workspace: Workspace) -> None:
    """Time a fixed export on this host, once, if the job has a limit: the time that is reserved for evaluation, export
    and verification is computed from it."""
    limited = options.max_hours is not None or options.budget_usd is not None
    if not limited or os.environ.get("RANK", "0") != "0":
        return
    from training.stages.trial import trial

    rest = others(options.of, workspace, options.family)
    endings = endings_of(options, [options.family, *rest])
    account = Account(workspace, command_limit(options), RecordedJob(ledger_path(workspace)), endings=endings)
    left = account.training_left(options.family, options.families_left, rest)
    if account.is_measured() or left is None:
        return
    to_train, takes = left() * options.families_left, TRIAL_SECONDS * account.slow
    if not trial_pays(to_train, sum(account.kept.values()), takes):
        return
    with counted_stage(options, TRIAL, fresh=options.resume == "never"):
        print(f"This host was timed: a fixed export took {trial():.0f} s. The reserve is computed from it.", flush=True)
