"""The interface of a capture's network: sound in, sound out, in blocks of any length."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

State = tuple[Tensor, ...]


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread: those of small networks gain little from several, and where other processes use the
    host, each of their many short operations would wait for the last thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Network(nn.Module, ABC):
    """A network that turns the sound of a guitar into that of an amplifier; full scale is 1."""

    sample_rate: int  # Hz, of the sound that it was trained with
    receptive_field: int  # samples before the current one that an output depends on; 0: a recurrence, without a limit

    @abstractmethod
    def start(self, batch: int) -> State:
        """The state at rest: after silence. Each tensor has the batch as its first axis."""

    @abstractmethod
    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x [batch, time] -> (y [batch, time], the state after it). Blocks of any lengths, with the state carried, give
        the same output as one call."""

    @abstractmethod
    def valid(self, x: Tensor) -> Tensor:
        """x [batch, receptive_field + time] -> y [batch, time], without a state: every output has its complete context
        in x. A recurrence starts at rest."""

    def training_pass(self, x: Tensor) -> Tensor:
        """The same as `valid` up to rounding, in the quickest way that is known for the network's size."""
        return self.valid(x)

    def play(self, x: Tensor, block: int = 1 << 16) -> Tensor:
        """x [batch, time] -> y [batch, time], from rest, in blocks that bound the memory."""
        state, parts = self.start(len(x)), []
        for part in x.split(block, dim=1):
            y, state = self(part, state)
            parts.append(y)
        return torch.cat(parts, dim=1)

    def rest(self) -> None:
        """Compute the state at rest again, after the weights have changed, where it is kept and not computed."""

    @abstractmethod
    def filed(self) -> Iterator[Tensor]:
        """The parameters in the order in which a .nam file has them."""
