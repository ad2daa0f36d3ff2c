"""Which position of a bundle sees which, and the three ways to compute it.

"split": the prefix alone, then all questions as a batch, each with the prefix and itself as keys; by PyTorch's
scaled_dot_product_attention. "dense": the same with a mask of every pair of positions, most of which see nothing of
each other. "flex": flex_attention (PyTorch, Dong et al. 2024), which leaves out the blocks of pairs that no question
sees, and holds no mask. Compiled, it has given wrong results without an error (pytorch issues 158212 and 186775), so
that its first step is compared with the dense one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from training.domains.sql.text_to_sql.data import PADDING

#: The attention under which models are built: of sdpa, but for a BlockMask, or where `bundles` are given.
BUNDLES = "athanor_bundles"
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 0.005, 0.05  # relative; bfloat16 rounds by 0.004


@dataclass(frozen=True)
class Bundle:
    """Where the parts of one sequence are."""

    prefix: int  # tokens that all questions share, at the beginning
    places: torch.Tensor  # of every question's tokens, int64 [questions, longest]; repeats its last one as padding
    real: torch.Tensor  # which of them are no padding, bool [questions, longest]
    seen: torch.Tensor  # which key a token sees, bool [longest, prefix + longest]: prefix, and itself up to itself


def bundles_of(segments: torch.Tensor) -> list[Bundle]:
    """The parts of each sequence; `segments` [batch, t] as of data.py."""
    found = []
    for row in segments.cpu():
        prefix, lengths = int((row == 0).sum()), row[row > 0].bincount()[1:]
        longest = int(lengths.max())
        at = torch.arange(longest)
        starts = prefix + lengths.cumsum(0) - lengths
        places = starts[:, None] + torch.minimum(at, lengths[:, None] - 1)
        seen = torch.cat([torch.ones(longest, prefix, dtype=torch.bool), at[:, None] >= at], 1)
        parts = (places, at < lengths[:, None], seen)
        found.append(Bundle(prefix, *(part.to(segments.device) for part in parts)))
    return found


def _split(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bundles: Sequence[Bundle], scaling: float | None
) -> torch.Tensor:
    """The attention of `attend`; what padding sees is 0."""
    grouped = query.shape[1] != key.shape[1]
    out = query.new_zeros(query.shape[0], query.shape[2], query.shape[1], value.shape[3])
    for number, bundle in enumerate(bundles):
        parts, count = (query[number], key[number], value[number]), len(bundle.places)
        shared = [part[None, :, : bundle.prefix] for part in parts]
        own = [part[:, bundle.places].transpose(0, 1) for part in parts]  # [questions, heads, longest, width]
        keys, values = (
            torch.cat([every.expand(count, -1, -1, -1), each], 2)
            for every, each in zip(shared[1:], own[1:], strict=True)
        )
        first = scaled_dot_product_attention(*shared, is_causal=True, scale=scaling, enable_gqa=grouped)
        rest = scaled_dot_product_attention(own[0], keys, values, bundle.seen, scale=scaling, enable_gqa=grouped)
        out[number, : bundle.prefix] = first[0].transpose(0, 1)
        out[number, bundle.places[bundle.real]] = rest.transpose(1, 2)[bundle.real]
    return out


def block_mask(segments: torch.Tensor) -> BlockMask:
    """attention_mask of data.py, for flex_attention. `segments` [batch, t]. (Padding sees padding before it, too.)"""

    def sees(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        own, other = segments[batch, query], segments[batch, key]
        return (key <= query) & ((other == own) | ((other == 0) & (own != PADDING)))

    batch, length = segments.shape
    return create_block_mask(sees, batch, None, length, length, device=segments.device)


def trains_on(device: torch.device) -> bool:
    """Whether flex_attention has gradients on `device`: it has none on CPUs (torch 2.13)."""
    return device.type == "cuda"


_compiled: list[Callable[..., Any]] = []


def _flex(device: torch.device) -> Callable[..., Any]:
    """flex_attention, compiled: it is slower than the dense way otherwise."""
    if device.type != "cuda":
        return flex_attention
    if not _compiled:
        _compiled.append(torch.compile(flex_attention, dynamic=True))
    return _compiled[0]


def attend(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any,
    scaling: float | None = None, bundles: Sequence[Bundle] | None = None, **options: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Attention in the form in which transformers calls it: query [batch, heads, t, width], key and value with as many
    heads or fewer -> [batch, t, heads, width]. With `bundles`, `attention_mask` is not looked at."""
    if bundles is not None:
        return _split(query, key, value, bundles, scaling), None
    if not isinstance(attention_mask, BlockMask):
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    grouped = query.shape[1] != key.shape[1]
    out = _flex(query.device)(query, key, value, block_mask=attention_mask, scale=scaling, enable_gqa=grouped)
    return out.transpose(1, 2).contiguous(), None


ALL_ATTENTION_FUNCTIONS.register(BUNDLES, attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(BUNDLES, sdpa_mask)  # of what is generated


def disagreement(ways: Sequence[Callable[[], torch.Tensor]], parameters: Sequence[torch.Tensor]) -> str | None:
    """Whether two computations of one loss (scalar) agree, and their gradients for `parameters`; None if they do, else
    the figures. Random numbers (dropout) are the same in both, and as before afterwards."""
    found = []
    devices = [parameters[0].device] if parameters[0].is_cuda else []
    for way in ways:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(0)
            loss = way()
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        found.append((float(loss.detach()), torch.cat([gradient.float().flatten() for gradient in gradients])))
    (first, slopes), (second, others) = found
    loss = abs(second - first) / max(abs(first), 1e-12)
    gradient = float((others - slopes).norm() / slopes.norm().clamp_min(1e-12))
    # a comparison with NaN is false
    if loss <= LOSS_TOLERANCE and gradient <= GRADIENT_TOLERANCE:
        return None
    return f"the loss differs by {loss:.1%}, the gradients by {gradient:.1%}"
