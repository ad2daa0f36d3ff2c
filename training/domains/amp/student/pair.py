"""The trained model: a capture's networks, and the frozen originals beside them, which make the targets."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import nn

from training.domains.amp.captures import Capture
from training.domains.amp.networks.network import Network


class Pair(nn.Module):
    """`students` are trained, `teachers` are as in the file. Both have one network, or those of a container."""

    def __init__(self, capture: Capture):
        super().__init__()
        self.capture = capture
        self.teachers = nn.ModuleList(copy.deepcopy(network) for network in capture.networks)
        self.students = nn.ModuleList(copy.deepcopy(network) for network in capture.networks)
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
