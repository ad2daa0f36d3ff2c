"""torchrun, with the exit codes of what it runs:
`python -m training.runner.launch --nproc_per_node=4 -m training train ...`

torch.distributed.run always ends with exit code 1 if a process fails, and on SIGTERM it ends with a traceback while the
processes are still saving. This launcher forwards the signal to the processes, waits for them, and ends with their exit
code: 75 when everything is saved.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from training.console import keep_console
from training.engine.process.signals import follow_parent, install_handlers
from training.errors import Interrupted
from training.parent import as_parent
from training.threads import configure

STOPPED = Interrupted.exit_code


def main(arguments: list[str]) -> int:
    """Run torchrun with `arguments`; returns the exit code of the process that failed first, or 0."""
    configure(_local(arguments) or 1)  # before torch is imported; torchrun would give each rank one thread
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError

    signals: list[int] = []  # that arrived

    def pass_on(number: int, _frame: object) -> None:
        signals.append(number)
        children = _children()
        for child in children:
            os.kill(child, number)
        if not children:  # torchrun still waits for the other hosts
            raise SystemExit(STOPPED)

    keep_console()
    install_handlers(pass_on)
    follow_parent()
    os.environ.update(as_parent())  # for the ranks, which stop if only this process is killed
    try:
        # torchrun itself handles SIGQUIT only
        run.run(run.parse_args(["--signals-to-handle=SIGQUIT", *arguments]))
    except ChildFailedError as error:
        codes = [failure.exitcode for failure in error.failures.values()]
        if STOPPED in codes and signals:
            return STOPPED
        _, first = error.get_first_failure()
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode
    except RendezvousError as error:
        print(f"error: the hosts did not find each other: {error}. Can every host reach --master-addr and "
              "--master-port, and was the same --nnodes given on all of them?", file=sys.stderr)  # fmt: skip
        return 6
    return 0


def _children() -> list[int]:
    """The processes that this one started and that still run."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        found += [int(child) for child in (task / "children").read_text(encoding="ascii").split()]
    return found


def _local(arguments: list[str]) -> int:
    """The number of processes on this host, if the arguments give it as a number; else 0."""
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name in ("--nproc_per_node", "--nproc-per-node") and value.isdigit():
            return int(value)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
