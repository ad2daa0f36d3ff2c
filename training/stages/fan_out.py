"""Runs one command (`train` or `evaluate`) for every item of a family that has one model per item. Each item is a
separate run with its share of the budget. An item that fails is quarantined with the reason, and the others
continue.

Each item has its own process, forked from one that has imported what all of them need (fork_server.py). One that
crashes or is killed there is started again in a new interpreter; a training then under the supervisor, which restarts
it as that of any other family.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from training.data.files import write_atomic
from training.domain import Domain
from training.errors import AthanorError, DataError, HostError, TrainingError, UsageError
from training.registry import family_of
from training.stages.children import Children, End
from training.stages.fork_server import ForkServer
from training.threads import sharing
from training.workspace import Workspace

#: Exit codes with which every other item would end too: wrong usage or configuration, an unsuitable host, an interrupt.
OF_ALL = (UsageError.exit_code, HostError.exit_code, 75)
#: What all items import beside the stage and the recipe.
IMPORTS = ("training.cli", "training.report.page", "training.report.card")
CRASHED, SIGNALLED = 1, 128  # the exit code of an unexpected error; the least of a process that a signal ended
#: More than this share of failed items is a failure of the job.
TOO_MANY = 0.5


def quarantine_path(workspace: Workspace) -> Path:
    """Where failed runs are listed: {run: {"stage", "exit", "reason"}}."""
    return workspace.root / "runs" / "quarantined.json"


def quarantined(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """The runs that failed, and why. Raises DataError for a damaged file."""
    path = quarantine_path(workspace)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}). Delete it: failed runs are then tried again.") from None


def runs_of(domain: Domain, family: str, workspace: Workspace) -> list[str]:
    """The names of a family's runs: the family's name, or one name per item. Raises UsageError before `prepare`."""
    if not domain.facts(family).fan_out:
        return [family]
    items = domain.items(workspace)
    if not items:
        raise UsageError(f"There are no items of {family} in {workspace.manifests}: run prepare first.")
    return [f"{family}/{item}" for item in items]


def each(
    domain: Domain,
    family: str,
    workspace: Workspace,
    verb: str,
    words: Sequence[str],
    *,
    at_once: int = 1,
    others_left: int = 0,
    say: Callable[[str], None] = print,
) -> None:
    """Run `verb` (train or evaluate) with the options `words` for every item of `family`.

    `others_left`: trainings of other families that share the limit with these. `train` tries quarantined items again;
    `evaluate` skips them. Raises Interrupted; the error of an item that every other item would get too (OF_ALL); the
    error of the first failed item if more than half of the items fail.
    """
    failed = quarantined(workspace)
    runs = runs_of(domain, family, workspace)
    if verb != "train":
        runs = [run for run in runs if run not in failed]
    if not runs:
        raise TrainingError(f"Every item of {family} failed: see {quarantine_path(workspace)}.")
    commands = {}
    for number, run in enumerate(runs):
        # Runs at the same time share the clock, so the time left is divided among the remaining batches of runs.
        left = [f"--families-left={-(-(len(runs) - number) // at_once) + others_left}"] if verb == "train" else []
        commands[run] = [*_training(workspace, verb, run), *words, *left]
    seen = _Seen(workspace, verb, failed, say)
    if ForkServer.available and not _begins_again(words):
        with _server(domain, family, verb, min(at_once, len(runs))) as server, Children(say, server) as children:
            children.run(commands, at_once, gpus=set(runs), ended=seen.forked)
    rest = {run: _supervised(workspace, verb, run, commands[run]) for run in runs if run not in seen.ends}
    if rest and not seen.stop:
        for run, end in seen.crashed.items():
            say(f"{run}: {verb} ended with exit code {end.code}; it is started again in a new interpreter.")
        with Children(say) as children:
            children.run(rest, at_once, gpus=set(runs), ended=seen.ended)
    if seen.stop:
        raise _error(f"{family}: {seen.stop[0].last}", seen.stop[0].code)
    bad = [run for run in runs if seen.ends[run].code]
    passed_over = sum(1 for run in failed if family_of(run) == family) - len(bad)
    say(
        f"{family}: {verb} of {len(runs) - len(bad)} of {len(runs)} items done"
        + f", {len(bad)} failed" * bool(bad)
        + f", {passed_over} quarantined before" * bool(passed_over)
        + f" (see {workspace.relative(quarantine_path(workspace))})" * bool(failed)
    )
    if len(bad) > TOO_MANY * len(runs):
        raise _error(f"{len(bad)} of {len(runs)} items of {family} failed; the first: {seen.ends[bad[0]].last}",
                     seen.ends[bad[0]].code)  # fmt: skip


class _Seen:
    """How the items ended. `failed`: the quarantined runs, which it keeps up to date on the disk."""

    def __init__(self, workspace: Workspace, verb: str, failed: dict[str, dict[str, Any]], say: Callable[[str], None]):
        self.workspace, self.verb, self.failed, self.say = workspace, verb, failed, say
        self.ends: dict[str, End] = {}
        self.crashed: dict[str, End] = {}  # those forked ones that are started again
        self.stop: list[End] = []  # of an item as which all others would end

    def ended(self, run: str, end: End) -> bool:
        """Returns whether others may be started."""
        self.ends[run] = end
        if end.code in OF_ALL:
            self.stop.append(end)
            return False
        if end.code:
            self.failed[run] = {"stage": self.verb, "exit": end.code, "reason": end.last}
            self.say(f"{run}: quarantined, {self.verb} ended with exit code {end.code}: {end.last}")
            self.say(f"{run}: the next training tries it again.")
        elif self.failed.get(run, {}).get("stage") == self.verb:
            del self.failed[run]
        _write(self.workspace, self.failed)
        return True

    def forked(self, run: str, end: End) -> bool:
        """The same for a forked process."""
        if end.code == CRASHED or end.code >= SIGNALLED:
            self.crashed[run] = end
            return True
        return self.ended(run, end)


def _server(domain: Domain, family: str, verb: str, at_once: int) -> ForkServer:
    """Has imported what all items of the family import."""
    facts = domain.facts(family)
    modules = (*IMPORTS, f"training.stages.{verb}", facts.recipe.partition(":")[0], *facts.imports.get(verb, ()))
    return ForkServer(modules, sharing(at_once))


def _begins_again(words: Sequence[str]) -> bool:
    """Whether a training begins a new run (--resume never): only the supervisor knows that its second start must
    continue this run."""
    return "--resume=never" in words or "never" in words


def _training(workspace: Workspace, verb: str, run: str) -> list[str]:
    return [sys.executable, "-m", "training", verb, run, "--out", str(workspace.root)]


def _supervised(workspace: Workspace, verb: str, run: str, command: list[str]) -> list[str]:
    """The command, which is a training, under the supervisor."""
    if verb != "train":
        return command
    index = workspace.checkpoints(run) / "index.json"
    return [sys.executable, "-m", "training.runner.supervisor", "--title", f"Train {run}", "--index", str(index), "--",
            *command]  # fmt: skip


def _write(workspace: Workspace, failed: dict[str, dict[str, Any]]) -> None:
    path = quarantine_path(workspace)
    if failed or path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(failed, indent=1, sort_keys=True).encode() + b"\n")


def _error(text: str, code: int) -> AthanorError:
    """The error class with this exit code, with the message `text`."""
    for kind in (UsageError, DataError, TrainingError, HostError):
        if kind.exit_code == code:
            return kind(text)
    return TrainingError(text)
