"""The decoder of decoder.py as ONNX nodes, written directly.

Tracing it would take minutes for thirty layers, and copies of the weights; the nodes of a layer are the same for each.
The file is compared with the module at every export.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from training.domains.sql.text_to_sql.exports.decoder import HIDDEN, Decoder, head_width
from training.export.onnx import IR_VERSION, OPSET
from training.graphs import TensorSpec

_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}


def write_decoder(
    path: Path, decoder: Decoder, config: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> None:
    """`inputs` and `outputs`: those of the decoder's forward, in order."""
    nodes = _Nodes({name: value.detach().numpy() for name, value in decoder.state_dict().items()})
    _Decoder(nodes, decoder, config).forward([spec.name for spec in inputs], [spec.name for spec in outputs])
    graph = helper.make_graph(
        nodes.nodes, "decoder", [_value(spec) for spec in inputs], [_value(spec) for spec in outputs], nodes.constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="athanor")
    model.ir_version = IR_VERSION
    onnx.save_model(model, path)


def _value(spec: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(spec.name, _TYPES[spec.dtype], spec.shape)


class _Nodes:
    """Nodes and constants as they are added. Every method returns the name of a value."""

    def __init__(self, weights: dict[str, np.ndarray]):
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._known: set[str] = set()

    def add(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        name = name or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], f"n{len(self.nodes)}", **attributes))
        return name

    def split(self, value: str) -> tuple[str, str]:
        """Two halves of the last axis."""
        names = [f"v{len(self.nodes)}.{half}" for half in range(2)]
        self.nodes.append(helper.make_node("Split", [value], names, f"n{len(self.nodes)}", axis=-1, num_outputs=2))
        return names[0], names[1]

    def constant(self, value: Any, dtype: type = np.int64) -> str:
        """A small constant. Equal ones are stored once."""
        array = np.asarray(value, dtype)
        name = f"{array.dtype}:{array.tolist()}"
        return self._store(name, array)

    def weight(self, name: str, transposed: bool = False) -> str:
        array = self.weights[name]
        return self._store(name, np.ascontiguousarray(array.T) if transposed else array)

    def _store(self, name: str, array: np.ndarray) -> str:
        if name not in self._known:
            self._known.add(name)
            self.constants.append(numpy_helper.from_array(array, name))
        return name

    def linear(self, x: str, name: str) -> str:
        out = self.add("MatMul", x, self.weight(f"{name}.weight", transposed=True))
        bias = f"{name}.bias"
        return self.add("Add", out, self.weight(bias)) if bias in self.weights else out


class _Decoder:
    """The parts of decoder.Decoder, by the same names."""

    def __init__(self, nodes: _Nodes, decoder: Decoder, config: Any):
        self.nodes, self.decoder, self.config = nodes, decoder, config
        self.heads, self.keys, self.width = config.num_attention_heads, config.num_key_value_heads, head_width(config)

    def forward(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        nodes, (tokens, positions, past_positions, past_keys, past_values) = self.nodes, inputs
        logits, present_positions, present_keys, present_values = outputs
        nodes.add("Concat", past_positions, positions, axis=1, name=present_positions)
        self._set_mask(positions, present_positions)
        self._set_rotary(positions)
        x = nodes.add("Gather", nodes.weight("embed_tokens.weight"), tokens)
        new: dict[str, list[str]] = {present_keys: [], present_values: []}
        for at in range(self.config.num_hidden_layers):
            past = [nodes.add("Gather", cache, nodes.constant(at), axis=0) for cache in (past_keys, past_values)]
            x, key, value = self._layer(x, f"layers.{at}.", *past)
            for name, one in ((present_keys, key), (present_values, value)):
                new[name].append(nodes.add("Unsqueeze", one, nodes.constant([0])))
        for name, parts in new.items():
            nodes.add("Concat", *parts, axis=0, name=name)
        self._head(self._norm(x, "norm"), tokens, logits)

    def _set_mask(self, positions: str, slots: str) -> None:
        """[batch, 1, t, past + t]: 0 where a token sees a slot. Also the shapes of scores, which depend on it."""
        nodes = self.nodes
        slot = nodes.add("Unsqueeze", slots, nodes.constant([1, 2]))
        own = nodes.add("Unsqueeze", positions, nodes.constant([1, 3]))
        earlier = nodes.add("LessOrEqual", slot, own)
        seen = nodes.add("And", earlier, nodes.add("GreaterOrEqual", slot, nodes.constant(0)))
        none, hidden = nodes.constant(0.0, np.float32), nodes.constant(HIDDEN, np.float32)
        self.mask = nodes.add("Where", seen, none, hidden)
        lengths = nodes.add("Shape", self.mask, start=2)  # [t, past + t]
        count = nodes.add("Shape", self.mask, start=3)
        self.by_head = nodes.add("Concat", nodes.constant([0, self.heads]), lengths, axis=0)
        self.by_key = nodes.add("Concat", nodes.constant([0, self.keys, -1]), count, axis=0)

    def _set_rotary(self, positions: str) -> None:
        """Cosine and sine, [batch, 1, t, head_dim / 2]."""
        nodes = self.nodes
        place = nodes.add("Cast", nodes.add("Max", positions, nodes.constant(0)), to=TensorProto.FLOAT)
        frequencies = nodes._store("frequencies", self.decoder.frequencies.numpy())
        angles = nodes.add("Mul", nodes.add("Unsqueeze", place, nodes.constant([1, 3])), frequencies)
        factor = nodes.constant(self.decoder.rotary_factor, np.float32)
        self.cosine, self.sine = (nodes.add("Mul", nodes.add(kind, angles), factor) for kind in ("Cos", "Sin"))

    def _layer(self, x: str, name: str, past_key: str, past_value: str) -> tuple[str, str, str]:
        nodes = self.nodes
        normed = self._norm(x, f"{name}input_layernorm")
        attended, key, value = self._attention(normed, f"{name}self_attn.", past_key, past_value)
        x = nodes.add("Add", x, attended)
        normed = self._norm(x, f"{name}post_attention_layernorm")
        gate = nodes.linear(normed, f"{name}mlp.gate_proj")
        open_ = nodes.add("Mul", gate, nodes.add("Sigmoid", gate))
        wide = nodes.add("Mul", open_, nodes.linear(normed, f"{name}mlp.up_proj"))
        return nodes.add("Add", x, nodes.linear(wide, f"{name}mlp.down_proj")), key, value

    def _norm(self, x: str, name: str) -> str:
        nodes = self.nodes
        mean = nodes.add("ReduceMean", nodes.add("Mul", x, x), nodes.constant([-1]), keepdims=1)
        size = nodes.add("Sqrt", nodes.add("Add", mean, nodes.constant(self.config.rms_norm_eps, np.float32)))
        return nodes.add("Mul", nodes.add("Div", x, size), nodes.weight(f"{name}.weight"))

    def _attention(self, x: str, name: str, past_key: str, past_value: str) -> tuple[str, str, str]:
        nodes = self.nodes
        q = self._rotate(self._split_heads(nodes.linear(x, f"{name}q_proj"), self.heads))
        k = self._rotate(self._split_heads(nodes.linear(x, f"{name}k_proj"), self.keys))
        v = self._split_heads(nodes.linear(x, f"{name}v_proj"), self.keys)
        key, value = nodes.add("Concat", past_key, k, axis=2), nodes.add("Concat", past_value, v, axis=2)
        queries = nodes.add("Reshape", q, nodes.constant([0, self.keys, -1, self.width]))
        scaled = nodes.add("Mul", queries, nodes.constant(self.width**-0.5, np.float32))
        scores = nodes.add("MatMul", scaled, nodes.add("Transpose", key, perm=[0, 1, 3, 2]))
        masked = nodes.add("Add", nodes.add("Reshape", scores, self.by_head), self.mask)
        shares = nodes.add("Reshape", nodes.add("Softmax", masked, axis=-1), self.by_key)
        mixed = nodes.add("MatMul", shares, value)
        by_head = nodes.add("Reshape", mixed, nodes.constant([0, self.heads, -1, self.width]))
        by_token = nodes.add("Transpose", by_head, perm=[0, 2, 1, 3])
        joined = nodes.add("Reshape", by_token, nodes.constant([0, 0, self.heads * self.width]))
        return nodes.linear(joined, f"{name}o_proj"), key, value

    def _split_heads(self, x: str, heads: int) -> str:
        parts = self.nodes.add("Reshape", x, self.nodes.constant([0, 0, heads, self.width]))
        return self.nodes.add("Transpose", parts, perm=[0, 2, 1, 3])

    def _rotate(self, x: str) -> str:
        nodes = self.nodes
        first, second = nodes.split(x)
        left = nodes.add("Sub", nodes.add("Mul", first, self.cosine), nodes.add("Mul", second, self.sine))
        right = nodes.add("Add", nodes.add("Mul", second, self.cosine), nodes.add("Mul", first, self.sine))
        return nodes.add("Concat", left, right, axis=-1)

    def _head(self, x: str, tokens: str, logits: str) -> None:
        """A Gemm, which reads the weights as they are: tied ones are stored once."""
        nodes, size = self.nodes, self.config.vocab_size
        weights = nodes.weight("embed_tokens.weight" if self.decoder.is_tied else "lm_head.weight")
        rows = nodes.add("Reshape", x, nodes.constant([-1, self.config.hidden_size]))
        flat = nodes.add("Gemm", rows, weights, transB=1)
        shape = nodes.add("Concat", nodes.add("Shape", tokens), nodes.constant([size]), axis=0)
        nodes.add("Reshape", flat, shape, name=logits)


def reference(decoder: Decoder, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of the module, for comparison."""
    with torch.no_grad():
        return [value.numpy() for value in decoder(*(torch.from_numpy(np.ascontiguousarray(one)) for one in inputs))]
