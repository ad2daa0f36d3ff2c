"""Runs functions as tasks on a Ray cluster, one task per node at a time. Ray is optional, and imported only if it is
requested.

The project, its data and its output folder must have the same paths on all nodes as on this host (shared storage).
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

#: Time limit in seconds for every node to run a task that does nothing. A cold worker needs a few seconds. Ray restarts
#: a worker that cannot start (Ray or a package cannot be imported on the node) without end.
ANSWER_SECONDS = 120.0
REACH_SECONDS = 20.0  # time limit for a connection to the cluster


@dataclass(frozen=True)
class ClusterNode:
    """A host of the cluster."""

    id: str
    address: str
    cpus: int
    gpus: float


class Cluster:
    """A Ray cluster to which this process is connected."""

    def __init__(self, ray: ModuleType, address: str, nodes: Sequence[ClusterNode]):
        self.ray, self.address, self.nodes = ray, address, nodes

    def run(self, work: Callable[..., Any], arguments: Sequence[tuple]) -> list[Any]:
        """Call `work(*given)` for each `given` of `arguments`, on all nodes at the same time, one task per node.
        Returns the results in the order of `arguments`.

        Raises the AthanorError that a task raised, RayTaskError for any other error in a task, HostError if a node was
        lost.
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

    def require_answers(self) -> None:
        """Raises HostError unless every node runs a trivial task, with this project's packages, in ANSWER_SECONDS."""
        tasks = {self._on(node, _answer, 0, 0).remote(): node for node in self.nodes}
        done, silent = self.ray.wait(list(tasks), num_returns=len(tasks), timeout=ANSWER_SECONDS)
        if silent:
            names = ", ".join(sorted({tasks[task].address for task in silent}))
            raise HostError(
                f"{len(silent)} of {len(tasks)} nodes of the Ray cluster at {self.address} did not run a trivial task "
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
                    f"The node {tasks[task].address} of the Ray cluster at {self.address} cannot run this program: "
                    f"{reason}. Install this environment there under the same path ({sys.prefix})."
                ) from None

    def _on(self, node: ClusterNode, work: Callable[..., Any], cpus: float, gpus: float) -> Any:
        """`work` as a task that runs on `node`. A task for which no GPU is requested sees none."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        where = NodeAffinitySchedulingStrategy(node_id=node.id, soft=False)
        return self.ray.remote(work).options(num_cpus=cpus, num_gpus=gpus, scheduling_strategy=where, max_retries=0)


def run_on_cluster(
    address: str, work: Callable[..., Any], arguments: Sequence[tuple], say: Callable[[str], None] = print
) -> list[Any]:
    """Call `work(*given)` for each `given` of `arguments` on the nodes of the cluster at `address` ("auto": the one
    that this host belongs to). Returns the results in the order of `arguments`. `work` must be importable on the nodes.

    Raises HostError if Ray is not installed, the cluster cannot be reached, or a node does not answer or is lost; and
    the errors of tasks, as Cluster.run.
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
        # Ray puts the working directory first on the nodes' import path, and the user's may contain a torch.py.
        with chdir(PROJECT):
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
        cluster.require_answers()
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
    """Called in a task: the number of CPUs that Ray assigned to it; None if it assigned none."""
    import ray

    return int(ray.get_runtime_context().get_assigned_resources().get("CPU", 0)) or None


def nodes_environment() -> dict[str, str]:
    """Environment variables for the processes on the nodes, so that they run this code with the packages of this
    process.

    PYTHONPATH replaces the nodes' own. It must therefore contain every folder that this process imports from, Ray's
    too: a worker that cannot import Ray does not start, and Ray starts another one, without end. Each node uses the
    interpreter that Ray was started with: if one were set here that a node does not have, its workers would be
    restarted without end as well.
    """
    library = Path(os.__file__).parent
    folders = [Path(entry).absolute() for entry in sys.path if entry]
    ours = [str(folder) for folder in folders if folder.is_dir() and folder not in (library, library / "lib-dynload")]
    variables = {"PYTHONPATH": os.pathsep.join(dict.fromkeys([str(PROJECT), *ours])), "PYTHONSAFEPATH": "1"}
    if added := os.environ.get("ATHANOR_DOMAINS"):
        variables["ATHANOR_DOMAINS"] = added
    # How threads wait for each other. Their number is set by Ray (OMP_NUM_THREADS: the number of a task's CPUs).
    return variables | {name: os.environ[name] for name in (*WAITING, *BLAS_SPINNING) if name in os.environ}


def _answer() -> str:
    """Runs on a node: imports what every domain needs."""
    import numpy

    from training import workspace

    return f"{numpy.__version__} {workspace.PROJECT}"
