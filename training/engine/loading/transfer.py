"""Between host and GPU, without either waiting for the other."""

from __future__ import annotations

import torch

from training.recipe import Batch


class OnDevice(dict[str, torch.Tensor]):
    """A batch on a device, and the one on the host that it was copied from: to count there waits for nothing."""

    def __init__(self, tensors: Batch, host: Batch):
        super().__init__(tensors)
        self.host = host


def on_host(batch: Batch) -> Batch:
    """The batch where reading a number out of it is free."""
    return batch.host if isinstance(batch, OnDevice) else batch


class Transfer:
    """Batches to a device. To a GPU on a stream of their own, so that they travel while the step before is computed."""

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


class Reading:
    """Numbers on their way to the host: `many` [n], then `one` []. To read them waits for the work that made them, and
    for none launched since: a plain `.tolist()` would wait for everything that the GPU has been given."""

    def __init__(self, many: torch.Tensor, one: torch.Tensor):
        self.numbers: list[float] = []
        if many.device.type == "cuda":
            values = torch.cat([many, one.to(many.dtype).reshape(1)])
            self.values = values.to("cpu", non_blocking=True)  # pinned, since it does not block
            self.arrived = torch.cuda.Event(blocking=True)  # sleeps, and leaves the core to the loader
            self.arrived.record()
        else:  # there already
            self.numbers = [*many.tolist(), one.item()]

    def tolist(self) -> list[float]:
        if not self.numbers:
            self.arrived.synchronize()
            self.numbers = self.values.tolist()
        return self.numbers
