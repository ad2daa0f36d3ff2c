"""The names of a job's runs: a family, or for a family that fans out each of its items."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from training.domain import Domain
from training.errors import UsageError
from training.registry import domain_of, domains, family_of
from training.workspace import Workspace


def all_runs(domain: Domain, workspace: Workspace) -> list[str]:
    """The runs of a domain without quarantined ones. A family that fans out has none before its items are known."""
    from training.stages.fan_out import quarantined

    failed = quarantined(workspace)
    out = []
    for facts in domain.families:
        items = domain.items(workspace) if facts.fan_out else ()
        names = [f"{facts.name}/{item}" for item in items] if facts.fan_out else [facts.name]
        out += [name for name in names if name not in failed]
    return out


def others(domain: Domain, workspace: Workspace, run: str) -> list[str]:
    """The other runs of the job, which are evaluated, exported and verified at its end too."""
    return [name for name in all_runs(domain, workspace) if name != run]


def left_out(domain: Domain, workspace: Workspace, exported: Iterable[str]) -> list[str]:
    """Notes for readers of exports/: quarantined runs, and models of items that are no longer in the data."""
    from training.export.receipt import read_receipt
    from training.stages.fan_out import quarantined

    notes = [
        f"{run} is not exported: it is quarantined ({about['stage']}: {about['reason']})."
        for run, about in quarantined(workspace).items()
    ]
    known = set(all_runs(domain, workspace)) | set(exported)
    own = {facts.name for facts in domain.families}
    for run in (read_receipt(workspace.exports) or {"families": {}})["families"]:
        if family_of(run) in own and run not in known:
            notes.append(f"{run} is in exports/ from an earlier job; its item is not in the data any more.")
    return notes


def trained_runs(workspace: Workspace) -> list[str]:
    """The runs of all domains that have a checkpoint."""
    every = [name for domain in domains().values() for name in all_runs(domain, workspace)]
    return [name for name in every if any(workspace.checkpoints(name).glob("*.pt"))]


def require_trained(runs: Iterable[str], workspace: Workspace) -> None:
    """Raise UsageError where some of `runs` are trained and others are not, naming the command for those that are."""
    trained = {run: any(workspace.checkpoints(run).glob("*.pt")) for run in runs}
    missing = [run for run, done in trained.items() if not done]
    if missing and any(trained.values()):
        raise UsageError(
            f"Not trained in {workspace.root / 'checkpoints'}: {', '.join(missing)}. Train it first, or name what is "
            f"to be exported: python -m training export {' '.join(run for run, done in trained.items() if done)}"
        )


def exported(domain: Domain, families: Sequence[str], workspace: Workspace) -> list[str]:
    """The runs that `export FAMILY...` exports: those of `families`, or all of the domain if none is named."""
    if not families:
        return all_runs(domain, workspace)
    out: list[str] = []
    for name in families:
        of_family = [run for run in all_runs(domain_of(name), workspace) if name in (run, family_of(run))]
        out += of_family or [name]
    return out
