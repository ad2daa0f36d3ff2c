"""Formats a plan as shell code that train_cuda.sh evaluates: assignments, then one call per step. Every word is quoted
for the shell."""

from __future__ import annotations

from shlex import quote

from training.data.objects.address import is_url
from training.domain import Node
from training.runner.options import Command
from training.runner.plan import ONCE, Plan, Step


def paths(command: Command) -> str:
    """The paths that planning looks at, one per line, quoted. On a host without Python, the plan is made in a container
    in which these must be mounted."""
    here = {one.option for one in command.fetched}  # below --out
    options = [option.attribute for option in command.domain.options if option.mounted and option.name not in here]
    persist = None if command.persist is None or is_url(command.persist) else command.persist
    named = [command.out, persist, *(command.options.get(attribute) for attribute in options)]
    return "\n".join(quote(path) for path in named if path)


def script(plan: Plan) -> str:
    """The assignments (settings of the command, `mounts`, `notes`), and the function `steps`."""
    command = plan.command
    lines = [f"domain={quote(command.domain.word)}"]
    for name in ("mode", "out", "persist", "gpus", "nnodes", "node_rank"):
        value = getattr(command, name)
        lines.append(f"{name}={quote('' if value is None else str(value))}")
    for name in ("cpu", "dry_run", "estimate", "skip_build"):
        lines.append(f"{name}={'yes' if getattr(command, name) else 'no'}")
    lines.append(f"until={command.session_ends or ''}")
    lines.append(f"uses_store={'yes' if command.uses_store else 'no'}")
    lines.append(f"wandb={'yes' if command.wandb or command.from_wandb else 'no'}")
    lines.append(f"mounts=({' '.join(quote(mount.path) for mount in plan.mounts)})")
    lines.append(f"notes=({' '.join(map(quote, plan.notes))})")
    lines.append(f"own_data={quote(plan.own_data)}")
    lines.append(f"exports={'yes' if plan.exports else 'no'}")
    steps = _grouped(plan)
    lines.append("steps() {")
    for step in steps:
        if step.name == "persist":  # the last one; the shell also runs it if the job ends early
            continue
        lines.append(f"    {_call(step)}")
        if step.name == "restore" and not command.estimate:
            lines.append("    restored=yes")
    lines += ["    :", "}", "copy_away() {"]
    lines += [f"    {_call(step)}" for step in steps if step.name == "persist"]
    lines += ["    :", "}"] if steps[-1].name != "persist" else ["}"]
    return "\n".join(lines)


def _call(step: Step) -> str:
    """`stage TITLE OPTIONS-OF-THE-SUPERVISOR -- COMMAND`. `$python`, `$device` and `$until` are variables of
    train_cuda.sh."""
    words = [quote(word) for word in step.command]
    device = ' ${device[@]+"${device[@]}"}' if step.device and "--device" not in step.command else ""
    supervise = " ".join(map(quote, step.supervise))
    if step.name == "persist":  # after the end of a session too
        name = "run_stage"
    else:
        name, supervise = "stage", f"{supervise}${{until:+ --until $until}}"
    return f'{name} {quote(step.title)} {supervise} -- "$python" {" ".join(words)}{device}'


def _grouped(plan: Plan) -> list[Step]:
    """The steps of a plan. Consecutive nodes become one step if they may run at the same time: on several GPUs, or on a
    Ray cluster."""
    command = plan.command
    if command.ray is None and (command.gpus or 1) < 2:
        return list(plan.steps)
    nodes = {node.name: node for node in command.domain.nodes()}
    out: list[Step] = []
    for step in plan.steps:
        if step.name in nodes and out and out[-1].name in nodes:
            out[-1] = _joined(out[-1], step, nodes[step.name], command)
        else:
            out.append(step)
    return out


def _joined(first: Step, second: Step, node: Node, command: Command) -> Step:
    """Two node steps as one command, `node A B ...`, which orders the nodes by their needs."""
    words = list(first.command)
    at = words.index("node") + 1
    while not words[at].startswith("--"):
        at += 1
    words.insert(at, node.name)
    if "--at-once" not in words and command.gpus is not None:
        words += ["--at-once", str(command.gpus)]
    return Step(second.name, f"{first.title}; {second.title}", tuple(words), first.needs, first.receipt, ONCE, True)
