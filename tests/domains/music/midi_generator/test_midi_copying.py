"""Copied runs are found in any key and any voice, and never cross the end of a song."""

from __future__ import annotations

import numpy as np

from training.domains.music.midi import tokens
from training.domains.music.midi.score import Score
from training.domains.music.midi_generator import copying


def piece(pitches, instrument=0, gap=0.25, drum=False):
    """Token ids of a line of notes, one every `gap` bars."""
    n = len(pitches)
    onset = np.arange(n) * gap
    ones = np.ones(n, int)
    return tokens.encode(
        Score.from_bars(np.full(int(n * gap) + 1, 2.0), onset, np.full(n, gap / 2), np.array(pitches), 80 * ones,
                        instrument * ones, np.full(n, drum))
    )  # fmt: skip


def walk(seed, notes=40):
    return (60 + np.cumsum(np.random.default_rng(seed).integers(-4, 5, notes)).clip(-40, 40)).tolist()


def test_a_transposed_copy_is_found_completely():
    song = walk(1)
    assert copying.longest_runs([piece([p + 3 for p in song])], [piece(walk(2)), piece(song)]).tolist() == [40]


def test_the_length_of_a_copied_phrase_is_measured():
    song, own = walk(1), walk(3)
    copied = own[:10] + [p + 5 for p in song[8:20]] + own[10:20]
    (found,) = copying.longest_runs([piece(copied)], [piece(walk(2)), piece(song)])
    assert 12 <= found <= 14  # the notes next to it may match by chance


def test_the_same_pitches_in_another_rhythm_are_not_a_copy():
    song = walk(1)
    assert copying.longest_runs([piece(song, gap=0.5)], [piece(song, gap=0.25)]).tolist() == [1]


def test_drums_are_ignored_and_runs_end_with_the_song():
    beat = [36, 42] * 20
    assert copying.longest_runs([piece(beat, drum=True)], [piece(beat, drum=True)]).tolist() == [0]
    song = walk(1)
    halves = [piece(song[:20]), piece(song[20:])]
    assert copying.longest_runs([piece(song)], halves).tolist() == [20]


def test_the_longest_shared_run_equals_that_of_an_exhaustive_search():
    random = np.random.default_rng(0)

    def exhaustive(wanted, known):
        starts = [(one, j) for one in known for j in range(len(one))]
        longest = 0
        for i in range(len(wanted)):
            for one, j in starts:
                n = 0
                while i + n < len(wanted) and j + n < len(one) and wanted[i + n] == one[j + n]:
                    n += 1
                longest = max(longest, n)
        return longest

    for _ in range(30):
        known = [random.integers(0, 3, random.integers(0, 12)) for _ in range(3)]
        wanted = [random.integers(0, 3, random.integers(1, 12)) for _ in range(2)]
        assert copying.longest_shared(wanted, known) == [exhaustive(one, known) for one in wanted]
