"""A process that makes batches, and the memory in which they travel.

A batch travels in a file without a name (memfd), whose descriptor goes through a socket. So nothing is left behind in
/dev/shm however a process ends, its size does not matter (a container's 64 MB), and each process has a socket of
its own: one that is killed or stopped in the middle of a message harms no other.
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
_prctl = getattr(ctypes.CDLL(None), "prctl", None)  # Linux; looked up before a fork, which may happen amid threads
_PDEATHSIG, _NAME = 1, 15
_REAP_SECONDS = 5.0  # a killed process that is stuck in the kernel (a dead network drive) is not waited for longer


class WorkerLost(Exception):
    """A worker died, or shows no sign of life; the text says which, for people."""


class Worker:
    """This process's side of one worker. Batches come back in the order of the requested micro-batches."""

    def __init__(self, dataset: Dataset, others: Sequence[Worker]):
        parent = os.getpid()
        self.socket, theirs = socket.socketpair()
        self._status: int | None = None
        # A signal's handler of ours must not run in the child, between its birth and its own settings.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        try:
            self.pid = os.fork()
            if self.pid == 0:
                _serve(dataset, theirs, [self.socket, *(other.socket for other in others)], parent, before)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def request(self, micro_batch: MicroBatch) -> None:
        """Have a batch made. Raises WorkerLost."""
        try:
            self.socket.settimeout(None)
            _send(self.socket, micro_batch)
        except ConnectionError:
            raise WorkerLost(self._end()) from None

    def receive(self, seconds: float) -> Batch | None:
        """The next batch; None if it is not there within `seconds`. Raises WorkerLost, and whatever making it raised."""
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
        """What changes while the process works: processor time, page faults, how often it fell asleep. The first is
        its state (T: stopped). All empty where the system does not tell."""
        try:
            # After the name, which is in parentheses and may hold anything.
            stat = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return ("",)
        switches = [line for line in status.splitlines() if "ctxt_switches" in line]
        return (stat[0], stat[7], stat[9], stat[11], stat[12], *switches)

    def kill(self) -> None:
        """Kill it: it holds nothing that needs a clean shutdown, and a stopped process reacts to nothing else."""
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
            except ChildProcessError:  # somebody else has waited for it
                pid, status = self.pid, 0
            if pid:
                self._status = status
        return self._status is None

    def _end(self) -> str:
        self.reap()  # its socket closes a moment before it can be waited for
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
    """The life of a worker: batches until its socket closes."""
    code = 1
    try:
        # Ctrl-C, `timeout` and a closed terminal reach the entire process group: the step under way needs its loader.
        for number in STOPS:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if _prctl is not None:
            _prctl(_NAME, b"loader")
            _prctl(_PDEATHSIG, signal.SIGKILL)
        for other in inherited:  # the socket closes with the parent, not with the last of its children
            other.close()
        gc.freeze()  # what was inherited is never looked at by the collector: its pages stay shared
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
    except Exception as error:  # noqa: BLE001  raised where the batch is wanted
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


# -- what travels --------------------------------------------------------------------------------------------------


def _send(channel: socket.socket, listing: Any, parts: Iterable[Any] = ()) -> None:
    """A file of: the length of the pickled `listing`, the listing, from the next multiple of ALIGN on the `parts`."""
    head = pickle.dumps(listing)
    with open(os.memfd_create("batch"), "wb") as file:  # noqa: PTH123
        file.write(_LENGTH.pack(len(head)) + head + bytes(-(_LENGTH.size + len(head)) % ALIGN))
        for part in parts:
            file.write(part)
        file.flush()
        socket.send_fds(channel, [b"."], [file.fileno()])


def _receive(channel: socket.socket) -> tuple[Any, memoryview] | None:
    """The listing, and the parts one after the other; None where the other side has closed."""
    message, handles, _, _ = socket.recv_fds(channel, 1, 1)
    if not message:
        return None
    if not handles:
        raise HostError("Too many open files to take a batch from a data loader worker: raise the limit (ulimit -n).")
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
    """Views into `memory`, which is given back with the last of them."""
    batch = {}
    for name, dtype, shape, offset in listing:
        count = torch.Size(shape).numel()
        flat = torch.frombuffer(memory, dtype=dtype, count=count, offset=offset) if count else torch.empty(0)
        batch[name] = flat.to(dtype).reshape(shape)
    return batch
