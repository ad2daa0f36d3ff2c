"""A smaller network of the same format, distilled from a capture (`--student nano`)."""

from __future__ import annotations

import json

import pytest
import torch

from training.domains.amp.captures import parse_capture, read_capture
from training.domains.amp.evaluation import worse
from training.domains.amp.exports import leaving
from training.domains.amp.plucks import playing
from training.domains.amp.signal.measures import esr
from training.domains.amp.student.smaller import smaller
from training.errors import DataError

from . import making, small
from .players import nam_models, played_by_the_core

A1 = making.a1(arrays=[making.a1_array(1, 16, 8, [1, 2, 4, 8]), making.a1_array(16, 8, 1, [1, 2, 4], head_bias=True)])
GATED = making.a1(arrays=[making.a1_array(1, 6, 1, [1, 2], gated=True, activation="ReLU", head_bias=True)])
A2 = making.a2(channels=8)
FORMATS = {"A1": A1, "A1 gated": GATED, "A2": A2, "LSTM": making.lstm(hidden=12), "GuitarML": making.proteus(hidden=12)}
SOUND = torch.from_numpy(playing(1.0, 48_000, 11))[None]


def sizes(document: dict) -> list[int]:
    if "model_data" in document:
        return [document["model_data"]["hidden_size"]]
    config = document["config"]
    return [config["hidden_size"]] if "hidden_size" in config else [array["channels"] for array in config["layers"]]


@pytest.mark.parametrize(
    ("kind", "expected"), [("A1", [4, 2]), ("A1 gated", [3]), ("A2", [3]), ("LSTM", [6]), ("GuitarML", [6])]
)
def test_the_file_differs_in_its_sizes_alone_and_the_network_begins_near_the_original(kind, expected):
    original = parse_capture(making.content(FORMATS[kind]), "amp")
    capture, (network,) = smaller(original)
    before, after = json.loads(original.content), json.loads(capture.content)
    assert sizes(after) == expected and capture.name == "amp.nano" and capture.digest == original.digest
    assert list(after) == list(before) and after.get("version") == before.get("version")
    assert after.get("metadata") == before.get("metadata")
    with torch.no_grad():
        target, got = original.network.play(SOUND), network.play(SOUND)
    assert esr(got, target) < 0.9, "the output layer is fitted to the original"


def test_what_has_no_smaller_network_is_refused_with_the_reason():
    with pytest.raises(DataError, match="both: a container already holds smaller networks"):
        smaller(parse_capture(making.content(making.container()), "both"))
    with pytest.raises(DataError, match="one: its network has one channel"):
        smaller(parse_capture(making.content(making.lstm(hidden=1, layers=1)), "one"))


@pytest.mark.parametrize(
    ("version", "kind"), [("0.12.2", "A1"), ("0.12.2", "A1 gated"), ("0.12.2", "LSTM"), ("0.13.0", "A2")]
)
def test_neural_amp_modeler_reads_the_smaller_file_as_it_is_here(version, kind, monkeypatch):
    capture, (network,) = smaller(parse_capture(making.content(FORMATS[kind])))
    reference = nam_models(version, monkeypatch).init_from_nam(json.loads(capture.content)).eval()
    with torch.no_grad():
        expected = reference(SOUND[0])
        got = network.valid(torch.cat([torch.zeros(network.receptive_field), SOUND[0]])[None])[0]
    assert expected.std() > 1e-4 and torch.equal(got, expected)


def test_the_core_of_the_players_plays_the_smaller_file(tmp_path):
    capture, (network,) = smaller(parse_capture(making.content(A2)))
    (tmp_path / "amp.nam").write_bytes(capture.content)
    got = played_by_the_core(tmp_path / "amp.nam", SOUND[0, :4000].numpy(), 48_000, tmp_path)
    with torch.no_grad():
        expected = network.play(SOUND[:, :4000])[0].numpy()
    assert abs(got - expected).max() < 1e-5 * abs(expected).max()


def test_training_brings_the_smaller_network_closer_to_the_original():
    made, model, data = small.built(small.fitted(), student={"size": "nano"}, material={"samples": 8, "mix_di": 0.0})
    assert not made.starts_trained
    assert sum(p.numel() for p in model.students.parameters()) < sum(p.numel() for p in model.teachers.parameters()) / 2
    optimizer = torch.optim.Adam(made.parameter_groups(model), lr=3e-3)
    batch, totals = small.batch_of(data, range(8)), []
    for _ in range(12):
        terms = made.losses(model, batch, None)
        totals.append(float(terms["esr"].total.detach()))
        optimizer.zero_grad()
        sum(term.total * term.coefficient for term in terms.values()).backward()
        optimizer.step()
    assert totals[-1] < 0.8 * totals[0]


def test_a_checkpoint_restores_the_smaller_network():
    made, model, _ = small.built(small.fitted(), student={"size": "nano"})
    with torch.no_grad():
        for parameter in model.students.parameters():
            parameter.mul_(1.1)
    kept = {name: value.clone() for name, value in model.state_dict().items() if name in made.saved(model)}
    again = made.build(made.fit_constants(small.rows(small.fitted())))
    again.load_state_dict(kept, strict=False)
    assert all(torch.equal(again.state_dict()[name], value) for name, value in kept.items()) and len(kept) > 10


@pytest.mark.parametrize("reason", [None, "its aliases are louder"])
def test_it_leaves_as_a_proved_file_or_the_original_comes_back(reason, monkeypatch, tmp_path):
    made, model, _ = small.built(small.fitted(), student={"size": "nano"})
    monkeypatch.setattr(worse, "checked", lambda pair: worse.Checked({"hesr_db": -20.0}, reason))
    monkeypatch.setattr(leaving.cost, "costs", lambda teacher, student: [])
    first = made.artefacts(model)[0]
    path = tmp_path / first.name
    first.write(path)
    leaving.PROVERS[first.prover](path, first.about)
    if reason:
        assert "nano" not in first.name and path.read_bytes() == small.fitted()
        return
    read = read_capture(path)
    assert first.name.endswith(".nano.aa.nam") and read.network.shapes[0].channels == 3
    about = {"teacher_sha256": model.original.digest, "hesr_db": -20.0, "student": "nano"}
    assert read.metadata["athanor"] == about
