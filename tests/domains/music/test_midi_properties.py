"""Properties of reading, encoding and decoding, over random files and scores."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.domains.music.midi_bytes import control, meta, metre, off, on, packet, program, song, tempo, track
from training.domains.music.midi.grammar import legal
from training.domains.music.midi.reader import Score, parse, read_score, write_midi
from training.domains.music.midi.tokens import BOS, EOS, bar_seconds, decode, encode

many = settings(max_examples=400, deadline=None, derandomize=True, database=None)
some = settings(many, max_examples=250)

# -- tokens -> notes -> tokens ---------------------------------------------------------------------------------------


@st.composite
def scores(draw):
    """Any score on bars of the tempi of tokens, and of other lengths."""
    step = st.integers(0, 224).map(lambda step: float(bar_seconds(step)))
    bars = draw(st.lists(step | st.floats(1.0, 6.0), min_size=1, max_size=8))
    count = draw(st.integers(1, 30))

    def column(values):
        return np.array(draw(st.lists(values, min_size=count, max_size=count)))

    onset = st.floats(0, 12) | st.integers(0, 12 * 128).map(lambda step: step / 128)
    length = st.floats(1e-4, 20) | st.integers(1, 2048).map(lambda step: step / 128)
    byte = st.integers(0, 127)
    return Score.from_bars(
        np.array(bars), column(onset), column(length), column(byte), column(st.integers(1, 127)), column(byte),
        column(st.booleans()),
    )  # fmt: skip


@many
@given(scores())
def test_tokens_to_notes_to_tokens_is_an_identity(score):
    ids = encode(score)
    assert legal(ids)
    np.testing.assert_array_equal(encode(decode(ids)), ids)


@some
@given(scores())
def test_tokens_to_a_file_to_tokens_is_an_identity(tmp_path_factory, score):
    ids = encode(score)
    path = tmp_path_factory.getbasetemp() / "identity.mid"
    write_midi(decode(ids), path)
    np.testing.assert_array_equal(encode(read_score(path)), ids)


@many
@given(st.lists(st.integers(-3, 390), max_size=200).map(lambda ids: [BOS, *ids, EOS]))
def test_whatever_a_model_writes_is_stable_after_one_repair(ids):
    repaired = encode(decode(np.array(ids)))
    np.testing.assert_array_equal(encode(decode(repaired)), repaired)


# -- notes -> tokens -> notes ----------------------------------------------------------------------------------------

PER_QUARTER = 96
when = st.integers(0, 60 * PER_QUARTER) | st.integers(0, 60).map(lambda quarter: quarter * PER_QUARTER)
quarters = st.floats(np.log(20_000), np.log(8_000_000)).map(lambda log: int(np.exp(log))) | st.integers(3e5, 1e6)
metres = st.tuples(st.integers(1, 16), st.integers(0, 5)) | st.tuples(st.integers(1, 255), st.integers(0, 20))


@st.composite
def files(draw):
    """Random tempi and metres anywhere, and notes on random channels; and whether the tempo changes."""
    changes = draw(st.booleans())
    tempi = draw(st.lists(st.tuples(when if changes else st.just(0), quarters), max_size=6))
    conductor = [(tick, tempo(value)) for tick, value in tempi]
    conductor += [(tick, metre(*value)) for tick, value in draw(st.lists(st.tuples(when, metres), max_size=4))]
    notes = []
    for start, length, pitch, velocity, channel in draw(
        st.lists(st.tuples(when, st.integers(1, 500), st.integers(0, 127), st.integers(1, 127), st.integers(0, 15)),
                 min_size=1, max_size=30)
    ):  # fmt: skip
        notes += [(start, on(pitch, velocity, channel)), (start + length, off(pitch, channel))]
    return song(_track(conductor), _track(notes), per_quarter=PER_QUARTER), changes


def _track(events):
    ordered = sorted(events, key=lambda event: event[0])
    ticks = [0] + [tick for tick, _ in ordered]
    return track([(tick - before, event) for before, (tick, event) in zip(ticks, ordered, strict=False)])


@many
@given(files())
def test_notes_to_tokens_to_notes_keeps_every_onset(file):
    """Within 1/256 of its bar, 125 ms if the tempo changes within the bar, and .41 % of the time so far."""
    data, changes = file
    score = parse(data)
    back = decode(encode(score))
    assert len(back.notes) == len(score.notes)
    last = int(score.notes["bar"].max())
    assert score.bars[: last + 1].min() >= 0.996 and score.bars[: last + 1].max() <= 6.024
    expected, found = _onsets(score.notes), _onsets(back.notes)
    assert expected.keys() == found.keys()
    for voice, onsets in expected.items():
        bars = score.bars[np.searchsorted(score.bar_starts, onsets + 1e-9, "right") - 1]
        within = 1.005 * bars / 256 + 0.125 * changes + 0.0041 * onsets + 1e-6
        assert (np.abs(onsets - found[voice]) <= within).all()


def _onsets(notes):
    """The onsets of the notes of each sound, sorted: rounding does not change their order."""
    out = defaultdict(list)
    for note in notes:
        family = -1 if note["drum"] else int(note["program"]) // 8
        out[family, int(note["pitch"]), int(note["velocity"]) // 4].append(float(note["onset"]))
    return {sound: np.sort(onsets) for sound, onsets in out.items()}


# -- bytes -> notes --------------------------------------------------------------------------------------------------

byte = st.integers(0, 127)
texts = st.tuples(st.sampled_from([1, 3, 5, 0x20, 0x21, 0x54, 0x59, 0x7F]), st.binary(max_size=300))
data = st.binary(max_size=140).map(lambda octets: bytes(octet & 0x7F for octet in octets))
packets = st.lists(data, min_size=1, max_size=4)
noise = st.one_of(
    texts.map(lambda text: [meta(*text)]),
    packets.map(lambda parts: [packet(part + b"\xf7" * (n == len(parts) - 1), n == 0) for n, part in enumerate(parts)]),
    st.tuples(byte.filter(lambda controller: 0 < controller < 120), byte).map(lambda pair: [control(*pair)]),
    st.tuples(byte, byte).map(lambda pair: [bytes([0xE0, *pair])]),
    st.tuples(byte, byte).map(lambda pair: [bytes([0xA0, *pair])]),
    byte.map(lambda value: [bytes([0xD0, value])]),
    st.just([b"\xf8"]),
)
events = st.one_of(
    st.tuples(st.just("note"), byte, st.integers(1, 127)), st.tuples(st.just("program"), byte, st.just(0)),
    st.tuples(st.just("noise"), noise, st.just(0)),
)  # fmt: skip
deltas = st.sampled_from([0, 1, 127, 128, 300, 16383, 16384, 0x20_4000]) | st.integers(0, 5000)


@many
@given(st.lists(st.tuples(deltas, events), min_size=1, max_size=60), st.booleans(), st.randoms(use_true_random=False))
def test_every_note_is_where_its_bytes_say(steps, running, random):
    """With texts, sysex messages in packets, clocks and aftertouch between the notes; running status is used at random
    where it is allowed, and after those events, too."""
    written, expected, tick, current, last = [], [], 0, 0, None

    def write(delta, event):
        nonlocal last
        status = event[0]
        if running and status == last and random.random() < 0.7:
            event = event[1:]
        if status < 0xF0:
            last = status
        written.append((delta, event))

    for delta, (what, value, velocity) in steps:
        tick += delta
        if what == "note":
            expected.append((tick, value, velocity, current))
            write(delta, on(value, velocity))
            write(1, random.choice([off(value), on(value, 0)]))
            tick += 1
        elif what == "program":
            current = value
            write(delta, program(value))
        else:
            for number, event in enumerate(value):
                write(delta if number == 0 else 0, event)
    score = parse(song(track(written), per_quarter=20_000))
    found = [(round(row["onset"] * 40_000), row["pitch"], row["velocity"], row["program"]) for row in score.notes]
    assert sorted(found) == sorted(expected)
    assert score.changes["endless"] == 0
