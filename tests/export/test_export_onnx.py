"""Exporting one graph to an .onnx file, and comparing the file with the model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tests.export import toy
from training.errors import ExportError
from training.export import proof
from training.export.onnx import OPSET, interface_problems, read_model, write_onnx
from training.export.signature import Signature
from training.export.trace import example_sizes, plain_attention, trace
from training.graphs import Graph, TensorSpec


@pytest.fixture(scope="module")
def encoder() -> Graph:
    torch.manual_seed(1)
    return toy.encoder_graph(toy.Encoder(16).eval())


@pytest.fixture(scope="module")
def written(encoder, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "toy.onnx"
    write_onnx(encoder, trace(encoder), path, {"synthetic": "true"})
    return path


class Double(nn.Module):
    """x [n, 2] -> 2 x."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def small_graph(module: nn.Module, **changes: object) -> Graph:
    graph = Graph(
        "small",
        module.eval(),
        (TensorSpec("x", "float32", ("n", 2)),),
        (TensorSpec("y", "float32", ("n", 2)),),
        {"n": (1, 16)},
        lambda sizes, seed: (np.random.default_rng(seed).normal(size=(sizes["n"], 2)).astype(np.float32),),
        ({"n": 1}, {"n": 2}, {"n": 7}),
    )
    return replace(graph, **changes)


def test_names_axes_and_opset_are_those_requested(written):
    model = onnx.load(written)
    shapes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
    assert shapes == {"sound": ["batch", 8, 4], "mood": ["batch", 3]}
    assert [v.name for v in model.graph.output] == ["places", "loudness"]
    assert model.opset_import[0].version == OPSET >= 17


def test_every_size_of_a_dynamic_axis_runs_and_agrees(encoder, written):
    """Sizes and inputs that the tracer did not use."""
    run, truth = proof.session(written), proof.module_run(encoder)
    assert not {1, 2, 7} & set(example_sizes(encoder).values())
    for batch in (1, 2, 7, 64):
        inputs = dict(zip(("sound", "mood"), encoder.example({"batch": batch}, 1), strict=True))
        trial = proof.compare(run, [({"batch": batch}, inputs, truth(inputs))])[0]
        assert trial.worst < 1e-5


def test_an_export_with_a_fixed_batch_fails_the_comparison(encoder, tmp_path):
    """The graph is traced without dynamic axes."""
    example = tuple(torch.from_numpy(a) for a in encoder.example({"batch": 1}, 0))
    path = tmp_path / "baked.onnx"
    program = torch.onnx.export(encoder.module, example, input_names=["sound", "mood"], dynamo=True, verbose=False)
    program.save(path)
    run, truth = proof.session(path), proof.module_run(encoder)
    names = [s.name for s in encoder.outputs]
    cases = [(sizes, inputs, truth(inputs)) for sizes, inputs in proof.trial_inputs(encoder)]
    trials = proof.compare(lambda i: dict(zip(names, run(i).values(), strict=True)), cases)
    assert trials[0].worst < 1e-4 and trials[1].failure and trials[2].failure
    with pytest.raises(ExportError, match="batch 7"):
        proof.require("baked", trials, 1e-4)
    assert any("fixed at 1" in p for p in interface_problems(read_model(path), Signature.of(encoder)))


def test_a_module_with_a_hard_coded_size_of_an_axis_is_refused():

    class Tied(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.view(3, 2) * 1

    with pytest.raises(ExportError, match="small cannot be captured"):
        trace(small_graph(Tied()))


def test_trials_with_only_one_size_of_an_axis_are_refused(encoder):
    """Else an axis with a fixed size would not be noticed."""
    with pytest.raises(ExportError, match="two sizes"):
        proof.trial_inputs(replace(encoder, trials=({"batch": 4}, {"batch": 4})))


def test_the_same_model_gives_the_same_bytes(encoder, written, tmp_path):
    write_onnx(encoder, trace(encoder), tmp_path / "again.onnx", {"synthetic": "true"})
    assert (tmp_path / "again.onnx").read_bytes() == written.read_bytes()


def test_the_file_contains_no_path_of_the_exporting_host(written):
    content = written.read_bytes()
    assert b"site-packages" not in content and b".py" not in content


def test_an_unused_input_is_noticed():
    class Ignores(nn.Module):
        def forward(self, x: torch.Tensor, unused: torch.Tensor) -> torch.Tensor:
            return x + 1

    specs = (TensorSpec("x", "float32", ("n", 2)), TensorSpec("unused", "float32", (2,)))
    graph = small_graph(Ignores(), inputs=specs)
    graph = replace(graph, example=lambda s, seed: (np.zeros((s["n"], 2), np.float32), np.zeros(2, np.float32)))
    signature = Signature.of(replace(graph, inputs=specs[:1]))
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Identity", ["x"], ["y"])],
            "small",
            [onnx.helper.make_tensor_value_info("x", 1, ["n", 2])],
            [onnx.helper.make_tensor_value_info("y", 1, ["n", 3])],
        )
    )
    assert interface_problems(model, Signature.of(graph)) == [
        "inputs are ['x'], not ['x', 'unused']",
        "output y: axis 1 is 3, not 2",
    ]
    assert interface_problems(model, replace(signature, outputs=(TensorSpec("y", "int64", ("n", 3)),))) == [
        "output y is float32, not int64"
    ]


@pytest.mark.parametrize(
    ("got", "want", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.002], [1.0, 2.0], 0.001),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([0.0, 1e-9], [0.0, 0.0], np.inf),
        ([np.nan, 2.0], [np.nan, 2.0], np.inf),
        ([np.inf, 2.0], [np.inf, 2.0], np.inf),
        ([1.0], [1.0, 2.0], np.inf),
    ],
)
def test_error_is_relative_to_the_largest_value_and_a_nan_never_passes(got, want, error):
    found = proof.relative_error(np.array(got, np.float32), np.array(want, np.float32))
    assert found == pytest.approx(error, rel=1e-3)


def test_a_nan_error_never_passes():
    with pytest.raises(ExportError):
        proof.require("x", [proof.Trial({}, {"y": float("nan")})], 1e-4)
    with pytest.raises(ExportError):
        proof.require("x", [], 1e-4)


def test_an_output_that_is_missing_or_of_another_type_fails(encoder, written):
    run, truth = proof.session(written), proof.module_run(encoder)
    sizes, inputs = proof.trial_inputs(encoder)[1]
    case = [(sizes, inputs, truth(inputs))]
    assert proof.compare(lambda i: {"places": run(i)["places"]}, case)[0].worst == np.inf
    assert proof.compare(lambda i: {k: v.astype(np.float64) for k, v in run(i).items()}, case)[0].worst == np.inf


@pytest.mark.parametrize("place", ["initializer", "constant", "subgraph"])
def test_external_data_is_refused_unread(tmp_path, place):
    """Wherever in the model the reference is: else a model from another host could make this one read any file."""
    (tmp_path / "secret.bin").write_bytes(np.ones(2, np.float32).tobytes())
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[2], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="secret.bin")
    helper = onnx.helper
    y = helper.make_tensor_value_info("y", 1, [2])
    nodes, initializer = [helper.make_node("Identity", ["w"], ["y"])], []
    if place == "initializer":
        initializer = [tensor]
    else:
        constant = helper.make_node("Constant", [], ["w"], value=tensor)
        nodes = [constant, *nodes]
    if place == "subgraph":
        branch = helper.make_graph(nodes, "branch", [], [y])
        flag = helper.make_tensor("flag", onnx.TensorProto.BOOL, [], [True])
        initializer = [flag]
        nodes = [helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)]
    graph = helper.make_graph(nodes, "g", [], [y], initializer)
    path = tmp_path / "planted.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(ExportError, match=r"outside itself \(w\)"):
        proof.session(path)


def test_a_signature_is_the_same_after_writing_and_reading():
    torch.manual_seed(0)
    for graph in [toy.encoder_graph(None), *toy.decoder_graphs(toy.Decoder(16))]:
        signature = Signature.of(graph)
        assert Signature.from_dict(signature.to_dict()) == signature


def test_a_step_graph_that_loses_its_state_differs_from_the_full_one():
    torch.manual_seed(0)
    full, step = toy.decoder_graphs(toy.Decoder(16).eval())
    inputs = proof.sequence_inputs(step, full)
    wanted = proof.module_run(full)(inputs)["logits"]
    correct = proof.module_run(step)
    assert wanted.shape == (2, 200, toy.VOCABULARY)
    assert proof.stepped_trial(correct, Signature.of(step), inputs, wanted).worst < 1e-5

    def without_state(given):
        out = correct(given)
        return out | {"new_key_0": np.zeros_like(out["new_key_0"])}

    assert proof.stepped_trial(without_state, Signature.of(step), inputs, wanted).worst > 1e-3


def test_torchs_fused_attention_is_off_while_a_graph_is_captured_or_compared():
    """No current family uses nn.TransformerEncoderLayer, but a new one may."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()

    def is_fused() -> bool:
        operators = torch.jit.trace(layer, torch.zeros(2, 5, 16)).inlined_graph
        return "_transformer_encoder_layer_fwd" in str(operators)

    with torch.no_grad():
        assert is_fused()
    with pytest.raises(KeyError), plain_attention():
        assert not is_fused()
        raise KeyError("an export that fails")
    with torch.no_grad():
        assert is_fused(), "the setting was not restored"
