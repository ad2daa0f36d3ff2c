"""The grammar accepts exactly the sequences that encoding writes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.domains.music.midi_reference import random_file
from training.domains.music.midi.grammar import Grammar, legal
from training.domains.music.midi.reader import read_score
from training.domains.music.midi.tokens import (
    BAR,
    BOS,
    DURATION,
    EOS,
    INSTRUMENT,
    PAD,
    POSITION,
    TEMPO,
    VELOCITY,
    decode,
    encode,
)

PIECE = [BOS, BAR, TEMPO + 5, TEMPO + 2, POSITION, INSTRUMENT, 60, VELOCITY + 9, DURATION + 3, EOS]


def sample(grammar, batch, length, seed):
    """Uniformly random legal sequences that end when they are long enough: a list of id arrays."""
    rng = np.random.default_rng(seed)
    steps = []
    while not grammar.finished.all():
        mask = grammar.mask()
        assert mask.any(axis=1).all()
        score = rng.random(mask.shape) * mask
        score[:, EOS] *= 10 if len(steps) > length else 0
        ids = score.argmax(axis=1)
        grammar.advance(ids)
        steps.append(ids)
        assert len(steps) < length + 60
    rows = np.array(steps).T
    return [row[row != PAD] for row in rows]


def test_sequences_that_the_masks_allow_need_no_repair():
    for seed in range(3):
        for ids in sample(Grammar(16), 16, 200, seed):
            np.testing.assert_array_equal(encode(decode(ids)), ids)


def test_every_encoded_file_is_allowed(tmp_path):
    for seed in range(30):
        random_file(seed, tmp_path / "a.mid")
        ids = encode(read_score(tmp_path / "a.mid"))
        assert legal(ids) == (len(ids) > 2)


@pytest.mark.parametrize(
    "broken",
    [
        PIECE[1:],  # no BOS
        PIECE[:-1],  # no EOS
        [*PIECE, EOS],
        [BOS, EOS],
        [BOS, BAR, *PIECE[4:]],  # the first bar without its tempo
        [*PIECE[:3], *PIECE[4:]],  # half a tempo
        [*PIECE[:5], *PIECE[6:]],  # the first note without its instrument
        [*PIECE[:4], *PIECE[5:]],  # without a position
        [*PIECE[:7], *PIECE[8:]],  # without a velocity
        [*PIECE[:8], EOS],  # without a duration
        [*PIECE[:-1], BAR, EOS],  # an empty bar at the end
        [*PIECE[:-1], POSITION, *PIECE[6:]],  # the same position again
        [*PIECE[:-1], *PIECE[5:]],  # the same instrument again
        [*PIECE[:-1], 59, *PIECE[7:]],  # a lower pitch after a higher one
        [*PIECE[:-1], 60, VELOCITY + 8, *PIECE[8:]],  # a softer unison after a louder one
        [*PIECE[:-1], 60, VELOCITY + 9, DURATION + 2, EOS],
        [*PIECE[:-1], *PIECE[1:5], *PIECE[6:]],  # the same tempo again
        [388],
        [-1],
    ],
)
def test_sequences_that_encoding_never_writes_are_not_legal(broken):
    assert not legal(broken)


def test_valid_sequences_that_differ_little_from_those_are_legal():
    assert legal(PIECE)
    assert legal([*PIECE[:-1], POSITION + 1, *PIECE[6:]])
    assert legal([*PIECE[:-1], BAR, TEMPO + 5, TEMPO + 3, *PIECE[4:5], *PIECE[6:]])
    assert legal([*PIECE[:-1], BAR, *PIECE[4:5], *PIECE[6:]])
    assert legal([*PIECE[:-1], *PIECE[6:]])  # the same note again: two tracks may play it


def test_the_limits_for_generation_hold():
    for ids in sample(Grammar(16, unisons=False, empty_bars=1), 16, 300, 7):
        score = decode(ids)
        keys = list(
            zip(*(score.notes[n].tolist() for n in ("bar", "position", "pitch", "program", "drum")), strict=True)
        )
        assert len(set(keys)) == len(keys)
        assert np.diff(np.unique(score.notes["bar"]), prepend=-1).max() <= 2
        np.testing.assert_array_equal(encode(score), ids)


def test_the_sequences_of_a_batch_are_independent():
    one, two = Grammar(1), Grammar(2)
    for step, token in enumerate(PIECE):
        other = [BOS, BAR, TEMPO, TEMPO, BAR, BAR, BAR, BAR, BAR, BAR][step]
        np.testing.assert_array_equal(one.mask()[0], two.mask()[0])
        one.advance([token])
        two.advance([token, other])
    assert two.finished.tolist() == [True, False]
    assert np.flatnonzero(two.mask()[0]).tolist() == [PAD]


def test_a_mask_is_a_copy():
    grammar = Grammar(1)
    grammar.mask()[:] = False
    assert np.flatnonzero(grammar.mask()[0]).tolist() == [BOS]


def test_the_error_for_an_illegal_id_has_its_sequence_and_state():
    grammar = Grammar(2)
    with pytest.raises(ValueError, match=r"id 387 .* sequence 1 after start"):
        grammar.advance([BOS, BAR])
