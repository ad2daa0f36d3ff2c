"""What leaves is proved from the files: the players' format, ONNX in blocks, golden sounds, samples."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from training.domains.amp.captures import parse_capture, read_capture
from training.domains.amp.exports import golden, leaving, native, samples, stream
from training.domains.amp.sounds import heard, spectrogram, sweep
from training.errors import ExportError
from training.export import proof
from training.export.onnx import write_onnx
from training.export.ready import write_ready
from training.export.signature import Signature
from training.export.trace import trace

from . import making


def trained(kind: str):
    """(the capture, its networks with other weights)."""
    original, other = (parse_capture(making.content(making.ALL[kind]()), "Crunch") for _ in range(2))
    with torch.no_grad():
        for network in other.networks:
            for parameter in network.parameters():
                if parameter.requires_grad:
                    parameter.mul_(1.02)
            network.rest()
    return original, other.networks


def written(kind: str, folder, worse=None):
    """The first artefact of a trained capture, written: (path, about, prover)."""
    original, networks = trained(kind)
    (artefact,) = native.artefacts(original, networks, {"nmr": -12.5}, worse)
    path = folder / artefact.name
    artefact.write(path)
    return path, artefact.about, leaving.PROVERS[artefact.prover]


@pytest.mark.parametrize("kind", making.ALL)
def test_the_file_for_players_is_proved_and_names_its_teacher(kind, tmp_path):
    path, about, prove = written(kind, tmp_path)
    assert path.name == ("Crunch.aa.json" if kind == "proteus" else "Crunch.aa.nam")
    measured = prove(path, json.loads(json.dumps(about)))
    assert measured["differs"] <= 1e-6 and measured["networks"] == (2 if kind == "container" else 1)
    document = json.loads(path.read_bytes())
    athanor = document["athanor"] if kind == "proteus" else document["metadata"]["athanor"]
    assert athanor == {"teacher_sha256": trained(kind)[0].digest, "nmr": -12.5}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d["weights"].__setitem__(0, d["weights"][0] + 0.5), "answers differently"),
        (lambda d: d.__setitem__("version", "0.7.0"), "another version"),
        (lambda d: d["config"].pop("head"), "other keys"),
        (lambda d: d["metadata"].pop("athanor"), "does not name the capture"),
        (lambda d: d["weights"].pop(), "cannot be read again: .* weights; its layers need"),
    ],
)
def test_a_changed_file_is_not_proved(change, reason, tmp_path):
    path, about, prove = written("a1", tmp_path)
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(ExportError, match=reason):
        prove(path, about)


def test_where_training_did_not_help_the_original_is_given_back(tmp_path):
    path, about, prove = written("a1", tmp_path, worse="2x oversampling is better")
    assert path.name == "Crunch.nam" and path.read_bytes() == making.content(making.a1())
    assert prove(path, about) == {"unchanged": True, "why": "2x oversampling is better"}
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ExportError, match="is not the capture that was given"):
        prove(path, about)


def test_all_artefacts_of_a_capture_have_a_prover_that_accepts_them(tmp_path):
    original, networks = trained("a1")
    made = leaving.artefacts(original, networks, original.networks, {}, None)
    assert [one.name for one in made] == ["Crunch.aa.nam", "sounds", "cost.json"]
    for one in made:
        one.write(tmp_path / one.name)
        assert leaving.PROVERS[one.prover](tmp_path / one.name, one.about)
    rows = json.loads((tmp_path / "cost.json").read_text())["rows"]
    assert [row["block"] for row in rows] == [64, 128, 512]
    kept = leaving.artefacts(original, networks, original.networks, {}, "no better")
    assert [one.name for one in kept] == ["Crunch.nam", "cost.json"]


def test_golden_sounds_that_differ_from_their_numbers_are_noticed(tmp_path):
    artefact = golden.artefact(trained("a1")[1][0])
    artefact.write(tmp_path / "sounds")
    assert golden.prove_sounds(tmp_path / "sounds", artefact.about)["differs"] <= 2.0**-23
    path = tmp_path / "sounds" / "noise_out.wav"
    path.write_bytes((tmp_path / "sounds" / "noise_in.wav").read_bytes())
    with pytest.raises(ExportError, match="differs from golden"):
        golden.prove_sounds(tmp_path / "sounds", artefact.about)


@pytest.mark.parametrize("kind", ["a1", "a2", "lstm", "proteus"])
def test_onnx_plays_in_blocks_of_any_length_what_the_capture_plays(kind, tmp_path):
    network = trained(kind)[1][-1]
    (graph,) = stream.graphs([network])
    path = tmp_path / "amp_stream.onnx"
    if graph.module is None:
        write_ready(graph, path, {})
    else:
        write_onnx(graph, trace(graph), path, {})
    run, signature = proof.session(path), Signature.of(graph)
    x = (0.3 * np.random.default_rng(1).standard_normal((1, 1000))).astype(np.float32)
    with torch.no_grad():
        expected = network.play(torch.from_numpy(x)).numpy()
    state = {name: value[None] for name, value in graph.recurrence.start.items()}
    parts, at = [], 0
    for block in (1, 64, 257, 3, 675):
        outputs = run({"audio": x[:, at : at + block], **state})
        state = {taken: outputs[given] for taken, given in signature.recurrence.state}
        parts.append(outputs["sound"])
        at += block
    got = np.concatenate(parts, 1)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max() + 1e-7


def test_the_reference_of_the_written_lstm_is_torch():
    network = trained("proteus")[1][0]
    (graph,) = stream.graphs([network])
    inputs = dict(zip([spec.name for spec in graph.inputs], graph.example({"block": 50}, 0), strict=True))
    with torch.no_grad():
        sound, (hidden, cell) = network(
            torch.from_numpy(inputs["audio"]),
            (torch.from_numpy(inputs["state_0"]), torch.from_numpy(inputs["state_1"])),
        )
    outputs = graph.reference(inputs)
    for name, value in (("sound", sound), ("next_0", hidden), ("next_1", cell)):
        np.testing.assert_allclose(outputs[name], value.numpy(), atol=1e-6)


def test_both_networks_of_a_container_leave_as_onnx():
    assert [graph.name for graph in stream.graphs(trained("container")[1])] == ["amp_stream_1", "amp_stream"]


def test_before_and_after_are_equally_loud_and_their_difference_is_what_changed(tmp_path):
    teacher, student = (parse_capture(making.content(making.a1(seed=seed))).network for seed in (0, 1))
    both = heard(teacher, student, sweep(48_000, 0.5))
    levels = [float(np.sqrt(np.mean(np.square(one)))) for one in (both.before, both.after)]
    assert levels[0] == pytest.approx(levels[1], rel=1e-3) and max(np.abs(both.after).max(), levels[0]) <= 0.951
    assert np.array_equal(both.difference, both.after - both.before) and np.abs(both.difference).max() > 0.01
    same = heard(teacher, read(teacher, tmp_path), sweep(48_000, 0.5))
    assert np.abs(same.difference).max() == 0


def read(network, folder):
    """The same network from a file."""
    making.save(folder, "again", making.a1(seed=0))
    return read_capture(folder / "again.nam").network


def test_a_spectrogram_shows_a_tone_at_its_frequency():
    rate = 48_000
    tone = np.sin(2 * np.pi * 6_000 * np.arange(rate) / rate).astype(np.float32)
    picture = spectrogram(tone, rate, 40, 240)
    assert picture.shape == (240, 40)
    assert abs(int(picture[:, 20].argmax()) - (240 - 60)) <= 1, "a quarter of half the rate, from the bottom"


def test_samples_are_a_sweep_and_guitar_with_pictures(tmp_path):
    teacher, student = (parse_capture(making.content(making.a1(seed=seed))).network for seed in (0, 1))
    paths = samples.write_samples(teacher, student, [], tmp_path / "s")
    assert {path.name for path in paths} == {
        "sweep_before.flac", "sweep_after.flac", "sweep_difference.flac", "sweep_before.png", "sweep_after.png",
    }  # fmt: skip
    assert all(path.stat().st_size > 1000 for path in paths)
