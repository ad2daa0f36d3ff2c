"""Runs the nodes of a domain's plan (domain.Node), except those that are done already.

A node's receipt (runs/nodes/<name>.json) is written last. It has the digests of the node's inputs, the options, the
domain's code and the node's outputs. If none of these has changed, the node is done. So a job that was killed at any
point continues with the first node that is not done.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.data.files import write_atomic
from training.domain import Domain, Job, Node
from training.errors import AthanorError, Interrupted, TrainingError, UsageError
from training.export.files import sha256
from training.stages.children import Children
from training.workspace import Workspace, exclusive

FORMAT = 1


def receipt_path(workspace: Workspace, node: str) -> Path:
    """The path of a node's receipt."""
    return workspace.root / "runs" / "nodes" / f"{node}.json"


def run_node(domain: Domain, node: Node, job: Job) -> bool:
    """Run one node unless its receipt shows that it is done; returns whether it was run.

    Raises the node's own errors, TrainingError if it does not write one of its outputs, UsageError if one of its inputs
    does not exist.
    """
    path = receipt_path(job.workspace, node.name)
    with exclusive(path.parent / f".{node.name}", f"node {node.name}"):
        wanted = _wanted(domain, node, job)
        if _is_done(path, wanted, job.workspace):
            job.say(f"{node.title}: done before; its inputs, options and code are the same.")
            return False
        path.unlink(missing_ok=True)
        began = time.monotonic()
        module, _, function = node.run.partition(":")
        getattr(importlib.import_module(module), function)(job)
        outputs = {}
        for output in node.outputs(job):
            if not output.exists():
                raise TrainingError(f"{node.title} did not write {output}, which it names as its output.")
            outputs[_relative(output, job.workspace)] = sha256(output)
        receipt = {**wanted, "outputs": outputs, "seconds": round(time.monotonic() - began, 1)}
        write_atomic(path, json.dumps(receipt, indent=1, sort_keys=True).encode() + b"\n")
        job.say(f"{node.title}: done in {time.monotonic() - began:.0f} s; receipt {job.workspace.relative(path)}")
    return True


def _wanted(domain: Domain, node: Node, job: Job) -> dict[str, Any]:
    """The entries that a receipt must have for the node to be done, without the outputs."""
    inputs = {}
    for path in node.inputs(job):
        if not path.exists():
            raise UsageError(
                f"{node.title} reads {path}, which is not there. It needs: {', '.join(node.needs) or '-'}."
            )
        inputs[_relative(path, job.workspace)] = sha256(path)
    options = {key: str(value) for key, value in sorted(job.options.items()) if value is not None}
    return {
        "format": FORMAT,
        "node": node.name,
        "version": node.version,
        "code": code_of(type(domain).__module__),
        "options": options,
        "seed": job.seed,
        "inputs": inputs,
    }


def _is_done(path: Path, wanted: Mapping[str, Any], workspace: Workspace) -> bool:
    try:
        receipt = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # none yet, or damaged: the node is run
        return False
    if any(receipt.get(key) != value for key, value in wanted.items()):
        return False
    outputs = {workspace.root / name: digest for name, digest in receipt["outputs"].items()}
    return all(output.exists() and sha256(output) == digest for output, digest in outputs.items())


def _relative(path: Path, workspace: Workspace) -> str:
    return os.path.relpath(path, workspace.root)


def code_of(module: str) -> str:
    """A digest of the Python sources of the package that `module` lies in."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise UsageError(f"The code of {module} cannot be found.")
    folder = Path(spec.origin).parent
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()[:16]


# -- several -------------------------------------------------------------------------------------------------------


def levels(nodes: Sequence[Node]) -> list[list[Node]]:
    """The nodes in groups that are run one after another: no node needs one of the same group or of a later one."""
    waiting, out = list(nodes), []
    while waiting:
        names = {node.name for node in waiting}
        ready = [node for node in waiting if not names & set(node.needs)]
        if not ready:
            raise UsageError(f"The nodes {', '.join(sorted(names))} need each other.")
        out.append(ready)
        waiting = [node for node in waiting if node not in ready]
    return out


def run_nodes(
    domain: Domain, names: Sequence[str], job: Job, words: Sequence[str], *, at_once: int = 1, ray: str | None = None
) -> None:
    """Run the nodes `names`, each after those that it needs. `at_once`: how many independent nodes run at the same time
    as processes of this host, each with its own GPU if it needs one. `ray`: address of a Ray cluster on which they run
    instead; its hosts must have the same folders. `words`: the options of the command, for those processes.

    Raises the first error of a node, after the other nodes of its group have ended.
    """
    chosen = [node for node in domain.nodes() if node.name in names]
    for level in levels(chosen):
        if ray is not None and len(level) > 1:
            _on_cluster(domain, level, job, ray)
        elif at_once > 1 and len(level) > 1:
            _as_processes(level, words, at_once, job.say)
        else:
            for node in level:
                run_node(domain, node, job)


def _as_processes(level: Sequence[Node], words: Sequence[str], at_once: int, say: Callable[[str], None]) -> None:
    with Children(say) as children:
        ends = children.run(
            {node.name: [sys.executable, "-m", "training", "node", node.name, *words] for node in level},
            at_once, gpus={node.name for node in level if node.gpu},
        )  # fmt: skip
    for name, end in ends.items():
        if end.code:
            raise _error(f"Node {name} ended with exit code {end.code}: {end.last}", end.code)


def _error(text: str, code: int) -> BaseException:
    if code == Interrupted.exit_code:
        return Interrupted(text)
    error: AthanorError = TrainingError(text)
    error.exit_code = code
    return error


def _on_cluster(domain: Domain, level: Sequence[Node], job: Job, address: str) -> None:
    from training.stages.cluster import run_on_cluster

    arguments = [(domain.word, node.name, str(job.workspace.root), dict(job.options), job.seed) for node in level]
    for line in run_on_cluster(address, run_remote, arguments, job.say):
        job.say(line)


def run_remote(word: str, name: str, root: str, options: Mapping[str, Any], seed: int) -> str:
    """Runs on a host of the cluster: run one node of the plan; returns its messages."""
    from training.registry import domain

    messages: list[str] = []
    found = domain(word)
    node = next(node for node in found.nodes() if node.name == name)
    run_node(found, node, Job(Workspace(Path(root)), options, seed, say=messages.append))
    return "\n".join(messages)
