"""The vocabulary, and the precision of encoding and decoding."""

from __future__ import annotations

import json
import random
from pathlib import Path

import mido
import numpy as np
import pytest

from tests.domains.music.midi_reference import random_file
from training.domains.music.midi import tokens
from training.domains.music.midi.grammar import legal
from training.domains.music.midi.reader import Score, read_score, write_midi
from training.domains.music.midi.score import MAX_BARS
from training.domains.music.midi.tokens import (
    BAR,
    BOS,
    DURATION,
    DURATIONS,
    EOS,
    INSTRUMENT,
    PAD,
    POSITION,
    TEMPO,
    VELOCITY,
    VOCABULARY,
    decode,
    encode,
    encode_tokens,
)

GOLDEN = Path(__file__).parent / "golden"


def test_the_table_is_the_golden_one():
    """Files and applications depend on every id."""
    table = json.loads((GOLDEN / "tokens.json").read_text())
    assert [tokens.describe(token) for token in range(VOCABULARY)] == table["meanings"]
    assert tokens.kinds().tolist() == [meaning.split()[0].lower() for meaning in table["meanings"]]
    assert DURATIONS.tolist() == table["durations"]
    assert tokens.PROGRAMS.tolist() == table["programs"]
    assert (tokens.PROGRAMS // 8).tolist() == list(range(16))
    np.testing.assert_allclose(tokens.bar_seconds(np.arange(225)), table["bar_seconds"], rtol=1e-12)
    for token in (-1, VOCABULARY):
        with pytest.raises(ValueError, match="no such id"):
            tokens.describe(token)


def test_the_golden_file_encodes_to_its_golden_ids():
    """7/8 after 4/4, a tempo change inside a bar, drums, an instrument change, a dotted note, a long silence."""
    ids = encode_tokens(GOLDEN / "piece.mid")["ids"]
    assert ids.dtype == np.uint16
    assert ids.tolist() == json.loads((GOLDEN / "piece.json").read_text())


def test_plain_and_dotted_durations_are_exact():
    plain = {8 * 128 >> n for n in range(11)}
    dotted = {value * 3 // 2 for value in plain if value % 2 == 0 and value * 3 // 2 <= 1024}
    assert plain | dotted <= set(DURATIONS.tolist())
    assert len(DURATIONS) == 64


def family(notes):
    return np.where(notes["drum"], 16, notes["program"] // 8)


@pytest.mark.parametrize("seed", range(120))
def test_encoding_keeps_every_note_within_the_documented_rounding(tmp_path, seed):
    """With its position, length, velocity and instrument."""
    random_file(seed, tmp_path / "random.mid")
    score = read_score(tmp_path / "random.mid")
    ids = encode(score)
    back = decode(ids)
    assert ids[0] == BOS and ids[-1] == EOS and ids.max() < VOCABULARY
    assert len(back.notes) == len(score.notes)
    before, after = score.notes, back.notes
    slot = np.floor((before["bar"] + before["position"]) * 128 + 0.5) / 128
    half = np.searchsorted((DURATIONS[1:] + DURATIONS[:-1]) / 256, before["length"], "right")
    keys = (half, before["velocity"] // 4, before["pitch"], family(before), slot)
    before = before[np.lexsort(keys)]
    x = after["bar"] + after["position"]
    after = after[np.lexsort((after["length"], after["velocity"], after["pitch"], family(after), x))]
    np.testing.assert_array_equal(before["pitch"], after["pitch"])
    np.testing.assert_array_equal(family(before), family(after))
    moved = before["bar"] + before["position"] - after["bar"] - after["position"]
    assert np.abs(moved).max(initial=0) <= 1 / 256 + 1e-9
    assert np.abs(before["velocity"].astype(int) - after["velocity"]).max(initial=0) <= 2
    assert (after["velocity"] > 0).all()
    wanted = np.clip(before["length"], 1 / 128, 8)
    step = np.diff(DURATIONS / 128, append=8.5)
    index = np.searchsorted(DURATIONS / 128, after["length"])
    stretch = np.where(wanted < after["length"], step[np.maximum(index - 1, 0)], step[index])
    assert (np.abs(wanted - after["length"]) <= stretch / 2 + 1e-9).all()
    played = np.clip(score.bars[: len(back.bars)], 1, 6)
    np.testing.assert_allclose(back.bars, played, rtol=0.0041)


@pytest.mark.parametrize("seed", range(120))
def test_a_decoded_file_encodes_to_the_same_ids(tmp_path, seed):
    random_file(seed, tmp_path / "random.mid")
    ids = encode(read_score(tmp_path / "random.mid"))
    write_midi(decode(ids), tmp_path / "decoded.mid")
    np.testing.assert_array_equal(encode(read_score(tmp_path / "decoded.mid")), ids)
    assert not len(decode(ids).notes) or legal(ids)


def random_ids(rng: np.random.Generator, style: int) -> np.ndarray:
    size = int(rng.integers(0, 400))
    if style == 0:
        return rng.integers(0, VOCABULARY, size)
    if style == 1:
        return rng.integers(-(2**40), 2**40, size) // 2 ** rng.integers(0, 40, size)
    weights = np.array(
        [{"pad": 0.01, "bos": 0.01, "eos": 0.01, "bar": 9, "note": 0.2}.get(k, 1) for k in tokens.kinds()]
    )
    return rng.choice(VOCABULARY, size, p=weights / weights.sum())


@pytest.mark.parametrize("style", range(3))
def test_any_ids_decode_to_a_valid_file(tmp_path, style):
    """They are repaired without an error; encoding and decoding the result changes nothing."""
    rng = np.random.default_rng(style)
    notes = 0
    for _ in range(60):
        score = decode(random_ids(rng, style))
        notes += len(score.notes)
        ids = encode(score)
        write_midi(score, tmp_path / "a.mid")
        mido.MidiFile(tmp_path / "a.mid")
        np.testing.assert_array_equal(encode(read_score(tmp_path / "a.mid")), ids)
        np.testing.assert_array_equal(encode(decode(ids)), ids)
    assert notes > 60


@pytest.mark.parametrize(
    "ids", [[], [EOS], [PAD] * 5, [BAR] * 9, [TEMPO], [TEMPO, TEMPO + 1, TEMPO], [VELOCITY], [BOS]]
)
def test_ids_without_notes_are_an_empty_piece(ids):
    score = decode(np.array(ids, dtype=np.int64))
    assert len(score.notes) == 0
    assert encode(score).tolist() == [BOS, EOS]


def test_repairs():
    # A note before any bar, without velocity and duration; then one without a duration, and one without a velocity.
    score = decode([60, BAR, POSITION + 64, 62, VELOCITY + 31, INSTRUMENT + 16, 36, DURATION + 15, EOS, 70])
    assert score.notes["pitch"].tolist() == [60, 36, 62]
    assert score.notes["bar"].tolist() == [0, 1, 1]
    assert score.notes["position"].tolist() == [0, 0.5, 0.5]
    assert score.notes["velocity"].tolist() == [66, 126, 126]
    assert (score.notes["length"] * 128).tolist() == [32, 16, 32]
    assert score.notes["drum"].tolist() == [False, True, False]
    # A position is valid for its bar only.
    assert decode([BAR, POSITION + 64, 60, BAR, 61]).notes["position"].tolist() == [0.5, 0]
    # The last complete pair of tempo digits in a bar is used; a single digit is not a tempo.
    score = decode([BAR, TEMPO, TEMPO, 60, TEMPO + 14, TEMPO + 14, TEMPO + 3, BAR, 61, TEMPO + 2, 62])
    np.testing.assert_allclose(score.bars, [1.0, 1.0])


def test_bars_past_the_limit_are_dropped(tmp_path):
    ids = np.full(1_000_000, BAR)
    ids[MAX_BARS], ids[-1] = 60, 61
    score = decode(ids)
    assert score.notes["pitch"].tolist() == [60]
    write_midi(score, tmp_path / "a.mid")
    assert len(encode(read_score(tmp_path / "a.mid"))) == MAX_BARS + 2 + 2 + 5


def piece(tmp_path, *messages, per_quarter=480):
    file = mido.MidiFile(type=1, ticks_per_beat=per_quarter)
    file.tracks.append(mido.MidiTrack(messages))
    file.save(tmp_path / "piece.mid")
    return encode_tokens(tmp_path / "piece.mid")["ids"].tolist()


def on_off(pitch, start, length, velocity=64):
    on = mido.Message("note_on", note=pitch, velocity=velocity, time=start)
    return on, mido.Message("note_off", note=pitch, time=length)


def test_tempo_is_the_bars_rate_in_two_digits(tmp_path):
    """The 7/8 bar at 120 lasts 1.75 s: a rate of 137.14, log-spaced step round(224 ln(137.14/40) / ln 6) = 154."""
    metre = mido.MetaMessage("time_signature", numerator=7, denominator=8)
    ids = piece(tmp_path, metre, *on_off(60, 840, 210))
    assert ids == [
        BOS,
        BAR,
        TEMPO + 154 // 15,
        TEMPO + 154 % 15,
        POSITION + 64,
        INSTRUMENT,
        60,
        VELOCITY + 16,
        DURATION + 15,
        EOS,
    ]


def test_the_tempo_of_a_score_outside_the_range_is_clipped():
    """Files have no such bars: their reader joins and divides them."""
    for seconds, step in ((16.0, 0), (0.4, 224)):
        columns = [np.array([value]) for value in (0.0, 0.25, 60, 64, 0, False)]
        ids = encode(Score.from_bars(np.array([seconds]), *columns))
        assert ids[2:4].tolist() == [TEMPO + step // 15, TEMPO + step % 15]
    np.testing.assert_allclose(tokens.bar_seconds(np.array([0, 224])), [6.0, 1.0])


def test_an_onset_just_before_the_bar_line_belongs_to_the_next_bar(tmp_path):
    ids = piece(tmp_path, *on_off(60, 1919, 480))
    assert ids[4:6] == [BAR, POSITION]


def test_silent_bars_are_written_and_long_notes_are_clipped_to_eight_bars(tmp_path):
    ids = piece(tmp_path, *on_off(60, 0, 100 * 1920), *on_off(62, 0, 100 * 1920))
    assert ids.count(BAR) == 101
    assert [token for token in ids if DURATION <= token < INSTRUMENT] == [DURATION + 63] * 2


def test_a_long_song_is_encoded_completely(tmp_path):
    """It is not cut at 512 tokens, and ends with EOS."""
    ids = piece(tmp_path, *(message for n in range(3000) for message in on_off(40 + n % 40, 0, 240)))
    assert sum(token < VELOCITY for token in ids) == 3000
    assert ids[-1] == EOS and ids.count(EOS) == 1


def test_every_kind_of_id_is_used_by_real_files(tmp_path):
    """Every kind but padding occurs."""
    seen = set()
    for seed in range(40):
        random_file(seed, tmp_path / "a.mid")
        seen |= set(tokens.kinds()[encode(read_score(tmp_path / "a.mid"))])
    assert seen == set(tokens.kinds()) - {"pad"}


def test_drum_notes_are_distinguished_from_pitches():
    ids = [BOS, BAR, 60, VELOCITY, INSTRUMENT + 16, 36, VELOCITY, 38, INSTRUMENT + 2, 40, EOS, BOS, BAR, 41]
    assert np.flatnonzero(tokens.drum_notes(np.array(ids, np.uint16))).tolist() == [5, 7]
    assert np.flatnonzero(tokens.drum_notes(np.array([INSTRUMENT + 16, 36, BOS, 36], np.uint16))).tolist() == [1]


def test_equal_notes_in_any_order_give_the_same_ids():
    rng = random.Random(3)
    rows = [(rng.randrange(4) / 2, rng.randrange(1, 9) / 8, 60, rng.choice([40, 80]), 0, False) for _ in range(60)]
    shuffled = rng.sample(rows, len(rows))
    a, b = (Score.from_bars(np.array([2.0]), *map(np.array, zip(*r, strict=True))) for r in (rows, shuffled))
    np.testing.assert_array_equal(encode(a), encode(b))


def test_a_file_without_notes_is_not_stored(tmp_path):
    with pytest.raises(ValueError, match="no notes"):
        piece(tmp_path, mido.MetaMessage("set_tempo", tempo=400_000))
