"""The trained model: a capture's networks, and the frozen originals beside them, which make the targets."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import nn

from training.domains.amp.captures import Capture
from training.domains.amp.networks.network import Network
from training.domains.amp.student.smaller import smaller


class Pair(nn.Module):
    """`students` are trained, `teachers` are as in the file. Both have one network, or those of a container.

    `original`: the capture as given. `capture`: what the students' file is written from: the same, or (`nano`) one of a
    smaller architecture.
    """

    def __init__(self, capture: Capture, nano: bool = False):
        super().__init__()
        self.teachers = nn.ModuleList(copy.deepcopy(network) for network in capture.networks)
        self.original = capture
        self.capture, first = smaller(capture) if nano else (capture, capture.networks)
        self.students = nn.ModuleList(copy.deepcopy(network) for network in first)
        self.teachers.requires_grad_(False)

    def both(self) -> Iterator[tuple[Network, Network]]:
        """(student, teacher), the smallest first."""
        return zip(self.students, self.teachers, strict=True)

    @property
    def sample_rate(self) -> int:
        return self.capture.sample_rate

    @property
    def recurrent(self) -> bool:
        return self.teachers[0].receptive_field == 0

    @torch.no_grad()
    def rest(self) -> Pair:
        """Set the students' state at rest to what silence leaves, where a file holds it."""
        for student in self.students:
            student.rest()
        return self
