"""The exported graphs, written to files and run in ONNX Runtime."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from training.domains.music.midi import tokens
from training.domains.music.midi_generator.config import Generation
from training.domains.music.midi_generator.generate import generate, torch_step
from training.domains.music.midi_generator.graphs import full_graph, step_graph, vocabulary
from training.domains.music.midi_generator.recipe import MidiGeneratorRecipe

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def graphs():
    torch.manual_seed(0)
    from training.config import Layer, build
    from training.domains.music.midi_generator.config import MidiGeneratorConfig

    small = {"context": 32, "width": 32, "layers": 2, "heads": 2, "emotion_width": 16}
    recipe = MidiGeneratorRecipe(build(MidiGeneratorConfig, Layer({"model": small})))
    model = recipe.build({}).eval()
    return model, {graph.name: graph for graph in recipe.graphs(model)}


@pytest.fixture(scope="module")
def sessions(graphs, tmp_path_factory):
    """Both graphs, written by the exporter that every family uses."""
    from training.export.onnx import write_onnx
    from training.export.trace import trace

    folder = tmp_path_factory.mktemp("onnx")
    out = {}
    for name, graph in graphs[1].items():
        write_onnx(graph, trace(graph), folder / f"{name}.onnx", {})
        out[name] = onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
    return out


@pytest.mark.parametrize("name", ["midi_generator", "midi_generator_step"])
def test_a_file_computes_what_the_model_computes_at_every_size(graphs, sessions, name):
    """Batches of 1, 2 and 7, one token and a full context, no past and the longest."""
    graph = graphs[1][name]
    assert {trial["batch"] for trial in graph.trials} == {1, 2, 7}
    for number, sizes in enumerate(graph.trials):
        arrays = graph.example(sizes, number)
        with torch.no_grad():
            expected = graph.module(*map(torch.from_numpy, arrays))
        expected = [expected] if isinstance(expected, torch.Tensor) else expected
        feed = {spec.name: array for spec, array in zip(graph.inputs, arrays, strict=True)}
        found = sessions[name].run([spec.name for spec in graph.outputs], feed)
        for spec, mine, theirs in zip(graph.outputs, found, expected, strict=True):
            assert np.abs(mine - theirs.numpy()).max() < 1e-4 * theirs.abs().max(), (sizes, spec.name)


def test_the_step_graph_gives_the_logits_of_the_full_graph(graphs, sessions):
    graph = graphs[1]["midi_generator_step"]
    ids, emotion = graphs[1]["midi_generator"].example({"batch": 3, "sequence": 32}, 5)
    complete = sessions["midi_generator"].run(["logits"], {"input_ids": ids, "emotion": emotion})[0]
    state = {taken: np.zeros((3, 2, 0, 16), np.float32) for taken, _ in graph.recurrence.state}
    pieces = []
    for at in range(32):
        feed = {"input_ids": ids[:, at : at + 1], "emotion": emotion, **state}
        outputs = dict(zip([s.name for s in graph.outputs], sessions[graph.name].run(None, feed), strict=True))
        state = {taken: outputs[given] for taken, given in graph.recurrence.state}
        pieces.append(outputs["logits"])
    assert np.abs(np.concatenate(pieces, 1) - complete).max() < 1e-4 * np.abs(complete).max()


def test_the_exported_graph_generates_the_same_pieces_as_the_model(graphs, sessions):
    """`generate` accepts any step function, here one on the exported step graph."""
    graph = graphs[1]["midi_generator_step"]
    names = [spec.name for spec in graph.outputs]

    def step(ids, emotion, state):
        if state is None:
            state = {taken: np.zeros((len(ids), 2, 0, 16), np.float32) for taken, _ in graph.recurrence.state}
        outputs = dict(
            zip(names, sessions[graph.name].run(names, {"input_ids": ids, "emotion": emotion, **state}), strict=True)
        )
        return outputs["logits"], {taken: outputs[given] for taken, given in graph.recurrence.state}

    emotion = np.zeros((3, 64), np.float32)
    emotion[:, :3] = 0.5
    settings = Generation(max_tokens=60, guidance=1.2)
    theirs, ours = (generate(some, emotion, settings, 32, 2) for some in (step, torch_step(graphs[0])))
    assert all(np.array_equal(a, b) for a, b in zip(theirs, ours, strict=True))


def test_the_metadata_describes_vocabulary_and_guidance(graphs):
    """The table in the file covers all 388 ids, each once."""
    for graph in graphs[1].values():
        assert graph.metadata["vocabulary_size"] == "388"
        assert graph.outputs[0].shape[-1] == tokens.VOCABULARY == 388
        assert "unconditional + g" in graph.metadata["guidance"] and "64 zeros" in graph.inputs[1].meaning
    table = json.loads(vocabulary())
    kinds = tokens.kinds()
    covered = [id for first, number in table.values() for id in range(first, first + number)]
    assert sorted(covered) == list(range(388))
    assert all(kinds[first] == kinds[first + number - 1] == kind for kind, (first, number) in table.items())


def test_coreml_is_written_for_the_full_graph_only(settings):
    recipe = MidiGeneratorRecipe(settings())
    model = recipe.build({})
    assert "coreml" in full_graph(model, recipe.settings.export, recipe.settings.generation).formats
    assert set(step_graph(model, recipe.settings.export, recipe.settings.generation).formats) == {"onnx", "int8"}
