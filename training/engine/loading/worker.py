"""A data loader worker process, and the shared memory through which it sends batches.

A batch is written to an anonymous file (memfd), whose descriptor is sent over a socket. So nothing is left in /dev/shm
however a process ends, and the size of /dev/shm (64 MB in a container) is no limit. Each worker has a separate socket:
one that is killed or stopped in the middle of a message does not affect the others.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import pickle
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import torch

from training.engine.loading.batches import MicroBatch
from training.engine.process.signals import STOPS
from training.errors import HostError
from training.recipe import Batch, Dataset

ALIGN = 64  # bytes
_LENGTH = struct.Struct("<Q")
# Linux. Looked up before any fork: in the child, a lock that another thread held stays locked.
_prctl = getattr(ctypes.CDLL(None), "prctl", None)
_PDEATHSIG, _NAME = 1, 15
_REAP_SECONDS = 5.0  # the longest wait for a killed process, which may be stuck in the kernel (a dead network drive)


class WorkerLost(Exception):
    """A worker ended, or hangs; the text is the message to print."""


class Worker:
    """One worker, as seen by the training process. Batches are received in the order in which they were requested."""

    def __init__(self, dataset: Dataset, others: Sequence[Worker]):
        parent = os.getpid()
        self.socket, theirs = socket.socketpair()
        self._status: int | None = None
        # Until the child has set its own handlers, the signal handlers inherited from this process must not run in it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        try:
            self.pid = os.fork()
            if self.pid == 0:
                _serve(dataset, theirs, [self.socket, *(other.socket for other in others)], parent, before)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def request(self, micro_batch: MicroBatch) -> None:
        """Request the batch of `micro_batch`. Raises WorkerLost."""
        try:
            self.socket.settimeout(None)
            _send(self.socket, micro_batch)
        except ConnectionError:
            raise WorkerLost(self._end()) from None

    def receive(self, seconds: float) -> Batch | None:
        """The next batch; None if it is not there within `seconds`. Raises WorkerLost, and any error of the
        dataset."""
        self.socket.settimeout(seconds)
        try:
            content = _receive(self.socket)
        except TimeoutError:
            return None
        except ConnectionError:
            content = None
        if content is None:
            raise WorkerLost(self._end())
        listing, memory = content
        if isinstance(listing, Exception):
            raise listing
        return _unpacked(listing, memory)

    def activity(self) -> tuple[str, ...]:
        """The state of the process (T: stopped), then counters that change while it works: processor time, page faults,
        context switches. `("",)` where /proc cannot be read."""
        try:
            # After the name, which is in parentheses and may hold anything.
            stat = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return ("",)
        switches = [line for line in status.splitlines() if "ctxt_switches" in line]
        return (stat[0], stat[7], stat[9], stat[11], stat[12], *switches)

    def kill(self) -> None:
        """Send SIGKILL: a worker needs no clean shutdown, and a stopped process reacts to no other signal."""
        if self._alive():
            os.kill(self.pid, signal.SIGKILL)
        self.socket.close()

    def reap(self) -> None:
        """Wait until the killed process is gone."""
        until = time.monotonic() + _REAP_SECONDS
        while self._alive() and time.monotonic() < until:
            time.sleep(0.001)

    def _alive(self) -> bool:
        if self._status is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # another part of this process has waited for it
                pid, status = self.pid, 0
            if pid:
                self._status = status
        return self._status is None

    def _end(self) -> str:
        self.reap()  # its socket closes shortly before the process can be reaped
        code = os.waitstatus_to_exitcode(self._status) if self._status is not None else 0
        if code == -signal.SIGKILL:
            return f"data loader worker {self.pid} was killed (SIGKILL; the system does that when memory runs out)"
        if code < 0:
            return f"data loader worker {self.pid} crashed ({signal.Signals(-code).name})"
        return f"data loader worker {self.pid} ended (exit code {code})"


# -- in the worker -------------------------------------------------------------------------------------------------


def _serve(
    dataset: Dataset, channel: socket.socket, inherited: Sequence[socket.socket], parent: int, mask: set[int]
) -> NoReturn:
    """The main loop of a worker: answer requests until the socket closes."""
    code = 1
    try:
        # Ctrl-C, `timeout` and a closed terminal signal the entire process group, and the training process still needs
        # batches to finish its step: a worker ignores these signals, and ends with its parent.
        for number in STOPS:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if _prctl is not None:
            _prctl(_NAME, b"loader")
            _prctl(_PDEATHSIG, signal.SIGKILL)
        for other in inherited:  # else a socket would stay open after the parent has gone, as long as a sibling lives
            other.close()
        gc.freeze()  # the collector would write to inherited objects, and so copy the pages shared with the parent
        torch.set_num_threads(1)
        while os.getppid() == parent and (content := _receive(channel)) is not None:
            _send(channel, *_made(dataset, content[0]))
        code = 0
    except ConnectionError:
        code = 0  # the parent is gone
    except BaseException:  # noqa: BLE001  reported, then the process ends with its exit code
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)


def _made(dataset: Dataset, micro_batch: MicroBatch) -> tuple[Any, list[Any]]:
    try:
        return _packed(dataset.collate([dataset.item(micro_batch.epoch, index) for index in micro_batch.indices]))
    except Exception as error:  # noqa: BLE001  raised in the training process
        error.add_note(f"In a data loader worker, {micro_batch}:\n{traceback.format_exc()}")
        return _picklable(error), []


def _picklable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  an error may hold anything
        plain = RuntimeError(f"{type(error).__name__}: {error}")
        plain.__notes__ = error.__notes__
        return plain
    return error


# -- messages ------------------------------------------------------------------------------------------------------


def _send(channel: socket.socket, listing: Any, parts: Iterable[Any] = ()) -> None:
    """Send a memory file: the length of the pickled `listing`, the listing, and `parts` from the next multiple of ALIGN
    on."""
    head = pickle.dumps(listing)
    with open(os.memfd_create("batch"), "wb") as file:  # noqa: PTH123
        file.write(_LENGTH.pack(len(head)) + head + bytes(-(_LENGTH.size + len(head)) % ALIGN))
        for part in parts:
            file.write(part)
        file.flush()
        socket.send_fds(channel, [b"."], [file.fileno()])


def _receive(channel: socket.socket) -> tuple[Any, memoryview] | None:
    """The listing, and the memory of all parts; None where the other side has closed. Raises HostError."""
    message, handles, _, _ = socket.recv_fds(channel, 1, 1)
    if not message:
        return None
    if not handles:
        raise HostError("Too many open files to receive a batch of a data loader worker: raise the limit (ulimit -n).")
    try:
        memory = memoryview(mmap.mmap(handles[0], 0))
    finally:
        os.close(handles[0])
    end = _LENGTH.size + _LENGTH.unpack_from(memory)[0]
    return pickle.loads(memory[_LENGTH.size : end]), memory[end + -end % ALIGN :]


def _packed(batch: Batch) -> tuple[list[Any], list[Any]]:
    """(name, dtype, shape, offset in bytes) of every tensor; their bytes, each from a multiple of ALIGN."""
    listing, parts, at = [], [], 0
    for name, tensor in batch.items():
        data = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        padding = bytes(-data.nbytes % ALIGN)
        listing.append((name, tensor.dtype, tuple(tensor.shape), at))
        parts += [data.data, padding]
        at += data.nbytes + len(padding)
    return listing, parts


def _unpacked(listing: list[Any], memory: memoryview) -> Batch:
    """Tensors that are views of `memory`, which is freed with the last of them."""
    batch = {}
    for name, dtype, shape, offset in listing:
        count = torch.Size(shape).numel()
        flat = torch.frombuffer(memory, dtype=dtype, count=count, offset=offset) if count else torch.empty(0)
        batch[name] = flat.to(dtype).reshape(shape)
    return batch
