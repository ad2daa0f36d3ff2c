"""The ONNX export: the decoder is transformers' model, and the file is the decoder, in one call and step by step."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import GPT2Config, LlamaConfig, LlamaForCausalLM

from tests.domains.sql import small_decoders
from training.domains.sql.text_to_sql.config import Model, TextToSqlConfig
from training.domains.sql.text_to_sql.exports import decoder, onnx
from training.export import proof
from training.export.ready import write_ready
from training.export.signature import Signature

KINDS = tuple(small_decoders.KINDS)
SETTINGS = TextToSqlConfig(model=Model(max_tokens=256))


def empty_cache(config, batch):
    shape = (config.num_hidden_layers, batch, config.num_key_value_heads, 0, decoder.head_width(config))
    return torch.zeros(batch, 0, dtype=torch.int64), torch.zeros(shape), torch.zeros(shape)


def difference(found, wanted):
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.fixture(scope="module", params=KINDS)
def exported(request, tmp_path_factory):
    """(model of transformers, graph, file)"""
    model = small_decoders.model(request.param)
    graph = onnx.graph_of(decoder.Decoder(model.config, model.state_dict()), model.config, {"about": "test"})
    path = tmp_path_factory.mktemp("onnx") / f"{graph.name}.onnx"
    write_ready(graph, path, {})
    return model, graph, path


@pytest.mark.parametrize("kind", KINDS)
def test_the_decoder_gives_the_logits_of_transformers(kind):
    model = small_decoders.model(kind)
    tokens = torch.randint(0, 300, (3, 200), generator=torch.Generator().manual_seed(1))
    found = decoder.Decoder(model.config, model.state_dict())(
        tokens, torch.arange(200).expand(3, -1), *empty_cache(model.config, 3)
    )
    assert difference(found[0], model(tokens).logits) < 1e-4


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_no_token(side):
    model = small_decoders.model("qwen2")
    built = decoder.Decoder(model.config, model.state_dict())
    tokens = torch.randint(0, 300, (1, 9), generator=torch.Generator().manual_seed(1))
    positions = torch.arange(9)[None]
    alone = built(tokens, positions, *empty_cache(model.config, 1))[0]
    noise, hidden = torch.full((1, 4), 7), torch.full((1, 4), decoder.PADDING)
    order = (noise, tokens) if side == "left" else (tokens, noise)
    places = (hidden, positions) if side == "left" else (positions, hidden)
    padded = built(torch.cat(order, 1), torch.cat(places, 1), *empty_cache(model.config, 1))[0]
    assert padded.isfinite().all()
    assert difference(padded[:, 4:] if side == "left" else padded[:, :9], alone) < 1e-5


def test_the_file_gives_what_the_decoder_gives_at_every_size(exported):
    _, graph, path = exported
    truth = proof.truth(graph)
    cases = [(sizes, inputs, truth(inputs)) for sizes, inputs in proof.trial_inputs(graph)]
    trials = proof.compare(proof.session(path), cases)
    assert [trial.sizes for trial in trials] == [dict(sizes) for sizes in graph.trials]
    assert max(trial.worst for trial in trials) <= 1e-4  # infinite where an output is missing or has another shape


def test_steps_from_an_empty_cache_give_the_logits_of_one_call(exported):
    _, graph, path = exported
    inputs = proof.sequence_inputs(graph, graph)
    wanted = proof.truth(graph)(inputs)["logits"]
    trial = proof.stepped_trial(proof.session(path), Signature.of(graph), inputs, wanted)
    proof.require(path.name, [trial], 1e-4)
    assert trial.sizes["steps"] == 32


def test_greedy_answers_of_the_file_are_those_of_transformers(exported):
    model, _, path = exported
    run, config = proof.session(path), model.config
    prompt = np.random.default_rng(0).integers(0, 300, (1, 11), np.int64)
    wanted = model.generate(torch.from_numpy(prompt), max_new_tokens=40, do_sample=False, eos_token_id=-1)[0, 11:]
    cache = dict(zip(("positions", "keys", "values"), (one.numpy() for one in empty_cache(config, 1)), strict=True))
    tokens, made = prompt, []
    for _ in range(40):
        at = cache["positions"].shape[1]
        positions = np.arange(at, at + tokens.shape[1])[None]
        given = {"tokens": tokens, "positions": positions, **{f"past_{name}": one for name, one in cache.items()}}
        out = run(given)
        cache = {name: out[f"present_{name}"] for name in cache}
        tokens = out["logits"][:, -1:].argmax(-1)
        made.append(int(tokens[0, 0]))
    assert made == wanted.tolist()


def test_tied_weights_are_stored_once(tmp_path):
    model = small_decoders.model("llama", vocabulary=5000)
    graph = onnx.graph_of(decoder.Decoder(model.config, model.state_dict()), model.config, {})
    write_ready(graph, tmp_path / "tied.onnx", {})
    weights = sum(value.numel() * 4 for value in model.parameters())  # counts tied ones once
    assert weights < (tmp_path / "tied.onnx").stat().st_size < 1.05 * weights


def test_a_head_that_an_adapter_separated_from_the_embedding_is_used():
    model = small_decoders.model("llama")
    state = dict(model.state_dict())
    state["lm_head.weight"] = state["lm_head.weight"] * 2
    tokens = torch.arange(5)[None]
    found = decoder.Decoder(model.config, state)(tokens, torch.arange(5)[None], *empty_cache(model.config, 1))[0]
    assert difference(found, 2 * model(tokens).logits) < 1e-4


def test_a_model_too_large_for_one_file_gets_none_and_a_note(capsys):
    with torch.device("meta"):
        large = LlamaForCausalLM(
            LlamaConfig(num_hidden_layers=4, hidden_size=4096, intermediate_size=11008, vocab_size=32000)
        )
    assert onnx.graphs(SimpleNamespace(lm=large), SETTINGS) == []
    note = capsys.readouterr().out
    assert "NOTE: no ONNX file: 1,0" in note and "GB" in note


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (GPT2Config(), "architecture gpt2"),
        (small_decoders.config("llama", hidden_act="gelu"), "activation function is gelu"),
        (small_decoders.config("mistral", sliding_window=128), "limited to 128 tokens"),
        (
            small_decoders.config(
                "llama", rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
            ),
            "scaled by `dynamic`",
        ),
    ],
)  # fmt: skip
def test_a_model_that_would_compute_something_else_is_refused(config, reason, capsys):
    assert onnx.graphs(SimpleNamespace(lm=SimpleNamespace(config=config)), SETTINGS) == []
    assert reason in capsys.readouterr().out


def test_a_sliding_window_that_no_sequence_fills_is_no_obstacle():
    config = small_decoders.config("mistral", sliding_window=300)
    assert decoder.refusal(config, 256) is None
    assert decoder.longest(config) == 300
