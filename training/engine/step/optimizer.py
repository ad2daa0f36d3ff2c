"""torch's AdamW, without torch's compiler."""

from __future__ import annotations

from inspect import unwrap

import torch


class AdamW(torch.optim.AdamW):
    """`torch.optim.AdamW`, to the bit, and with the same state.

    torch wraps each of these methods so that torch.compile skips it, and the wrapper imports the compiler: a second at
    every start, also where nothing is compiled. No optimizer step is compiled here, so the methods are unwrapped.
    """

    add_param_group = unwrap(torch.optim.AdamW.add_param_group)
    load_state_dict = unwrap(torch.optim.AdamW.load_state_dict)
    state_dict = unwrap(torch.optim.AdamW.state_dict)
    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))
    zero_grad = unwrap(torch.optim.AdamW.zero_grad)
