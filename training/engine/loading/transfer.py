"""Asynchronous copies between host and GPU: neither waits for the other."""

from __future__ import annotations

import torch

from training.recipe import Batch


class OnDevice(dict[str, torch.Tensor]):
    """A batch on a device, with its original in host memory (`host`), whose values can be read without a wait."""

    def __init__(self, tensors: Batch, host: Batch):
        super().__init__(tensors)
        self.host = host


def on_host(batch: Batch) -> Batch:
    """The original of `batch` in host memory, or `batch` itself if it was not moved: reading it waits for no GPU."""
    return batch.host if isinstance(batch, OnDevice) else batch


class Transfer:
    """Copies batches to a device. To a GPU on a separate stream, so that a copy overlaps with the step before it."""

    def __init__(self, device: torch.device):
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, batch: Batch) -> Batch:
        if self.device.type == "cpu":
            return batch
        if self.stream is None:
            return OnDevice({key: value.to(self.device) for key, value in batch.items()}, batch)
        # only pinned memory is copied while the GPU and this process continue
        batch = {key: value.pin_memory() for key, value in batch.items()}
        with torch.cuda.stream(self.stream):
            moved = OnDevice({key: value.to(self.device, non_blocking=True) for key, value in batch.items()}, batch)
        computing = torch.cuda.current_stream(self.device)
        computing.wait_stream(self.stream)
        for value in moved.values():
            value.record_stream(computing)
        return moved


class PendingValues:
    """Numbers that are being copied to the host: `vector` [n], then `scalar` []. `tolist` waits for the kernels that
    compute them and for none launched later; a plain `.tolist()` would wait for everything in the GPU's queue."""

    def __init__(self, vector: torch.Tensor, scalar: torch.Tensor):
        self.numbers: list[float] = []
        if vector.device.type == "cuda":
            values = torch.cat([vector, scalar.to(vector.dtype).reshape(1)])
            self.values = values.to("cpu", non_blocking=True)  # into pinned memory, as it is non-blocking
            self.arrived = torch.cuda.Event(blocking=True)  # waits asleep: the core is free for the data loader
            self.arrived.record()
        else:  # in host memory already
            self.numbers = [*vector.tolist(), scalar.item()]

    def tolist(self) -> list[float]:
        if not self.numbers:
            self.arrived.synchronize()
            self.numbers = self.values.tolist()
        return self.numbers
