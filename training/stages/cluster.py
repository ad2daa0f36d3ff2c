"""Prepare's shares as tasks of a Ray cluster. Ray is optional: it is imported here, when it is asked for.

The nodes read the folders and write the output folder under the paths that this host has for them: shared storage.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from training.data.media import Shard
from training.data.shards import prepare_shard
from training.errors import DataError, HostError
from training.workspace import PROJECT, Workspace


def prepare_on_ray(
    address: str,
    workspace: Workspace,
    audio_root: Path | None,
    midi_root: Path | None,
    *,
    labels_file: Path | None = None,
    say: Callable[[str], None] = print,
) -> int:
    """Have every node of the cluster at `address` ("auto": the one that this host belongs to) decode one share;
    returns the number of shares, for `prepare(merge=...)`.

    Raises HostError if Ray is not installed, the cluster cannot be reached or a node is lost, and what a node raised.
    """
    try:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
    except ImportError:
        raise HostError("--ray needs Ray, which is optional: pip install -r requirements-ray.txt") from None
    try:
        # the nodes run this code, wherever they keep it
        ray.init(address=address, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": str(PROJECT)}})
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise HostError(f"There is no Ray cluster at {address}: {error}") from None
    try:
        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        if not nodes:
            raise HostError(f"The Ray cluster at {address} has no node with a free processor.")
        say(f"  {len(nodes)} nodes of the Ray cluster at {address} decode a share each")
        tasks = []
        for number, node in enumerate(sorted(nodes, key=lambda node: node["NodeID"]), 1):
            cpus = int(node["Resources"]["CPU"])
            where = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
            work = ray.remote(_share).options(num_cpus=cpus, scheduling_strategy=where, max_retries=0)
            folders = [None if path is None else path.absolute() for path in (audio_root, midi_root, labels_file)]
            tasks.append(work.remote(workspace.root.absolute(), *folders, Shard(number, len(nodes)), cpus))
        for said in ray.get(tasks):
            say(said)
        return len(nodes)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise (cause if isinstance(cause, DataError | HostError) else error) from None
    except ray.exceptions.RayError as error:
        raise HostError(f"The Ray cluster at {address} lost a share; run the same command again ({error}).") from None
    finally:
        ray.shutdown()


def _share(
    root: Path, audio_root: Path | None, midi_root: Path | None, labels_file: Path | None, shard: Any, workers: int
) -> str:
    """On a node: one share; returns what is to be told about it."""
    said: list[str] = []
    prepare_shard(
        Workspace(root), audio_root, midi_root, shard, labels_file=labels_file, workers=workers, say=said.append
    )
    return said[-1]
