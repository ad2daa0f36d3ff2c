"""A decoder in plain operators, for export: the models that transformers calls llama, mistral and qwen2.

One forward pass serves the prompt and every step after it: new tokens, and the keys and values of those before. What a
token sees is determined by positions alone, so slots can be padding, at any place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

ARCHITECTURES = ("llama", "mistral", "qwen2")
ROTARY_SCALINGS = ("default", "linear", "llama3", "yarn")
PADDING = -1  # the position of a slot that nothing sees
HIDDEN = torch.finfo(torch.float32).min  # added to the scores of slots that are not seen; finite, since a row of
# minus infinities would give NaN


def refusal(config: Any, max_tokens: int = 0) -> str | None:
    """Why a model with this configuration (of transformers) cannot be exported, None if it can. `max_tokens`: the
    longest sequence that it was trained on."""
    kind = config.model_type
    if kind not in ARCHITECTURES:
        return f"the architecture {kind} is not one of {', '.join(ARCHITECTURES)}"
    if config.hidden_act != "silu":
        return f"the activation function is {config.hidden_act}, not silu"
    rotary = config.rope_parameters
    scaling = rotary.get("rope_type", "default")
    if scaling not in ROTARY_SCALINGS:
        return f"the rotary embeddings are scaled by `{scaling}`, which is not one of {', '.join(ROTARY_SCALINGS)}"
    if rotary.get("partial_rotary_factor", 1.0) != 1.0:
        return "the rotary embeddings rotate only a part of each head"
    window = window_of(config)
    if window is not None and window < min(max_tokens, config.max_position_embeddings):
        return f"attention is limited to {window} tokens (sliding window), but sequences have up to {max_tokens} tokens"
    return None


def window_of(config: Any) -> int | None:
    """The number of tokens that the attention of any layer is limited to; None: no limit."""
    return getattr(config, "sliding_window", None)


def longest(config: Any) -> int:
    """The largest number of tokens in a sequence, up to which a sliding window makes no difference."""
    return min(config.max_position_embeddings, window_of(config) or config.max_position_embeddings)


def head_width(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def rotary_frequencies(config: Any) -> tuple[Tensor, float]:
    """Angles per position, float32 [head_dim / 2] (Su et al. 2021: theta^(-2i/d)), scaled as the configuration says by
    transformers' own functions; and the factor of cosine and sine."""
    scaling = config.rope_parameters.get("rope_type", "default")
    if scaling != "default":
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        return ROPE_INIT_FUNCTIONS[scaling](config, torch.device("cpu"))
    return plain_frequencies(config), 1.0


def plain_frequencies(config: Any) -> Tensor:
    """The angles without scaling."""
    width = head_width(config)
    return 1.0 / config.rope_parameters["rope_theta"] ** (torch.arange(0, width, 2).float() / width)


def tied(state: Mapping[str, Tensor]) -> bool:
    """Whether the output layer has the weights of the token embedding. (By the weights: an adapter of one of them
    separates what the configuration calls tied.)"""
    head = state.get("lm_head.weight")
    return head is None or torch.equal(head, state["model.embed_tokens.weight"])


class Decoder(nn.Module):
    """tokens, positions (int64 [batch, t]), past_positions (int64 [batch, past]), past_keys and past_values (float32
    [layers, batch, kv_heads, past, head_dim]) -> logits (float32 [batch, t, vocabulary]), and positions, keys and
    values of past and new tokens together, for the next call.

    A token sees those whose position is between 0 and its own. The position PADDING marks a slot that nothing sees; the
    output at such a token has no meaning.
    """

    def __init__(self, config: Any, state: Mapping[str, Tensor]):
        """`state`: the state_dict of transformers' model, float32; its tensors are used, not copied. Raises ValueError
        for a model that `refusal` refuses, and RuntimeError for a state_dict with other tensors."""
        super().__init__()
        reason = refusal(config)
        if reason:
            raise ValueError(reason)
        weights = {name.removeprefix("model."): value for name, value in state.items()}
        if tied(state):
            weights.pop("lm_head.weight", None)
        with torch.device("meta"):  # the weights come from `state`
            self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
            self.layers = nn.ModuleList(
                _Layer(config, f"layers.{at}.", weights) for at in range(config.num_hidden_layers)
            )
            self.norm = _Norm(config)
            if "lm_head.weight" in weights:
                self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias="lm_head.bias" in weights)
        self.load_state_dict(weights, strict=True, assign=True)
        frequencies, self.rotary_factor = rotary_frequencies(config)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.eval().requires_grad_(False)

    def forward(
        self, tokens: Tensor, positions: Tensor, past_positions: Tensor, past_keys: Tensor, past_values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        slots = torch.cat([past_positions, positions], 1)
        seen = (slots[:, None, :] <= positions[:, :, None]) & (slots[:, None, :] >= 0)
        mask = ((1.0 - seen.float()) * HIDDEN)[:, None]  # [batch, 1, t, past + t]
        angles = positions.clamp(min=0).float()[:, None, :, None] * self.frequencies
        rotary = angles.cos() * self.rotary_factor, angles.sin() * self.rotary_factor
        hidden = self.embed_tokens(tokens)
        keys, values = [], []
        for at, layer in enumerate(self.layers):
            hidden, key, value = layer(hidden, rotary, mask, past_keys[at], past_values[at])
            keys.append(key)
            values.append(value)
        hidden = self.norm(hidden)
        logits = functional.linear(hidden, self.embed_tokens.weight) if self.is_tied else self.lm_head(hidden)
        return logits, slots, torch.stack(keys), torch.stack(values)

    @property
    def is_tied(self) -> bool:
        return not hasattr(self, "lm_head")


class _Layer(nn.Module):
    def __init__(self, config: Any, name: str, weights: Mapping[str, Tensor]):
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = _Norm(config), _Norm(config)
        self.self_attn = _Attention(config, f"{name}self_attn.", weights)
        self.mlp = _FeedForward(config, f"{name}mlp.", weights)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor, past_key: Tensor, past_value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        attended, key, value = self.self_attn(self.input_layernorm(x), rotary, mask, past_key, past_value)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), key, value


class _Norm(nn.Module):
    """RMSNorm (Zhang and Sennrich 2019): x / sqrt(mean(x^2) + eps) * weight."""

    def __init__(self, config: Any):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.hidden_size))
        self.eps = config.rms_norm_eps

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + self.eps) * self.weight


class _Attention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023). The query heads that share a key head are computed as one longer
    sequence of queries, so that keys and values are not repeated."""

    def __init__(self, config: Any, name: str, weights: Mapping[str, Tensor]):
        super().__init__()
        self.width = head_width(config)
        self.heads = config.num_key_value_heads
        self.group = config.num_attention_heads // self.heads
        queries, keys = self.heads * self.group * self.width, self.heads * self.width
        self.q_proj = _linear(config.hidden_size, queries, f"{name}q_proj", weights)
        self.k_proj = _linear(config.hidden_size, keys, f"{name}k_proj", weights)
        self.v_proj = _linear(config.hidden_size, keys, f"{name}v_proj", weights)
        self.o_proj = _linear(queries, config.hidden_size, f"{name}o_proj", weights)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor, past_key: Tensor, past_value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        batch, length, _ = x.shape
        slots = mask.shape[-1]
        q = self._by_head(self.q_proj(x), self.heads * self.group)
        key = torch.cat([past_key, _rotate(self._by_head(self.k_proj(x), self.heads), *rotary)], 2)
        value = torch.cat([past_value, self._by_head(self.v_proj(x), self.heads)], 2)
        queries = _rotate(q, *rotary).reshape(batch, self.heads, self.group * length, self.width)
        scores = (queries * self.width**-0.5) @ key.transpose(2, 3)
        shares = torch.softmax(scores.reshape(batch, self.heads * self.group, length, slots) + mask, -1)
        mixed = shares.reshape(batch, self.heads, self.group * length, slots) @ value
        joined = mixed.reshape(batch, self.heads * self.group, length, self.width).transpose(1, 2)
        return self.o_proj(joined.reshape(batch, length, self.heads * self.group * self.width)), key, value

    def _by_head(self, x: Tensor, heads: int) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], heads, self.width).transpose(1, 2)


class _FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020): down(silu(gate(x)) * up(x))."""

    def __init__(self, config: Any, name: str, weights: Mapping[str, Tensor]):
        super().__init__()
        self.gate_proj = _linear(config.hidden_size, config.intermediate_size, f"{name}gate_proj", weights)
        self.up_proj = _linear(config.hidden_size, config.intermediate_size, f"{name}up_proj", weights)
        self.down_proj = _linear(config.intermediate_size, config.hidden_size, f"{name}down_proj", weights)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


def _linear(inputs: int, outputs: int, name: str, weights: Mapping[str, Tensor]) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=f"{name}.bias" in weights)


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate the pairs (i, i + d/2) of the last axis, as transformers orders them."""
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)
