"""GELU, attention and RMSNorm are exported in a form that ONNX Runtime fuses, and compute the same as torch's."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from training import threads
from training.export import plain, proof
from training.export.onnx import write_onnx
from training.export.trace import trace
from training.graphs import Graph, TensorSpec


class Layer(nn.Module):
    """x [batch, 6, 8] -> [batch, 6, 8]: RMSNorm, attention of two heads, then linear and GELU."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 2.0, 8))
        self.up = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.scale
        heads = x.unflatten(-1, (2, 4)).transpose(1, 2)
        return F.gelu(self.up(F.scaled_dot_product_attention(heads, heads, heads).transpose(1, 2).flatten(2)))


def layer_graph() -> Graph:
    def example(sizes, seed):
        return (np.random.default_rng(seed).normal(size=(sizes["batch"], 6, 8)).astype(np.float32),)

    inputs, outputs = ((TensorSpec(name, "float32", ("batch", 6, 8)),) for name in "xy")
    trials = tuple({"batch": n} for n in (1, 2, 7))
    return Graph("layer", Layer().eval(), inputs, outputs, {"batch": (1, 16)}, example, trials)


def operators(path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


def test_the_runtime_fuses_the_decomposed_operations(tmp_path):
    graph = layer_graph()
    write_onnx(graph, trace(graph), tmp_path / "layer.onnx", {})
    assert {op for op in operators(tmp_path / "layer.onnx") if op in ("Shape", "Slice", "Concat")} == set()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    onnxruntime.InferenceSession(tmp_path / "layer.onnx", options, providers=["CPUExecutionProvider"])
    fused = operators(tmp_path / "fused.onnx")
    assert {"BiasGelu", "FusedMatMul", "SimplifiedLayerNormalization"} <= fused and not {"Erf", "Div"} & fused

    run, truth = proof.session(tmp_path / "layer.onnx"), proof.module_run(graph)
    trials = proof.compare(run, [(sizes, given, truth(given)) for sizes, given in proof.trial_inputs(graph)])
    proof.require("layer", trials, 1e-5)


def test_onnx_runtime_uses_one_thread_per_available_cpu_and_its_threads_do_not_spin(tmp_path, monkeypatch):
    graph = layer_graph()
    write_onnx(graph, trace(graph), tmp_path / "layer.onnx", {})
    taken, real = [], onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *a, **k: taken.append(a[1]) or real(*a, **k))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "available_cpus", lambda: 3)
    proof.session(tmp_path / "layer.onnx")
    assert (taken[0].intra_op_num_threads, taken[0].inter_op_num_threads) == (3, 1)
    assert taken[0].get_session_config_entry("session.intra_op.allow_spinning") == "0"


def written_out(function, *inputs):
    """The result of `function` when it is exported and decomposed; asserts that no GELU or attention operator is left
    in the program."""

    class Module(torch.nn.Module):
        def forward(self, *given):
            return function(*given)

    program = plain.written_out(torch.export.export(Module(), inputs))
    names = {str(node.target) for node in program.graph.nodes}
    assert not [name for name in names if "gelu" in name or "scaled_dot_product" in name], names
    return program.module()(*inputs)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"scale": 0.3},
        {"attn_mask": torch.arange(7) % 3 != 1},
        {"attn_mask": torch.linspace(-2, 2, 7)},
        {"enable_gqa": True},
    ],
    ids=str,
)
def test_attention_computes_the_same_as_torchs(options):
    torch.manual_seed(0)
    heads = 2 if options.get("enable_gqa") else 4
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, heads, 7, 8), torch.randn(2, heads, 7, 8)
    if "attn_mask" in options:
        options = options | {"attn_mask": options["attn_mask"].expand(5, 7)}
    ours = written_out(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **options), q, k, v)
    torch.testing.assert_close(ours, F.scaled_dot_product_attention(q, k, v, **options))


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_computes_the_same_as_torchs(approximate):
    x = torch.linspace(-8, 8, 1001)
    ours = written_out(lambda x: F.gelu(x, approximate=approximate), x)
    torch.testing.assert_close(ours, F.gelu(x, approximate=approximate), rtol=1e-5, atol=1e-6)
