"""How many threads a process computes with, and how they wait for each other. Uses the standard library only.

OpenMP (torch, scikit-learn) and OpenBLAS (numpy, scipy) read the environment once, when they are loaded, and then start
a thread for every CPU that the host shows. A container may often use only a few of these (`host.available_cpus`). Their
threads also spin while they wait: on a shared host, each occupies the CPU that the thread needs for which it waits, and
a stage of one minute takes ten. So every entry point calls `configure` before these libraries are imported, and code
that sets a number of threads or processes later gets it from this module. Values that the user has set are kept.
"""

from __future__ import annotations

import os

from training.host import available_cpus

THREADS = "OMP_NUM_THREADS"
#: The value that `configure` set OMP_NUM_THREADS to. If both are equal in a child process, the user set neither.
CONFIGURED = "ATHANOR_OMP_THREADS"
#: How many processes of one command run at once on this host, and share its CPUs.
AT_ONCE = "ATHANOR_AT_ONCE"

#: How often a waiting thread of libgomp checks for the others before it sleeps; libgomp's default is 300,000.
#: docs/performance.md has measurements. Other OpenMP runtimes use OMP_WAIT_POLICY only.
SPINS = "1000"
WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": SPINS}
#: The logarithm of the cycles for which a thread of OpenBLAS spins before it sleeps: some 0.03 ms. Its default is 26.
BLAS_SPINNING = {"OPENBLAS_THREAD_TIMEOUT": "16"}


def configure(ranks: int | None = None) -> None:
    """Set, for this process and those that it starts, what OpenMP, OpenBLAS and torch's compiler read from the
    environment. Call it before numpy or torch is imported: afterwards it has no effect on this process. `ranks`: how
    many ranks this process is about to start on this host."""
    environment = os.environ
    if chosen() is None:
        environment[THREADS] = environment[CONFIGURED] = str(share(ranks))
    if not any(name in environment for name in WAITING):
        environment.update(WAITING)
    for name, value in BLAS_SPINNING.items():
        environment.setdefault(name, value)
    # One process each; torch takes as many as the host shows, up to 32.
    environment.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(min(32, share())))


def sharing(processes: int) -> dict[str, str]:
    """Environment variables for child processes, of which `processes` run at once: each takes its share of the CPUs."""
    return {AT_ONCE: str(processes * _number(os.environ.get(AT_ONCE)))}


def share(ranks: int | None = None) -> int:
    """The number of CPUs for this process: those available, divided among torchrun's ranks on this host (default: as
    the environment gives them) and among processes that one command runs at once; at least 1."""
    ranks = ranks or _number(os.environ.get("LOCAL_WORLD_SIZE"))
    return max(1, available_cpus() // (ranks * _number(os.environ.get(AT_ONCE))))


def chosen() -> int | None:
    """The number of threads that the user has set with OMP_NUM_THREADS; None where it is not set, or by `configure`."""
    value = os.environ.get(THREADS)
    if value is None or value == os.environ.get(CONFIGURED):
        return None
    return _number(value.partition(",")[0])  # more than one number: one for each level of nesting


def count(workers: int = 0) -> int:
    """The number of threads to compute with. If there are data loader workers, one CPU is left to them."""
    return chosen() or max(1, share() - min(1, workers))


def _number(text: str | None) -> int:
    """A whole number from 1 on; 1 where the variable is not set or holds something else."""
    return max(1, int(text)) if text is not None and text.strip().isdigit() else 1
