"""The command `prepare`: from data to manifests and stores. The domain defines how its data is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from training.data.shards import shard_of
from training.data.summary import summary_of
from training.domain import Domain, Job
from training.errors import DataError, UsageError
from training.export.layout import ITEM_NAMES, safe_item
from training.registry import domain as domain_named
from training.workspace import Workspace


def prepare(domain: Domain, job: Job) -> None:
    """Prepare the data that the options name, or the domain's demo data where they name none.

    Options beside the domain's: `val_split` (share held out; None: the domain's), `shard` ("I/N": only decode that
    share), `merge` (N: put so many shares together first), `ray` (address of a cluster that decodes the shares).

    Raises UsageError for options that cannot be meant, DataError if there is nothing to train on, HostError.
    """
    options = _absolute(domain, job.options)
    val_split = domain.val_split
    if not domain.given(options):
        options |= _demo(domain, replace(job, options=options))
        val_split = domain.demo_val_split
    if options.get("val_split") is None:
        options["val_split"] = val_split
    job = replace(job, options=options)
    if options.get("shard"):
        shard = shard_of(options["shard"])
        job.say(domain.prepare_share(job, shard.number, shard.of))
        return
    if options.get("ray"):
        job = replace(job, options=options | {"merge": _decode_on_cluster(domain, job)})
    domain.prepare(job)
    bad = [item for item in domain.items(job.workspace) if not safe_item(item)]
    if bad:
        raise DataError(f"{bad[0]!r} is no valid name of a model ({len(bad)} such items). {ITEM_NAMES}")


def _absolute(domain: Domain, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with absolute paths, since other hosts may have another working directory."""
    named = {option.attribute for option in domain.options if option.mounted}
    return {
        key: Path(value).absolute() if key in named and value is not None else value for key, value in options.items()
    }


def _demo(domain: Domain, job: Job) -> dict[str, Any]:
    """Make the demo data; returns the options that name it. Raises UsageError where it would replace other data."""
    flags = ", ".join(option.flag for option in domain.data_options())
    if any(job.options.get(name) for name in ("shard", "merge", "ray")):
        raise UsageError(f"--shard, --merge and --ray need the data to prepare: name it with {flags}.")
    before = summary_of(job.workspace)
    if before is not None and not before["synthetic"]:
        raise UsageError(
            f"{job.workspace.manifests} holds manifests of real data; without {flags} the demo data would replace "
            "them. Name the data again, use --skip-manifests, or choose another --out."
        )
    place = job.workspace.relative(job.workspace.root / "data")
    about = domain.demo_text()
    job.say(f"No data was named: this is a demo, on data made by rules under {place} (synthetic: true).")
    job.say(f"  What it shows:   {about.shows}")
    job.say(f"  What you get:    {about.gives}")
    job.say(f"  Your own data:   {about.next}")
    return dict(domain.demo(job))


# -- several hosts -----------------------------------------------------------------------------------------------------


def _decode_on_cluster(domain: Domain, job: Job) -> int:
    """Have every node of a Ray cluster decode a share; returns their number, for `merge`."""
    from training.stages.cluster import connected

    with connected(address := job.options["ray"]) as cluster:
        count = len(cluster.nodes)
        job.say(f"  {count} nodes of the Ray cluster at {address} decode a share each")
        # an audit needs all of the data, so it is left to the merge
        options = {key: value for key, value in job.options.items() if key not in ("ray", "audit")}
        root = job.workspace.root.absolute()
        shares = [(domain.word, root, options, job.seed, number, count) for number in range(1, count + 1)]
        for line in cluster.run(_share, shares):
            job.say(line)
    return count


def _share(word: str, root: Path, options: Mapping[str, Any], seed: int, number: int, of: int) -> str:
    """Runs on a node: decode one share; returns a line about it."""
    from training.stages.cluster import assigned_cpus

    job = Job(Workspace(root), options, seed, workers=assigned_cpus(), say=lambda _: None)
    return domain_named(word).prepare_share(job, number, of)
