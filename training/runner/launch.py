"""torchrun, with the exit codes of what it runs:
`python -m training.runner.launch --nproc_per_node=4 -m training train ...`

torch.distributed.run ends with 1 whatever its processes end with, and when it is asked to stop it leaves with a
traceback while they are still saving. Here a request to stop is passed on to them, they are waited for, and the exit
code is theirs: 75 when everything is saved.
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

    asked: list[int] = []

    def pass_on(number: int, _frame: object) -> None:
        asked.append(number)
        children = _children()
        for child in children:
            os.kill(child, number)
        if not children:  # the other nodes are still awaited
            raise SystemExit(STOPPED)

    keep_console()
    install_handlers(pass_on)
    follow_parent()
    os.environ.update(as_parent())  # to the ranks, which stop when this process alone is killed
    try:
        # SIGQUIT alone stays torchrun's own
        run.run(run.parse_args(["--signals-to-handle=SIGQUIT", *arguments]))
    except ChildFailedError as error:
        codes = [failure.exitcode for failure in error.failures.values()]
        if STOPPED in codes and asked:
            return STOPPED
        _, first = error.get_first_failure()
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode
    except RendezvousError as error:
        print(f"error: the hosts did not find each other: {error}. Are --master-addr and --master-port reached from "
              "every host, and was the same --nnodes given?", file=sys.stderr)  # fmt: skip
        return 6
    return 0


def _children() -> list[int]:
    """The processes that this one started and that still run."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        found += [int(child) for child in (task / "children").read_text(encoding="ascii").split()]
    return found


def _local(arguments: list[str]) -> int:
    """Processes on this host, where a number says so; else 0."""
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name in ("--nproc_per_node", "--nproc-per-node") and value.isdigit():
            return int(value)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
