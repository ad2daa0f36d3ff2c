"""Saving in the background: training waits while its tensors are copied, and continues while they are written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from training.data.files import disk_errors, is_full
from training.engine.checkpoints import disk_space
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.engine.checkpoints.constants import are_large
from training.engine.checkpoints.index import INDEX
from training.errors import HostError


class Saver:
    """Checkpoints of one run, written by a separate thread.

    `keep`: how many `checkpoint_epoch_N.pt` are kept. `say`: logs a line. `saved`: called after each save by the thread
    that wrote it; must return at once. Only one save is in progress at a time, so saves keep their order, and there is
    only one copy of the state in memory, which the next save reuses.
    """

    def __init__(self, folder: Path, keep: int, say: Callable[[str], None], saved: Callable[[], None] = lambda: None):
        self.folder, self.keep, self.say, self.saved = folder, keep, say, saved
        self.checkpoints = CheckpointFolder(folder)
        self._copy = Snapshot(say)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="saver")
        self._running: Future[None] | None = None
        self._growth = 0  # bytes by which later checkpoints will be larger than the newest
        self._disk = 0  # the device that the folder is on, once something was saved to it

    def save(self, content: Mapping[str, Any], entry: Mapping[str, Any], names: Sequence[str], *, wait: bool) -> None:
        """Save `content` as `last.pt` and under the further `names`. With `wait` it is on the disk on return; otherwise
        it has only been copied. `entry`: as in CheckpointFolder.save.

        Waits for the save before it. Raises HostError if that failed (nothing is saved then), and with `wait` if this
        one fails.
        """
        self.finish()
        self._growth = disk_space.still_to_come(content)
        constants = content.get("constants") or {}
        if are_large(constants):  # they never change, and are recognised by identity: see StoredOnce
            copied = {**self._copy.take({**content, "constants": {}}), "constants": constants}
        else:
            copied = self._copy.take(content)
        self._running = self._thread.submit(self._write, copied, dict(entry), list(names))
        if wait:
            self.finish()

    @property
    def failed(self) -> bool:
        """Whether a background save has failed and its error has not been raised yet. Cheap enough for every step."""
        work = self._running
        return work is not None and work.done() and work.exception() is not None

    @property
    def busy(self) -> bool:
        """Whether a save is in progress."""
        return self._running is not None and not self._running.done()

    def finish(self) -> None:
        """Wait for the save in progress. Raises its error, once."""
        if self._running is None:
            return
        try:
            self._running.result()
        finally:  # an exception of a signal handler may end the wait while the copy is still being written
            if self._running.done():
                self._running = None

    def require_space(self, exports: int) -> None:
        """Raise HostError if the disk cannot hold all checkpoints of the run and `exports` bytes more. To be called
        after the first save, when the size of a checkpoint is known."""
        disk_space.require_space(self.folder, self.keep, self._growth, exports)

    def __enter__(self) -> Saver:
        # Start the thread now. If a signal handler raised while the pool starts it at the first save, the pool would
        # not have registered the thread, and `shutdown` would not wait for what it writes.
        self._thread.submit(int).result()
        return self

    def __exit__(self, kind: type | None, *error: object) -> None:
        """Wait for the thread, however the block ends: another process may use the folder next."""
        try:
            self.finish()
        except HostError as failed:
            if kind is None:
                raise
            self.say(str(failed))  # printed beside the error that is being raised
        finally:
            self._thread.shutdown()

    def _write(self, content: Mapping[str, Any], entry: Mapping[str, Any], names: Sequence[str]) -> None:
        self._copy.arrived()
        self._require_folder()
        self._making_room(lambda: self.checkpoints.save(content, entry, names))
        with disk_errors(self.folder):
            self._disk = self.folder.stat().st_dev
        self._making_room(lambda: self.checkpoints.apply_retention(self.keep))
        self.saved()

    def _making_room(self, work: Callable[[], object]) -> None:
        """Do `work`; as long as the disk is full, delete an old checkpoint and repeat it."""
        while True:
            try:
                work()
                return
            except HostError as error:
                gone = self.checkpoints.evict() if is_full(error.__cause__) else None
                if gone is None:
                    raise
                self.say(f"The disk is full: {gone} was deleted to make room for the newest checkpoint.")

    def _require_folder(self) -> None:
        """Raise HostError if the folder of earlier saves is gone. It is not created again: if its drive was detached,
        the checkpoint would be written to another disk."""
        try:
            same = self.folder.stat().st_dev == self._disk and (self.folder / INDEX).exists()
        except OSError:
            same = False
        if self._disk and not same:
            raise HostError(
                f"Could not save a checkpoint: {self.folder}, with all that was saved there, has disappeared (a drive "
                "that was detached, a folder that was moved or deleted). Bring it back, and run the same command again."
            )


class Snapshot:
    """Copies nested state to CPU memory, so that training can change the original. The next copy reuses the memory.

    From a GPU the tensors are copied to pinned memory, on the stream that trains: later changes of the weights are
    queued after the copies, so no thread has to wait. `arrived` waits until the copies are complete. This path has not
    been run on a GPU yet.
    """

    def __init__(self, say: Callable[[str], None]):
        self._say = say
        self._spare: list[torch.Tensor] = []  # the tensors of the last copy, in traversal order
        self._pin = True
        self._events: list[torch.cuda.Event] = []

    def take(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """`content` with new containers, and every tensor copied to the CPU. A tensor that occurs twice (tied weights,
        buffers in `model` and `ema`) is copied once."""
        copies: dict[tuple[Any, ...], torch.Tensor] = {}
        spare, self._spare, devices = deque(self._spare), [], set()

        def copy(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                key = (value.device, value.data_ptr(), value.dtype, value.shape, value.stride())
                if key not in copies or not value.numel():
                    copies[key] = self._buffer_for(value, spare.popleft() if spare else None)
                    copies[key].copy_(value, non_blocking=value.is_cuda)
                    self._spare.append(copies[key])
                    if value.is_cuda:
                        devices.add(value.device)
                return copies[key]
            if isinstance(value, Mapping):
                return {key: copy(inner) for key, inner in value.items()}
            if isinstance(value, list | tuple):
                return type(value)(copy(inner) for inner in value)
            return value  # numbers, text, None: what weights_only=True loads

        with torch.no_grad():
            snapshot = copy(content)
        self._events = [torch.cuda.current_stream(device).record_event() for device in devices]
        return snapshot

    def arrived(self) -> None:
        """Wait until every queued copy is complete."""
        for event in self._events:
            event.synchronize()

    def _buffer_for(self, value: torch.Tensor, spare: torch.Tensor | None) -> torch.Tensor:
        """A CPU tensor to copy `value` into: `spare` if its shape and dtype fit."""
        pin = value.is_cuda and self._pin and value.numel() > 0
        fits = spare is not None and spare.shape == value.shape and spare.dtype == value.dtype
        if fits and (not pin or spare.is_pinned()):
            return spare
        if pin:
            try:
                return torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
            except RuntimeError as error:  # a host that lets little memory be pinned (WSL 2)
                self._pin = False
                self._say(f"Checkpoints are copied through pageable memory, which is slower: pinning failed ({error}).")
        return torch.empty(value.shape, dtype=value.dtype)
