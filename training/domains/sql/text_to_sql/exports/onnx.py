"""ONNX: one graph that computes a prompt and every step after it.

A call gives it new tokens, their positions, and the cache of the calls before (empty at first); it returns the logits
after each new token and the cache for the next call. See decoder.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from training.domains.sql.bases.quantized import parameter_count
from training.domains.sql.prompting.tokens import end_of
from training.domains.sql.text_to_sql.config import TextToSqlConfig
from training.domains.sql.text_to_sql.exports.decoder import PADDING, Decoder, head_width, longest, refusal
from training.domains.sql.text_to_sql.exports.merged import merged_state
from training.domains.sql.text_to_sql.exports.onnx_nodes import reference, write_decoder
from training.domains.sql.text_to_sql.model import TextToSql, is_adapter
from training.export.onnx import LARGEST
from training.graphs import Graph, Recurrence, TensorSpec

NAME = "text_to_sql"
#: Bytes of float32 weights: an ONNX file is one message, of which they must leave some room to the graph itself.
MOST_WEIGHTS = LARGEST - 2**24
PADDED = 2  # slots at the beginning of every past of the trials that are padding
MAX_BATCH = 64
GOLDEN_LOGITS = 4_000_000  # bytes of logits in the golden file's sequence


def graphs(model: TextToSql, settings: TextToSqlConfig) -> list[Graph]:
    """The graph of the merged model; none, with a printed note, of a model that cannot have one."""
    reason = refusal(model.lm.config, settings.model.max_tokens) or _too_large(model)
    if reason:
        print(f"  NOTE: no ONNX file: {reason}.")
        return []
    return [graph_of(Decoder(model.lm.config, merged_state(model)), model.lm.config, _metadata(model))]


def _too_large(model: TextToSql) -> str | None:
    # tied weights are counted once; adapters are merged into the weights that are there
    count = parameter_count(model.lm) - sum(p.numel() for name, p in model.lm.named_parameters() if is_adapter(name))
    if 4 * count <= MOST_WEIGHTS:
        return None
    needed, most = 4 * count / 1e9, MOST_WEIGHTS / 1e9
    return f"{count:,} parameters take {needed:.1f} GB as float32, and one file can have {most:.1f} GB"


def graph_of(decoder: Decoder, config: Any, metadata: Mapping[str, str]) -> Graph:
    """The graph of a decoder. Running it token by token must give the logits of one call."""
    layers, heads, width = config.num_hidden_layers, config.num_key_value_heads, head_width(config)
    most = longest(config)
    past, present = (layers, "batch", heads, "past", width), (layers, "batch", heads, "past + tokens", width)

    def example(sizes: Mapping[str, int], seed: int) -> tuple[np.ndarray, ...]:
        return _example(decoder, sizes, seed, config.vocab_size, (layers, heads, width))

    inputs = (
        TensorSpec("tokens", "int64", ("batch", "tokens"), "new token ids, one or more of each sequence"),
        TensorSpec("positions", "int64", ("batch", "tokens"), f"of the new tokens, from 0; {PADDING}: padding"),
        TensorSpec("past_positions", "int64", ("batch", "past"), "empty at first (past = 0)"),
        TensorSpec("past_keys", "float32", past, "empty at first"),
        TensorSpec("past_values", "float32", past, "empty at first"),
    )
    outputs = (
        TensorSpec("logits", "float32", ("batch", "tokens", config.vocab_size), "of the id after each new token"),
        TensorSpec("present_positions", "int64", ("batch", "past + tokens"), "next call's past_positions"),
        TensorSpec("present_keys", "float32", present, "next call's past_keys"),
        TensorSpec("present_values", "float32", present, "next call's past_values"),
    )

    def write(path: Path) -> None:
        write_decoder(path, decoder, config, inputs, outputs)

    def module(given: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        found = reference(decoder, [given[spec.name] for spec in inputs])
        return {spec.name: array for spec, array in zip(outputs, found, strict=True)}

    return Graph(
        name=NAME,
        module=None,
        write=write,
        reference=module,
        inputs=inputs,
        outputs=outputs,
        axes={"batch": (1, MAX_BATCH), "tokens": (1, most), "past": (0, most - 1)},
        example=example,
        trials=(
            {"batch": 1, "tokens": 1, "past": 0},
            {"batch": 2, "tokens": 7, "past": 0},
            {"batch": 1, "tokens": 1, "past": min(130, most - 1)},
            {"batch": 3, "tokens": 5, "past": 12},
            {"batch": 1, "tokens": min(64, most // 2), "past": 1},
        ),
        recurrence=Recurrence(
            full=NAME,
            stream=("tokens", "positions"),
            state=(
                ("past_positions", "present_positions"), ("past_keys", "present_keys"),
                ("past_values", "present_values"),
            ),
            compare="logits",
            steps=min(32, most // 2, max(4, GOLDEN_LOGITS // (8 * config.vocab_size))),
        ),
        metadata={**metadata, "limit": f"past + tokens must not exceed {most}"},
    )  # fmt: skip


def _example(
    decoder: Decoder, sizes: Mapping[str, int], seed: int, vocabulary: int, cache: tuple[int, int, int]
) -> tuple[np.ndarray, ...]:
    """Random tokens, after the cache of other random tokens, with padding: noise that nothing may see. The first PADDED
    slots of every past are padding, and one more in every further sequence. A prompt without past is padded first.

    So a past of PADDED slots is as good as none, and the sequence that the graph is stepped along (export/proof.py
    computes it in one call, with a past of this size) has the logits of one that begins with an empty cache.
    """
    random = np.random.default_rng(seed)
    batch, tokens, past = sizes["batch"], sizes["tokens"], sizes["past"]
    layers, heads, width = cache
    row = np.arange(batch)[:, None]
    padding = PADDED + row * (past > PADDED) if past else np.minimum(row, tokens - 1)
    positions = np.maximum(np.arange(past + tokens)[None] - padding, PADDING)
    before, new = np.ascontiguousarray(positions[:, :past]), np.ascontiguousarray(positions[:, past:])
    ids = random.integers(0, vocabulary, (batch, past + tokens), np.int64)
    empty = np.zeros((layers, batch, heads, 0, width), np.float32)
    caches = [empty, empty]
    if past:
        found = reference(decoder, (ids[:, :past], before, np.zeros((batch, 0), np.int64), empty, empty))[2:]
        hidden = (before == PADDING)[None, :, None, :, None]
        caches = [np.where(hidden, random.standard_normal(one.shape, np.float32), one) for one in found]
    return np.ascontiguousarray(ids[:, past:]), new, before, *caches


def _metadata(model: TextToSql) -> dict[str, str]:
    return {
        "architecture": model.lm.config.model_type,
        "answer_ends_with": str(end_of(model.tokenizer)),
        "tokenizer": "that of the merged model: tokenizer.json",
        "padding": json.dumps({"position": PADDING, "side": "any"}),
    }
