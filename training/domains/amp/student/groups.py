"""The groups of parameters that the optimizer treats differently."""

from __future__ import annotations

from typing import Any

from torch import nn

from training.domains.amp.student.config import AmpSettings
from training.domains.amp.student.pair import Pair

TYPICAL = 0.3  # root mean square of a tensor whose rate `rates.relative` does not change


def parameter_groups(model: Pair, settings: AmpSettings) -> list[dict[str, Any]]:
    """A group for each trained tensor, with its own rate (rates.input, rates.relative); weight decay on matrices."""
    groups, rates, optim = [], settings.rates, settings.optim
    for student in model.students:
        of_input = {id(parameter) for parameter in input_weights(student)}
        for parameter in student.parameters():
            if not parameter.requires_grad:
                continue
            factor = rates.input if id(parameter) in of_input else 1.0
            size = float(parameter.detach().double().square().mean().sqrt())
            factor *= (max(size, 1e-3) / TYPICAL) ** rates.relative
            decay = optim.weight_decay if parameter.ndim >= 2 else 0.0
            groups.append({"params": [parameter], "lr": factor * optim.lr, "weight_decay": decay})
    return groups


def input_weights(network: nn.Module) -> list[nn.Parameter]:
    """The weights that multiply the sound itself: those into which an input gain can be folded."""
    core = getattr(network, "core", None)
    if core is not None:  # an LSTM
        return [core.weight_ih_l0]
    first, *_ = network.arrays
    mixers = [layer.mixer.weight for array in network.arrays for layer in array.layers]
    return [first.rechannel.weight, *mixers]
