"""Greedy answers of a language model to many prompts. What prompts share (the schema) is computed once.

Prompts are grouped by their first tokens; the keys and values of the shared prefix are computed once and repeated. The
rests of the prompts, padded on the right, follow them in the cache, and then the answers, so that every prompt has its
own positions and sees nothing of the padding.
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
    progress: Callable[[int], object] = lambda done: None,
) -> list[Answer]:
    """The answer to each prompt (token ids), in order. `model`: a causal language model of transformers. `progress` is
    called with the number of prompts that are done."""
    order = sorted(range(len(prompts)), key=lambda index: list(prompts[index]))  # so that alike ones are neighbours
    out: list[Answer | None] = [None] * len(prompts)
    done = 0
    for batch in _batches(order, prompts, batch_size):
        found = _answer_together(model, [np.asarray(prompts[index]) for index in batch], end, max_new_tokens)
        for index, tokens in zip(batch, found, strict=True):
            ended = len(tokens) < max_new_tokens or tokens[-1] == end
            body = tuple(tokens[:-1] if tokens and tokens[-1] == end else tokens)
            out[index] = Answer(body, ended, tokenizer.decode(body, skip_special_tokens=True).strip())
        progress(done := done + len(batch))
    return [answer for answer in out if answer is not None]


def _batches(order: Sequence[int], prompts: Sequence[Sequence[int]], size: int) -> list[list[int]]:
    """Up to `size` prompts each; prompts that share less than half of the shorter one are not put together."""
    out: list[list[int]] = []
    for index in order:
        if out and len(out[-1]) < size:
            first = prompts[out[-1][0]]
            if common_prefix([first, prompts[index]]) * 2 >= min(len(first), len(prompts[index])):
                out[-1].append(index)
                continue
        out.append([index])
    return out


def _cache_of(model: Any, room: int) -> Any:
    """A cache of transformers that, once repeated for a batch, writes new keys and values into `room` more slots. (Its
    own way, a longer tensor for each token, copies the keys and values of the entire prompt every time.)"""
    from transformers.cache_utils import Cache, DynamicLayer

    class Layer(DynamicLayer):
        used = 0  # slots of `buffers` that hold something; 0: there are none yet

        def batch_repeat_interleave(self, repeats: int) -> None:
            self.used = self.keys.shape[-2]
            shape = (repeats, self.keys.shape[1], self.used + room, self.keys.shape[3])
            self.buffers = self.keys.new_empty(shape), self.values.new_empty(shape)
            for buffer, found in zip(self.buffers, (self.keys, self.values), strict=True):
                buffer[:, :, : self.used] = found
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


def _answer_together(model: Any, prompts: Sequence[np.ndarray], end: int, limit: int) -> list[list[int]]:
    device = next(model.parameters()).device
    prefix = common_prefix(prompts) if len(prompts) > 1 else max(0, len(prompts[0]) - 1)
    cache = _cache_of(model, max(len(prompt) for prompt in prompts) - prefix + limit)
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
    # which slots of the cache a question sees: the prefix, its own tokens, and every answer token so far
    visible = torch.cat(
        [torch.ones(len(prompts), prefix, dtype=torch.bool, device=device), place[None] < lengths[:, None]], 1
    )
    causal = torch.cat([torch.ones(longest, prefix, dtype=torch.bool, device=device), place[None] <= place[:, None]], 1)
    mask = (visible[:, None] & causal[None])[:, None]
    hidden = _run(model, rest, mask, prefix + place[None].expand(len(prompts), -1), cache)
    last = hidden[torch.arange(len(prompts), device=device), lengths - 1]
    return _decode(model, last, visible, prefix + lengths, cache, end, limit)


def _decode(
    model: Any, last: torch.Tensor, visible: torch.Tensor, positions: torch.Tensor, cache: Any, end: int, limit: int
) -> list[list[int]]:
    """Generate token by token. `last` [n, width]: the hidden state that predicts the first; rows that have ended leave
    the batch."""
    out: list[list[int]] = [[] for _ in range(len(last))]
    rows = list(range(len(last)))
    for step in range(limit):
        tokens = model.lm_head(last).float().argmax(-1)
        for row, token in zip(rows, tokens.tolist(), strict=True):
            out[row].append(token)
        going = (tokens != end).nonzero()[:, 0]
        if not len(going) or step == limit - 1:
            break
        if len(going) < len(rows):
            rows = [rows[index] for index in going.tolist()]
            cache.batch_select_indices(going)
            tokens, visible, positions = tokens[going], visible[going], positions[going]
        visible = torch.cat([visible, torch.ones_like(visible[:, :1])], 1)
        last = _run(model, tokens[:, None], visible[:, None, None], positions[:, None], cache)[:, 0]
        positions = positions + 1
    return out


def _run(model: Any, tokens: torch.Tensor, seen: torch.Tensor, positions: torch.Tensor, cache: Any) -> torch.Tensor:
    """The last hidden states [n, t, width]. `seen`: bool [n, 1, t, slots]."""
    return model.model(input_ids=tokens, attention_mask=seen, position_ids=positions, cache=cache, use_cache=True)[0]
