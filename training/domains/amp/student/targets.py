"""What a student is to answer: the teacher's answer without aliases."""

from __future__ import annotations

import torch
from torch.nn import functional

from training.domains.amp.networks.network import Network
from training.domains.amp.signal.running import oversampled
from training.domains.amp.signal.tones import without_aliases
from training.domains.amp.student.material import EDGE, Shape

KEPT = 1 << 30  # bytes of answers to recordings that are kept


class Targets:
    """Makes the targets of one teacher. Those of recordings take `factor` passes, and are kept for the next epoch:
    each is computed alone, so that its bits do not depend on the batch that it is in."""

    def __init__(self, shape: Shape, factor: int):
        self.shape, self.factor = shape, factor
        self._kept: dict[tuple[int, int, int], torch.Tensor] = {}  # (network, split, part) -> [length]

    @torch.no_grad()
    def of(self, teacher: Network, which: int, x: torch.Tensor, batch: dict[str, torch.Tensor], split: int):
        """The targets of a batch, as `heard` orders it: float32 [B, length]. `which`: the network's number."""
        tones, length = len(batch["tone"]), self.shape.length
        out = []
        if tones:
            answer = teacher.training_pass(x[:tones])[:, -length:]
            out.append(without_aliases(answer.double(), batch["tone"][:, 0].long()).float())
        numbers = batch["number"].tolist()
        out += [self._of_part(teacher, (which, split, n), batch["sound"][at])[None] for at, n in enumerate(numbers)]
        return torch.cat(out)

    def _of_part(self, teacher: Network, key: tuple[int, int, int], sound: torch.Tensor) -> torch.Tensor:
        known = self._kept.get(key)
        if known is not None:
            return known
        answer = oversampled(lambda phases: _from_rest(teacher, phases), sound[None], self.factor)[0]
        target = answer[self.shape.lead : self.shape.complete - EDGE].clone()
        if (len(self._kept) + 1) * target.numel() * target.element_size() <= KEPT:
            self._kept[key] = target
        return target


def _from_rest(network: Network, x: torch.Tensor) -> torch.Tensor:
    """The answer [B, T] to sound [B, T] after silence."""
    if not network.receptive_field:
        return network.play(x)
    return network.training_pass(functional.pad(x, (network.receptive_field, 0)))
