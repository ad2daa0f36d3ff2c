"""Windows of packed songs: no token is lost, training windows are not padded, drums are not transposed."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest

from training.data.manifest import Row
from training.domains.music.midi import tokens
from training.domains.music.midi_generator.config import Augment
from training.domains.music.midi_generator.data import (
    IGNORED,
    HeldOutWindows,
    Songs,
    TrainingWindows,
    check_emotion,
    instrument_at,
    openings,
)
from training.errors import DataError

CONTEXT = 32
PLAIN = Augment(transpose=0, velocity=0.0, tempo=0.0, emotion_noise=0.0, emotion_dropout=0.0)


def training(rows, augment: Augment = PLAIN, seed: int = 1) -> TrainingWindows:
    return TrainingWindows(rows, CONTEXT, seed, augment)


def held_out(rows) -> HeldOutWindows:
    return HeldOutWindows(rows, CONTEXT)


def every(windows, epoch: int = 0) -> list[dict[str, np.ndarray]]:
    return [windows.item(epoch, index) for index in range(len(windows))]


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def total(rows) -> Counter:
    return Counter(int(x) for row in rows for x in row.records["midi_path"]["ids"])


def test_an_epoch_holds_every_token_and_no_padding(rows):
    """Complete songs are used, however short the window, and each song's EOS is a target."""
    for epoch in range(3):
        windows = training(rows)
        seen = np.concatenate([item["input_ids"] for item in every(windows, epoch)])
        assert tokens.PAD not in seen
        assert len(seen) - windows.total < CONTEXT
        assert not total(rows) - Counter(seen.tolist())
        targets = np.concatenate([item["targets"] for item in every(windows, epoch)])
        assert (targets == tokens.EOS).sum() >= len(rows)


def test_windows_are_consecutive_parts_of_the_ring(rows):
    windows = training(rows)
    order, _, phase = windows.plan(4)
    ring = np.concatenate([windows.songs.ids(song) for song in order])
    ring = np.roll(np.concatenate((ring, ring)), -phase)
    for index, item in enumerate(every(windows, 4)):
        assert np.array_equal(item["input_ids"], ring[index * CONTEXT : (index + 1) * CONTEXT])


def test_a_song_does_not_predict_the_next_one(rows):
    """The token after EOS begins another song: it is not a target, and every other token is."""
    for windows in (training(rows), held_out(rows)):
        for item in every(windows):
            boundary = item["input_ids"] == tokens.EOS
            assert (item["targets"][boundary] == IGNORED).all()
            assert tokens.BOS not in item["targets"]
            following = item["input_ids"][1:]
            inner = (item["targets"][:-1] != IGNORED) & (following != tokens.PAD)
            assert np.array_equal(item["targets"][:-1][inner], following[inner])
            assert (inner | boundary[:-1] | (following == tokens.PAD)).all()


def test_each_token_has_its_own_songs_emotion(rows):
    windows = held_out(rows)
    owner = np.repeat(np.arange(len(rows)), windows.songs.lengths)
    for index, item in enumerate(every(windows)):
        at = np.arange(index * CONTEXT, min((index + 1) * CONTEXT, windows.total - 1))
        emotions = item["emotion"][item["documents"][: len(at)]]
        assert np.array_equal(emotions, np.stack([windows.songs.emotion(song) for song in owner[at]]))


def test_an_item_is_a_function_of_epoch_and_index_alone(rows):
    """Any worker makes the same item, in any order and after any other items."""
    windows = training(rows, Augment())
    forwards = [[windows.item(epoch, index) for index in range(len(windows))] for epoch in range(3)]
    fresh = pickle.loads(pickle.dumps(training(rows, Augment())))
    for epoch in (2, 0, 1):
        for index in reversed(range(len(windows))):
            assert same(fresh.item(epoch, index), forwards[epoch][index])


def test_every_epoch_cuts_other_windows(rows):
    windows = training(rows)
    starts = {windows.plan(epoch)[2] for epoch in range(8)}
    assert len(starts) > 4
    assert not np.array_equal(windows.item(0, 0)["input_ids"], windows.item(1, 0)["input_ids"])


def test_another_seed_gives_other_windows(rows):
    assert not same(training(rows, seed=1).item(0, 0), training(rows, seed=2).item(0, 0))


def test_drums_are_not_transposed_in_windows_from_the_middle_of_a_song(rows):
    """The drum's INSTRUMENT token is before the window. Its keys stay; all pitches of the piano move alike."""
    windows = training(rows, PLAIN.model_copy(update={"transpose": 5}))
    songs, shifts = windows.songs, set()
    for song in range(len(songs)):
        ids = np.asarray(songs.ids(song)).astype(int)
        drums, notes = tokens.drum_notes(ids), ids < tokens.VELOCITY
        for epoch in range(12):
            variation = windows.variation(epoch, song)
            shifts.add(variation.shift)
            complete = songs.varied(song, 0, len(ids), variation)
            assert np.array_equal(complete[drums], ids[drums])
            assert np.array_equal(complete[notes & ~drums], ids[notes & ~drums] + variation.shift)
            assert np.array_equal(complete[~notes], ids[~notes])
            for start in range(0, len(ids), 7):
                assert np.array_equal(songs.varied(song, start, start + 20, variation), complete[start : start + 20])
    assert min(shifts) == -5 and max(shifts) == 5


def test_a_song_at_the_edge_of_the_keyboard_is_transposed_only_as_far_as_it_fits():
    ids = np.array([385, 387, 376, 370, 160, 352, 1, 140, 300, 126, 140, 300, 386], np.uint16)
    windows = training([Row({"emotion": [0, 0, 0.5]}, "x:1", {"midi_path": {"ids": ids}})], Augment(velocity=0))
    shifts = {windows.variation(epoch, 0).shift for epoch in range(50)}
    assert shifts == {-1, 0, 1}


def test_the_instrument_in_force_is_found_far_back():
    ids = np.concatenate(([385, 352 + 16], np.full(9000, 160), [352], np.full(10, 160))).astype(np.uint16)
    assert instrument_at(ids, 1) == tokens.INSTRUMENT
    assert instrument_at(ids, 9001, chunk=64) == tokens.INSTRUMENT + tokens.DRUMS
    assert instrument_at(ids, len(ids)) == tokens.INSTRUMENT


def test_loudness_changes_velocities_by_up_to_ten_percent_and_never_to_zero(rows):
    windows = training(rows, PLAIN.model_copy(update={"velocity": 0.1}))
    factors = set()
    for epoch in range(30):
        variation = windows.variation(epoch, 2)
        factors.add(round(variation.loudness, 2))
        before = np.asarray(windows.songs.ids(2)).astype(int)
        after = windows.songs.varied(2, 0, len(before), variation)
        velocity = (before >= tokens.VELOCITY) & (before < tokens.POSITION)
        assert np.array_equal(after[~velocity], before[~velocity])
        assert (after[velocity] >= tokens.VELOCITY).all() and (after[velocity] < tokens.POSITION).all()
        exact = ((before[velocity] - 128) * 4 + 2) * variation.loudness
        assert (np.abs((after[velocity] - 128) * 4 + 2 - exact) <= 3).all()
    assert min(factors) < 0.93 and max(factors) > 1.07


def song_with_tempi(*steps: int) -> Row:
    """A note in each bar, and another tempo in each."""
    ids = [385]
    for step in steps:
        ids += [387, 369 + step // 15, 369 + step % 15, 160, 352, 60, 140, 300]
    return Row({"emotion": [0, 0, 0.5]}, "x:1", {"midi_path": {"ids": np.array([*ids, 386], np.uint16)}})


def tempi(ids: np.ndarray) -> np.ndarray:
    """The tempi (0..224) of complete songs."""
    digits = ids[(ids >= tokens.TEMPO) & (ids < tokens.PAD)].astype(int) - tokens.TEMPO
    return digits.reshape(-1, 2) @ [15, 1]


def test_all_tempi_of_a_song_change_alike_wherever_a_window_is_cut():
    """All its tempi move by the same number of steps, notes stay; in a window that has only one digit of a tempo, the
    digit equals that of the complete song."""
    windows = training([song_with_tempi(40, 119, 120, 58)], PLAIN.model_copy(update={"tempo": 0.1}))
    songs, steps = windows.songs, set()
    ids = np.asarray(songs.ids(0)).astype(int)
    others = (ids < tokens.TEMPO) | (ids >= tokens.PAD)
    for epoch in range(200):
        variation = windows.variation(epoch, 0)
        complete = songs.varied(0, 0, len(ids), variation)
        assert np.array_equal(complete[others], ids[others])
        assert np.array_equal(tempi(complete), tempi(ids) + variation.faster)
        if variation.faster not in steps:
            for start in range(len(ids)):
                for end in range(start + 1, len(ids) + 1):
                    assert np.array_equal(songs.varied(0, start, end, variation), complete[start:end])
        steps.add(variation.faster)
    rates = tokens.bar_seconds(100) / tokens.bar_seconds(100 + np.array(sorted(steps)))
    assert rates[0] == pytest.approx(1 / 1.1, abs=0.005) and rates[-1] == pytest.approx(1.1, abs=0.005)
    assert len(steps) == 25  # every number of steps in between


def test_tempi_are_clipped_to_the_slowest_and_the_fastest():
    windows = training([song_with_tempi(0, 3, 222, 224)], PLAIN.model_copy(update={"tempo": 0.1}))
    for epoch in range(60):
        variation = windows.variation(epoch, 0)
        complete = windows.songs.varied(0, 0, 34, variation)
        assert np.array_equal(tempi(complete), np.clip(np.array([0, 3, 222, 224]) + variation.faster, 0, 224))


def test_the_windows_of_an_epoch_hold_each_song_at_one_tempo():
    """Also those that begin or end between two digits, and those without a tempo."""
    rows = [song_with_tempi(40, 119, 120, 58), song_with_tempi(200, 7, 100)]
    windows = TrainingWindows(rows, 16, 1, PLAIN.model_copy(update={"tempo": 0.1}))
    for epoch in range(40):
        order, _, phase = windows.plan(epoch)
        songs, lengths = windows.songs, windows.songs.lengths
        ring = np.concatenate([songs.varied(n, 0, lengths[n], windows.variation(epoch, n)) for n in order])
        ring = np.roll(np.concatenate((ring, ring)), -phase)
        for index, item in enumerate(every(windows, epoch)):
            assert np.array_equal(item["input_ids"], ring[index * 16 : (index + 1) * 16])
            learnt = item["targets"] != IGNORED
            assert np.array_equal(item["targets"][learnt], ring[index * 16 + 1 : (index + 1) * 16 + 1][learnt])


def test_emotion_noise_stays_within_the_ranges_and_leaves_the_unused_numbers_alone(rows):
    windows = training(rows, Augment(emotion_noise=0.5))
    vectors = np.array([windows.variation(epoch, 0).emotion for epoch in range(40)])
    assert vectors[:, :3].std(0).min() > 0.1
    assert (np.abs(vectors[:, :2]) <= 1).all() and (vectors[:, 2] >= 0).all() and (vectors[:, 2] <= 1).all()
    assert not vectors[:, 3:].any()
    assert windows.variation(0, 4).emotion.std() > 0.1  # 64 numbers: all of them


def test_a_tenth_of_the_samples_has_no_emotion(rows):
    windows = training(rows, Augment(emotion_dropout=0.1))
    dropped = [not windows.item(epoch, index)["emotion"].any() for epoch in range(60) for index in range(len(windows))]
    assert 0.06 < np.mean(dropped) < 0.14


def test_every_held_out_token_is_a_target_exactly_once(rows):
    windows = held_out(rows)
    targets = np.concatenate([item["targets"] for item in every(windows)])
    expected = total(rows)
    del expected[tokens.BOS]
    assert Counter(targets[targets != IGNORED].tolist()) == expected


def test_only_the_last_held_out_window_is_padded_and_padding_is_not_a_target(rows):
    *complete, last = every(held_out(rows))
    assert all(tokens.PAD not in item["input_ids"] for item in complete)
    assert (last["targets"][last["input_ids"] == tokens.PAD] == IGNORED).all()
    assert all(len(item["input_ids"]) == CONTEXT for item in (*complete, last))


def test_held_out_windows_are_the_same_in_every_epoch(rows):
    assert same(held_out(rows).item(0, 1), held_out(rows).item(5, 1))


@pytest.mark.parametrize("number", [1, 3])
def test_any_number_of_items_makes_a_batch(rows, number):
    """Emotions are padded to a power of two."""
    windows = training(rows)
    batch = windows.collate([windows.item(0, index) for index in range(number)])
    assert batch["input_ids"].shape == batch["targets"].shape == batch["documents"].shape == (number, CONTEXT)
    songs = batch["emotion"].shape[1]
    assert songs & (songs - 1) == 0 and songs > int(batch["documents"].max())


def test_a_corpus_shorter_than_a_window_still_fills_it(rows):
    windows = TrainingWindows(rows[:1], 512, 1, PLAIN)
    item = windows.item(0, 0)
    assert len(windows) == 1 and tokens.PAD not in item["input_ids"]
    assert len(item["emotion"]) > 1


def test_songs_are_not_copied(rows):
    """The ids are read in place."""
    songs = Songs(rows)
    assert all(songs.ids(song) is row.records["midi_path"]["ids"] for song, row in enumerate(rows))


def test_songs_without_a_note_are_refused(rows):
    """Otherwise a training without data would look successful."""
    empty = Row({"emotion": [0, 0, 0.5]}, "x:1", {"midi_path": {"ids": np.array([385, 386], np.uint16)}})
    with pytest.raises(DataError, match="None of the 1 songs"):
        training([empty])
    with pytest.raises(DataError):
        held_out([])
    assert len(Songs([empty, *rows])) == len(rows)


def test_openings_are_the_beginnings_of_songs(rows):
    opening = openings(rows, 40, 3)
    assert opening["input_ids"].shape == (3, 40) and opening["emotion"].shape == (3, 64)
    assert (opening["input_ids"][:, 0] == tokens.BOS).all()
    padding = opening["input_ids"] == tokens.PAD
    assert (opening["targets"][padding] == IGNORED).all()
    assert not opening["emotion"][:, 3:].any() or len(rows) > 3


@pytest.mark.parametrize("emotion", [[0.1, -0.2, 0.3], [1, -1, 1], [0.5] * 64])
def test_valid_emotions_are_accepted(emotion):
    check_emotion({"emotion": emotion})


@pytest.mark.parametrize(
    "emotion", [None, [], [0.1, 0.2], "sad", [1.5, 0, 0], [0, 0, -0.1], [0, float("nan"), 0], [True, 0, 0], ["a"] * 64]
)
def test_invalid_emotions_are_refused(emotion):
    with pytest.raises(ValueError, match="emotion"):
        check_emotion({"emotion": emotion})
