"""An optimizer step of networks without a finite receptive field: truncated back-propagation through time.

The network settles without gradients. Then each window of the sequence gives an update, and the state is carried from
window to window without its gradient (as in arXiv 2505.04082, whose windows take 0.1 s).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from training.domains.amp.student.material import Shape
from training.domains.amp.student.objective import Criterion

if TYPE_CHECKING:
    from training.engine.step.step_context import StepContext


def step(
    context: StepContext, heard: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor], counts: Mapping[str, float],
    criterion: Criterion, shape: Shape, window: int,
) -> dict[str, tuple[torch.Tensor, float]]:  # fmt: skip
    """The updates of one global batch.

    heard: for each micro-batch float32 [B, before + length]; wanted: the targets of each network, [networks, B,
    length]. The number of updates depends on `shape` and `window` alone, so that it is the same on all ranks. Returns
    the terms of the loss, as means over windows and networks times the number of samples.
    """
    students = list(context.model.students)
    with torch.no_grad():
        states = [[student(x[:, : shape.before], student.start(len(x)))[1] for student in students] for x in heard]
    totals = {name: torch.zeros((), dtype=torch.float64, device=context.device) for name in counts}
    windows = windows_of(shape.length, window)
    for begin, end in windows:
        for number, (x, target) in enumerate(zip(heard, wanted, strict=True)):
            part = x[:, shape.before + begin : shape.before + end]
            for which, student in enumerate(students):
                y, state = student(part, states[number][which])
                states[number][which] = tuple(value.detach() for value in state)
                terms = criterion(y, criterion.reference(target[which, :, begin:end]))
                loss = context.objective(terms, counts)
                if loss is not None:
                    context.backward(loss)
                for name, term in terms.items():
                    totals[name] += term.total.detach().double() / (len(windows) * len(students))
        context.update()
    return {name: (total, counts[name]) for name, total in totals.items()}


def windows_of(length: int, window: int) -> list[tuple[int, int]]:
    """(begin, end) of the windows of a sequence; a remainder that is shorter than a window is left out."""
    window = min(window, length)
    return [(begin, begin + window) for begin in range(0, length - window + 1, window)]
