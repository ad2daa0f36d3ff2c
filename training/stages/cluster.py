"""Work as tasks of a Ray cluster, a node at a time. Ray is optional: it is imported here, when it is requested.

The nodes see the project, its data and its output folder under the paths that this host has for them: shared storage.
"""

from __future__ import annotations

import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from training.errors import AthanorError, HostError
from training.threads import BLAS_SPINNING, WAITING
from training.workspace import PROJECT

#: Seconds in which every node must have answered a task that does nothing. A cold worker takes a few; one that cannot
#: start (Ray or a package is not importable there) is started again and again, without an end.
ANSWER_SECONDS = 120.0
REACH_SECONDS = 20.0  # for a connection to the cluster


@dataclass(frozen=True)
class ClusterNode:
    """A host of the cluster."""

    id: str
    address: str
    cpus: int
    gpus: float


class Cluster:
    """A cluster that this process is connected to, and whose nodes have answered."""

    def __init__(self, ray: ModuleType, address: str, nodes: Sequence[ClusterNode]):
        self.ray, self.address, self.nodes = ray, address, nodes

    def run(self, work: Callable[..., Any], arguments: Sequence[tuple]) -> list[Any]:
        """`work(*given)` for each of `arguments`, on as many nodes at once as there are; a task has its node to itself.
        Returns the results in the order of `arguments`.

        Raises what a task raised, if that is for people (AthanorError); HostError for a node that was lost.
        """
        waiting, idle = deque(enumerate(arguments)), list(self.nodes)
        results: list[Any] = [None] * len(arguments)
        running: dict[Any, tuple[int, ClusterNode]] = {}
        try:
            while waiting or running:
                while waiting and idle:
                    node = idle.pop(0)
                    number, given = waiting.popleft()
                    running[self._on(node, work, node.cpus, node.gpus).remote(*given)] = number, node
                (done,), _ = self.ray.wait(list(running), num_returns=1)
                number, node = running.pop(done)
                results[number] = self.ray.get(done)
                idle.append(node)
        except self.ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, AthanorError) else error) from None
        except self.ray.exceptions.RayError as error:
            raise HostError(
                f"The Ray cluster at {self.address} lost a node; run the same command again ({error})."
            ) from None
        return results

    def answered(self) -> None:
        """Raises HostError unless every node runs a trivial task, with this project's packages, in ANSWER_SECONDS."""
        asked = {self._on(node, _answer, 0, 0).remote(): node for node in self.nodes}
        done, silent = self.ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS)
        if silent:
            names = ", ".join(sorted({asked[task].address for task in silent}))
            raise HostError(
                f"{len(silent)} of {len(asked)} nodes of the Ray cluster at {self.address} did not run a trivial task "
                f"within {ANSWER_SECONDS:.0f} s: {names}. Their workers cannot start: Ray and this environment must be "
                f"installed there under the same paths as here ({sys.prefix}); their logs are in "
                "/tmp/ray/session_latest/logs."
            )
        for task in done:
            try:
                self.ray.get(task)
            except self.ray.exceptions.RayError as error:
                reason = str(getattr(error, "cause", error)).strip().splitlines()[-1]
                raise HostError(
                    f"The node {asked[task].address} of the Ray cluster at {self.address} cannot run this program: "
                    f"{reason}. Install this environment there under the same path ({sys.prefix})."
                ) from None

    def _on(self, node: ClusterNode, work: Callable[..., Any], cpus: float, gpus: float) -> Any:
        """`work` as a task of one node. A task without requested GPUs sees none."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        where = NodeAffinitySchedulingStrategy(node_id=node.id, soft=False)
        return self.ray.remote(work).options(num_cpus=cpus, num_gpus=gpus, scheduling_strategy=where, max_retries=0)


def run_on_cluster(
    address: str, work: Callable[..., Any], arguments: Sequence[tuple], say: Callable[[str], None] = print
) -> list[Any]:
    """`work(*given)` for each of `arguments` on the nodes of the cluster at `address` ("auto": the one that this host
    belongs to); the results in their order. `work` must be importable on the nodes.

    Raises HostError if Ray is not installed, the cluster cannot be reached, or a node does not answer or is lost; and
    what a task raised.
    """
    with connected(address) as cluster:
        say(f"  {len(arguments)} tasks on {len(cluster.nodes)} nodes of the Ray cluster at {address}")
        return cluster.run(work, arguments)


@contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """The cluster at `address`, once every node has answered. Raises HostError."""
    try:
        import ray
    except ImportError:
        raise HostError("--ray needs Ray, which is optional: scripts/setup_env.sh WORD ray") from None
    _reach(address)
    try:
        with chdir(PROJECT):  # Ray puts the current folder first on the nodes' import path: the user's must not be
            ray.init(address=address, log_to_driver=False, runtime_env={"env_vars": nodes_environment()})
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise HostError(f"There is no Ray cluster at {address}: {error}") from None
    try:
        found = sorted((node for node in ray.nodes() if node["Alive"]), key=lambda node: node["NodeID"])
        nodes = [
            ClusterNode(node["NodeID"], node["NodeManagerAddress"], int(cpus), node["Resources"].get("GPU", 0))
            for node in found
            if (cpus := node["Resources"].get("CPU", 0)) >= 1
        ]
        if not nodes:
            raise HostError(f"The Ray cluster at {address} has no node with a processor.")
        cluster = Cluster(ray, address, nodes)
        cluster.answered()
        yield cluster
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Raises HostError if nothing listens at "host:port": Ray would retry for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return  # "auto", or a name that Ray resolves
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise HostError(f"There is no Ray cluster at {address}: {error}") from None


def assigned_cpus() -> int | None:
    """On a node, in a task: how many processors are its own."""
    import ray

    return int(ray.get_runtime_context().get_assigned_resources().get("CPU", 0)) or None


def nodes_environment() -> dict[str, str]:
    """Variables of the nodes' processes: they run this code with this process's packages.

    PYTHONPATH replaces the nodes' own. It must therefore name every folder that this process imports from, Ray's too:
    a worker that cannot import Ray does not start, and Ray starts another one, forever. The interpreter is the one that
    Ray was started with on each node: one that is named here and is not there would be the same endless start.
    """
    library = Path(os.__file__).parent
    folders = [Path(entry).absolute() for entry in sys.path if entry]
    ours = [str(folder) for folder in folders if folder.is_dir() and folder not in (library, library / "lib-dynload")]
    variables = {"PYTHONPATH": os.pathsep.join(dict.fromkeys([str(PROJECT), *ours])), "PYTHONSAFEPATH": "1"}
    if added := os.environ.get("ATHANOR_DOMAINS"):
        variables["ATHANOR_DOMAINS"] = added
    # How threads wait; of how many there are, Ray takes care (OMP_NUM_THREADS is the number of a task's CPUs).
    return variables | {name: os.environ[name] for name in (*WAITING, *BLAS_SPINNING) if name in os.environ}


def _answer() -> str:
    """On a node: import what every domain needs."""
    import numpy

    from training import workspace

    return f"{numpy.__version__} {workspace.PROJECT}"
