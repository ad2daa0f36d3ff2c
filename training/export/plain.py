"""GELU, attention and RMSNorm as the patterns of operators that ONNX Runtime fuses when it loads a file.

The exporter's decomposition is correct, but it is not a pattern that runtimes recognise: GELU remains five nodes, and
attention transposes the keys through shapes computed at run time, ten nodes per layer, and RMSNorm is seven nodes.
Decomposed as here, they become one Gelu (with the bias before it), one matrix product that reads its right side
transposed, and one SimplifiedLayerNormalization. The file contains standard ONNX operators only.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def written_out(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """`program` with GELU and attention decomposed, x * rsqrt(y) as x / sqrt(y), and everything else unchanged."""
    out = program.run_decompositions(
        {
            torch.ops.aten.gelu.default: _gelu,
            torch.ops.aten.scaled_dot_product_attention.default: _attention,
        }
    )
    for node in out.graph.nodes:
        if node.target == torch.ops.aten.rsqrt.default and all(_multiplies_by(user, node) for user in node.users):
            node.target = torch.ops.aten.sqrt.default
            for user in list(node.users):
                user.target = torch.ops.aten.div.Tensor
                user.args = (*(factor for factor in user.args if factor is not node), node)
    out.graph_module.recompile()
    return out


def _multiplies_by(user: torch.fx.Node, node: torch.fx.Node) -> bool:
    """Whether `user` is the product of something else and `node`."""
    return user.target == torch.ops.aten.mul.Tensor and user.args.count(node) == 1


def _gelu(x: Tensor, approximate: str = "none") -> Tensor:
    if approximate == "tanh":
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x * (torch.erf(x / math.sqrt(2)) + 1) * 0.5


def _attention(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, is_causal: bool = False,
    *, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    if enable_gqa:
        k, v = (t.repeat_interleave(q.shape[-3] // t.shape[-3], -3) for t in (k, v))
    scores = (q * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)) @ k.transpose(-2, -1)
    if is_causal:
        attn_mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return torch.softmax(scores, -1) @ v
