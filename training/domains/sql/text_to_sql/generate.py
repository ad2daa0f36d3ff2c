"""Greedy answers of a language model to many prompts. What prompts share (the schema) is computed once.

Prompts are grouped by their first tokens; the keys and values of the shared prefix are computed once and repeated. The
rests of the prompts, padded on the right, follow them in the cache. Then groups are put together, with padding again,
and answered as one batch: a step takes nearly as long for a few answers as for many. Every prompt has its own positions
and sees nothing of the padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from training.domains.sql.prompting.tokens import common_prefix


@dataclass(frozen=True)
class Answer:
    """One generated answer."""

    tokens: tuple[int, ...]  # without the end
    ended: bool  # with the end token, rather than by the limit
    text: str = ""


@torch.inference_mode()
def answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    end: int,
    max_new_tokens: int,
    batch_size: int,
    complete: Callable[[str], bool] | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> list[Answer]:
    """The answer to each prompt (token ids), in order. `model`: a causal language model of transformers. `complete`:
    whether the text of an answer needs no more tokens. `progress` gets the number of prompts that are done."""
    order = sorted(range(len(prompts)), key=lambda index: list(prompts[index]))  # so that alike ones are neighbours
    out: list[Answer | None] = [None] * len(prompts)

    def over(tokens: Sequence[int]) -> bool:
        return tokens[-1] == end or (complete is not None and complete(tokenizer.decode(tokens)))

    done = 0
    for groups in _together(_groups(order, prompts, batch_size), batch_size):
        batch = [index for group in groups for index in group]
        begun = [_begin(model, [np.asarray(prompts[index]) for index in group]) for group in groups]
        found = _decode(model, _joined(begun, max_new_tokens), over, max_new_tokens)
        for index, tokens in zip(batch, found, strict=True):
            ended = len(tokens) < max_new_tokens or over(tokens)
            body = tuple(tokens[:-1] if tokens[-1] == end else tokens)
            out[index] = Answer(body, ended, tokenizer.decode(body, skip_special_tokens=True).strip())
        progress(done := done + len(batch))
    return [answer for answer in out if answer is not None]


def _groups(order: Sequence[int], prompts: Sequence[Sequence[int]], size: int) -> list[list[int]]:
    """Up to `size` prompts each; prompts that share less than half of the shorter one are not in one group."""
    out: list[list[int]] = []
    for index in order:
        if out and len(out[-1]) < size:
            first = prompts[out[-1][0]]
            if common_prefix([first, prompts[index]]) * 2 >= min(len(first), len(prompts[index])):
                out[-1].append(index)
                continue
        out.append([index])
    return out


def _together(groups: Sequence[list[int]], size: int) -> list[list[list[int]]]:
    """Neighbouring groups with up to `size` prompts together."""
    out: list[list[list[int]]] = []
    for group in groups:
        if out and sum(map(len, out[-1])) + len(group) <= size:
            out[-1].append(group)
        else:
            out.append([group])
    return out


def _new_cache() -> Any:
    """A cache of transformers that can be put together with others, and then writes new keys and values into free
    slots. (Its own way, a longer tensor for each token, copies the keys and values of the entire prompt every time.)"""
    from transformers.cache_utils import Cache, DynamicLayer

    class Layer(DynamicLayer):
        used = 0  # slots of `buffers` that hold something; 0: there are none yet

        def join(self, others: Sequence[Layer], room: int) -> None:
            """Append the rows of `others`, and make room for as many tokens."""
            parts = (self, *others)
            rows, self.used = sum(len(part.keys) for part in parts), max(part.keys.shape[-2] for part in parts)
            shape = (rows, self.keys.shape[1], self.used + room, self.keys.shape[3])
            self.buffers = self.keys.new_zeros(shape), self.values.new_zeros(shape)
            first = 0
            for part in parts:
                for buffer, found in zip(self.buffers, (part.keys, part.values), strict=True):
                    buffer[first : first + len(found), :, : found.shape[-2]] = found
                first += len(part.keys)
            self._show()

        def batch_select_indices(self, indices: torch.Tensor) -> None:
            self.buffers = self.buffers[0][indices], self.buffers[1][indices]
            self._show()

        def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **options: Any) -> Any:
            if not self.used:
                return super().update(key_states, value_states, *args, **options)
            until = self.used + key_states.shape[-2]
            self.buffers[0][:, :, self.used : until] = key_states
            self.buffers[1][:, :, self.used : until] = value_states
            self.used = until
            self._show()
            return self.keys, self.values

        def _show(self) -> None:
            self.keys, self.values = (buffer[:, :, : self.used] for buffer in self.buffers)

    return Cache(layer_class_to_replicate=Layer)


@dataclass
class _Begun:
    """Prompts that are computed."""

    last: torch.Tensor  # [n, width]: the hidden states that predict the first tokens
    visible: torch.Tensor  # bool [n, slots]: which slots of the cache each sees
    positions: torch.Tensor  # int64 [n]: of the first tokens
    cache: Any


def _begin(model: Any, prompts: Sequence[np.ndarray]) -> _Begun:
    """Compute prompts that begin with the same tokens."""
    device = next(model.parameters()).device
    prefix = common_prefix(prompts) if len(prompts) > 1 else max(0, len(prompts[0]) - 1)
    cache = _new_cache()
    if prefix:
        shared = torch.from_numpy(prompts[0][:prefix].astype(np.int64))[None].to(device)
        model.model(input_ids=shared, cache=cache, use_cache=True)
        cache.batch_repeat_interleave(len(prompts))
    lengths = torch.tensor([len(prompt) - prefix for prompt in prompts], device=device)
    longest = int(lengths.max())
    rest = torch.zeros(len(prompts), longest, dtype=torch.int64, device=device)
    for row, prompt in enumerate(prompts):
        rest[row, : len(prompt) - prefix] = torch.from_numpy(prompt[prefix:].astype(np.int64))
    place = torch.arange(longest, device=device)
    # which slots of the cache a question sees: the prefix and its own tokens
    visible = torch.cat(
        [torch.ones(len(prompts), prefix, dtype=torch.bool, device=device), place[None] < lengths[:, None]], 1
    )
    causal = torch.cat([torch.ones(longest, prefix, dtype=torch.bool, device=device), place[None] <= place[:, None]], 1)
    mask = (visible[:, None] & causal[None])[:, None]
    hidden = _run(model, rest, mask, prefix + place[None].expand(len(prompts), -1), cache)
    last = hidden[torch.arange(len(prompts), device=device), lengths - 1]
    return _Begun(last, visible, prefix + lengths, cache)


def _joined(begun: Sequence[_Begun], room: int) -> _Begun:
    """All prompts as one batch, with room for the answers."""
    slots = max(one.visible.shape[1] for one in begun)
    visible = [torch.nn.functional.pad(one.visible, (0, slots - one.visible.shape[1])) for one in begun]
    first, *others = (one.cache.layers for one in begun)
    for layer, *more in zip(first, *others, strict=True):
        layer.join(more, room)
    return _Begun(
        torch.cat([one.last for one in begun]), torch.cat(visible), torch.cat([one.positions for one in begun]),
        begun[0].cache,
    )  # fmt: skip


def _decode(model: Any, begun: _Begun, over: Callable[[Sequence[int]], bool], limit: int) -> list[list[int]]:
    """Generate token by token; rows that are over leave the batch."""
    last, visible, positions, cache = begun.last, begun.visible, begun.positions, begun.cache
    out: list[list[int]] = [[] for _ in range(len(last))]
    rows = list(range(len(last)))
    for step in range(limit):
        tokens = model.lm_head(last).float().argmax(-1)
        for row, token in zip(rows, tokens.tolist(), strict=True):
            out[row].append(token)
        going = [at for at, row in enumerate(rows) if not over(out[row])]
        if not going or step == limit - 1:
            break
        if len(going) < len(rows):
            rows = [rows[at] for at in going]
            kept = torch.tensor(going, device=tokens.device)
            cache.batch_select_indices(kept)
            tokens, visible, positions = tokens[kept], visible[kept], positions[kept]
        visible = torch.cat([visible, torch.ones_like(visible[:, :1])], 1)
        last = _run(model, tokens[:, None], visible[:, None, None], positions[:, None], cache)[:, 0]
        positions = positions + 1
    return out


def _run(model: Any, tokens: torch.Tensor, seen: torch.Tensor, positions: torch.Tensor, cache: Any) -> torch.Tensor:
    """The last hidden states [n, t, width]. `seen`: bool [n, 1, t, slots]."""
    return model.model(input_ids=tokens, attention_mask=seen, position_ids=positions, cache=cache, use_cache=True)[0]
