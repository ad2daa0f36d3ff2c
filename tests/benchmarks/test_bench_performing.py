"""Rule-based performances are reproducible, follow the rules of the emotion, and use the instrument's octave."""

from __future__ import annotations

import io

import mido
import numpy as np
import pytest

from benchmarks.music.performing import EMOTIONS, OCTAVE_BELOW, Metre, Sung, Written, perform
from training.domains.music import emotion

BARS = 16


def melody(pitch: int, bars: int = BARS) -> list[Sung]:
    return [Sung(float(beat), 1.0, pitch) for beat in range(4 * bars)]


def played(data: bytes) -> tuple[float, list[list[tuple[float, float, int, int]]]]:
    """Beats per minute, and for every voice its notes: (start and length in quarters, pitch, velocity)."""
    file = mido.MidiFile(file=io.BytesIO(data))
    tempo = next(message.tempo for message in file.tracks[0] if message.type == "set_tempo")
    voices = []
    for track in file.tracks[1:]:
        now, open_, notes = 0, {}, []
        for message in track:
            now += message.time
            if message.type == "note_on":
                assert message.note not in open_, "a note began before the previous one ended"
                open_[message.note] = (now, message.velocity)
            elif message.type == "note_off":
                start, velocity = open_.pop(message.note)
                notes.append((start / 480, (now - start) / 480, message.note, velocity))
        assert not open_
        voices.append(notes)
    return 60e6 / tempo, voices


SCORE = Written([melody(74), melody(67), melody(62), melody(50)], [Metre(0.0, 4, 4)])


def performances(mode: str, kind: str, count: int = 24):
    return [perform(f"piece {number}", mode, SCORE, kind) for number in range(count)]


def test_the_same_name_gives_the_same_performance_and_names_differ():
    one, again, other = (perform(name, "minor", SCORE, "band").midi for name in ("a", "a", "b"))
    assert one == again != other


@pytest.mark.parametrize("mode", EMOTIONS)
def test_performances_follow_the_rules_of_their_emotion(mode):
    found = performances(mode, "solo")
    assert {one.emotion for one in found} == set(EMOTIONS[mode])
    for one in found:
        rules = emotion.rules(one.emotion)
        tempo, (notes,) = played(one.midi)
        assert rules.tempo[0] - 0.1 <= tempo <= rules.tempo[1] + 0.1
        held = np.mean([length for _, length, _, _ in notes])
        assert rules.articulation[0] - 0.01 <= held <= min(1, rules.articulation[1]) + 0.01
    for name in EMOTIONS[mode]:
        loud = [np.mean([note[3] for note in played(one.midi)[1][0]]) for one in found if one.emotion == name]
        low, high = emotion.rules(name).velocity
        assert low - 12 < np.mean(loud) < high + 12


def test_phrases_rise_and_first_beats_are_accented():
    rise, accent = [], []
    for one in performances("major", "solo"):
        notes = played(one.midi)[1][0]
        by_bar = np.array([note[3] for note in notes], float).reshape(-1, 4, 4)  # phrases, bars, beats
        rise.append(by_bar[:, 1:3].mean() - by_bar[:, [0, 3]].mean())
        accent.append(by_bar[:, :, 0].mean() - by_bar[:, :, 1:].mean())
    assert min(rise) > 1 and min(accent) > 2


def test_a_soloist_plays_in_the_octave_of_the_instrument():
    from benchmarks.music.performing import SOLOISTS

    seen = set()
    for one in performances("minor", "solo", 60):
        (notes,) = played(one.midi)[1]
        assert abs(np.median([note[2] for note in notes]) - SOLOISTS[one.players]) <= 6
        assert {note[2] % 12 for note in notes} == {74 % 12}
        seen.add(one.players)
    assert len(seen) > 8


def test_a_band_plays_all_voices_and_its_bass_sounds_an_octave_lower():
    from benchmarks.music.performing import BANDS

    for one in performances("major", "band"):
        voices = played(one.midi)[1]
        lowest = BANDS[one.players][-1]
        assert [voice[0][2] for voice in voices] == [74, 67, 62, 50 - 12 * (lowest in OCTAVE_BELOW)]


def test_an_upbeat_and_ties_are_played_as_written():
    music21 = pytest.importorskip("music21")
    from benchmarks.music.performing import written

    tune = "X:1\nM:3/4\nL:1/4\nK:G\nD|G A B-|B2 c|d3|]\n"
    score = written(music21.converter.parse(tune, format="abc"))
    assert [tuple(note) for note in score.voices[0]] == [
        (2.0, 1.0, 62), (3.0, 1.0, 67), (4.0, 1.0, 69), (5.0, 3.0, 71), (8.0, 1.0, 72), (9.0, 3.0, 74),
    ]  # fmt: skip
    assert score.metres == [Metre(0.0, 3, 4)]
