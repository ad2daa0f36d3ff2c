"""Capture files of every supported kind are read exactly and written again in the same form; others are refused with
the reason."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch

from training.domains.amp.captures import parse_capture, read_capture, write_capture
from training.domains.amp.exports.native import structure
from training.domains.amp.formats.document import parse

from . import making


@pytest.mark.parametrize("kind", making.ALL)
@pytest.mark.parametrize("style", [{}, {"indent": 4}, {"separators": (",", ":")}, {"ensure_ascii": False, "indent": 2}])
def test_an_unchanged_capture_is_written_with_the_same_bytes(kind, style, tmp_path):
    path = tmp_path / "one"
    path.write_bytes(making.content(making.ALL[kind](), **style))
    capture = read_capture(path)
    write_capture(capture, capture.networks, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_weights_that_are_no_float32_numbers_keep_their_digits(tmp_path):
    document = making.a1()
    document["weights"][:3] = [0.1, 1, -0.123456789012]
    capture = parse_capture(making.content(document))
    write_capture(capture, capture.networks, tmp_path / "again")
    assert json.loads((tmp_path / "again").read_bytes()) == document


@pytest.mark.parametrize("kind", making.ALL)
def test_trained_weights_change_nothing_else_in_the_file(kind, tmp_path):
    document = making.ALL[kind]() | {"unknown": {"kept": [1, None]}}
    capture = parse_capture(making.content(document), "one")
    with torch.no_grad():
        for network in capture.networks:
            for parameter in network.parameters():
                parameter.mul_(1.01)
    trained = capture.networks
    original = parse_capture(making.content(document), "one")
    write_capture(original, trained, tmp_path / "new", {"teacher_sha256": original.digest, "figure": 1.5})
    again = read_capture(tmp_path / "new")
    assert structure(again.content) == structure(original.content) and again.version == original.version
    x = 0.3 * torch.randn(1, 600)
    for one, other in zip(trained, again.networks, strict=True):
        # .nam files hold the sum of an LSTM's biases
        torch.testing.assert_close(one.play(x), other.play(x), rtol=0, atol=0)
    new = parse(again.content)
    assert new["unknown"] == document["unknown"]
    added = new["athanor"] if kind == "proteus" else new["metadata"]["athanor"]
    assert added == {"teacher_sha256": original.digest, "figure": 1.5}
    if kind != "proteus":
        assert new["metadata"]["modeled_by"] == "ñ" and new["metadata"]["loudness"] != -17.25


def test_loudness_moves_by_what_the_output_changed(tmp_path):
    document = making.a1()
    capture, louder = (parse_capture(making.content(document)) for _ in range(2))
    with torch.no_grad():
        louder.network.arrays[-1].head.weight.mul_(2)
        louder.network.arrays[-1].head.bias.mul_(2)
    write_capture(capture, louder.networks, tmp_path / "new")
    metadata = json.loads((tmp_path / "new").read_bytes())["metadata"]
    assert metadata["loudness"] == pytest.approx(-17.25 + 20 * np.log10(2), abs=1e-3)
    assert metadata["gain"] == pytest.approx(0.5, abs=1e-5)


def test_a_trained_lstm_starts_where_silence_leaves_it(tmp_path):
    original, trained = (parse_capture(making.content(making.lstm())) for _ in range(2))
    with torch.no_grad():
        trained.network.core.bias_ih_l0.add_(0.3)
    write_capture(original, trained.networks, tmp_path / "new")
    network = read_capture(tmp_path / "new").network
    silence = network.play(torch.zeros(1, 100))
    assert silence.std() < 1e-6, "it has settled"
    assert not torch.equal(network.hidden, original.network.hidden)


def test_equal_weights_have_one_identity_whatever_their_metadata_is():
    one, other = making.a1(), making.a1() | {"metadata": {}}
    assert parse_capture(making.content(one)).same == parse_capture(making.content(other)).same
    faster = parse_capture(making.content(one | {"sample_rate": 96000}))
    assert faster.same != parse_capture(making.content(one)).same


def test_files_without_a_rate_get_that_of_their_players_or_the_given_one():
    without = {key: value for key, value in making.a1().items() if key != "sample_rate"}
    read = parse_capture(making.content(without))
    assert read.sample_rate == 48_000 and "no sample rate inside: 48,000 Hz" in read.notes[0]
    read = parse_capture(making.content(making.proteus()))
    assert read.sample_rate == 44_100 and "no sample rate inside: 44,100 Hz" in read.notes[0]
    assert parse_capture(making.content(making.proteus()), sample_rate=96_000).sample_rate == 96_000
    assert not any("skip" in note for note in read.notes)
    assert "Proteus adds the guitar" in parse_capture(making.content(making.proteus(skip=0))).notes[-1]
    assert parse_capture(making.content(making.a1()), sample_rate=96_000).sample_rate == 48_000, "it holds its own"


def changed(document, *path, to):
    """The document with another value at the path."""
    out = copy.deepcopy(document)
    at = out
    for key in path[:-1]:
        at = at[key]
    if to is KeyError:
        del at[path[-1]]
    else:
        at[path[-1]] = to
    return out


FILM = making.FILM | {"active": True}
A1, A2, LSTM, PROTEUS = making.a1(), making.a2(), making.lstm(), making.proteus()
ARRAY = ("config", "layers", 0)
REFUSED = {
    "FiLM": (changed(A2, *ARRAY, "conv_pre_film", to=FILM), "`conv_pre_film` is not supported"),
    "condition": (changed(A2, "config", "condition_dsp", to={"x": 1}), "`condition_dsp` is not supported"),
    "head1x1": (changed(A2, *ARRAY, "head1x1", to={"active": True}), "`head1x1` is not supported"),
    "groups": (changed(A2, *ARRAY, "groups_input", to=2), "`groups_input` 2 is not supported"),
    "head": (changed(A1, "config", "head", to={"channels": 2}), "`head` of the network is not supported"),
    "unknown": (changed(A1, *ARRAY, "dropout", to=1), "`dropout` is not supported"),
    "ConvNet": (changed(A1, "architecture", to="ConvNet"), "architecture `ConvNet` is not supported"),
    "activation": (changed(A1, *ARRAY, "activation", to="PReLU"), "activation `PReLU` is not supported"),
    "GRU": (changed(PROTEUS, "model_data", "unit_type", to="GRU"), "`unit_type` GRU is not supported"),
    "knobs": (changed(PROTEUS, "model_data", "input_size", to=2), r"`input_size` 2 \(knobs\) is not supported"),
    "knobs of an LSTM": (changed(LSTM, "config", "input_size", to=3), r"`input_size` 3 \(knobs\) is not supported"),
    "RTNeural": ({"in_shape": [1], "layers": []}, r"`layers` \(RTNeural, AIDA-X\) is not supported"),
    "one weight short": (changed(A1, "weights", to=A1["weights"][:-1]), r"\d+ weights; its layers need \d+"),
    "LSTM short": (changed(LSTM, "weights", to=LSTM["weights"][:-1]), r"\d+ weights; its layers need \d+"),
    "a tensor missing": (changed(PROTEUS, "state_dict", "lin.bias", to=KeyError), "truncated: .* no `lin.bias`"),
    "a tensor short": (changed(PROTEUS, "state_dict", "lin.bias", to=[0.0, 1.0]), r"`lin.bias` has the shape \[2\]"),
    "NaN": (changed(A1, "weights", 4, to=float("nan")), "weight 5 is nan"),
    "1e38": (changed(A1, "weights", 4, to=1e38), r"weight 5 is 1e\+38"),
    "text": (changed(A1, "weights", 4, to="x"), 'weight 5 is "x", which is no number'),
    "foreign": ({"songs": [], "mood": 1}, "no capture: keys songs, mood"),
    "a list": ([1, 2], "no capture: its JSON is not an object"),
    "dilations": (changed(A1, *ARRAY, "dilations", to=[1] * 300), "`dilations` has 300 layers"),
    "huge": (changed(A1, *ARRAY, "channels", to=10**9), "`channels` is 1000000000; it should be between 1 and 4096"),
    "channels": (changed(A1, "config", "layers", 1, "input_size", to=5), "array 2: `input_size` is 5; it should be 4"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_supported_is_refused_with_the_key(what):
    document, reason = REFUSED[what]
    with pytest.raises(ValueError, match=reason):
        parse_capture(making.content(document))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (making.content(A1)[:500], "truncated: its JSON ends in line 1"),
        (b"", "truncated"),
        (b"RIFF\x00\x00\x00\xffWAVE", "no capture: it is not text"),
        (b"hello there", "no JSON"),
        (b'{"weights": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"weights": [' + b"9" * 5_000 + b"]}", "an integer of more than 4,300 digits"),
    ],
)
def test_what_is_no_json_is_refused(content, reason):
    with pytest.raises(ValueError, match=reason):
        parse_capture(content)


def test_a_seed_of_1000_damaged_files_gives_reasons_and_no_other_error():
    """Whatever byte is damaged: a capture, or a ValueError."""
    random, intact = np.random.default_rng(0), making.content(making.a1(arrays=[making.a1_array(1, 2, 1, [1])]))
    refused = 0
    for _ in range(1000):
        damaged = bytearray(intact)
        for place in random.integers(0, len(intact) - 400, 3):
            damaged[place] = random.integers(32, 127)
        try:
            parse_capture(bytes(damaged))
        except ValueError:
            refused += 1
    assert refused > 300
