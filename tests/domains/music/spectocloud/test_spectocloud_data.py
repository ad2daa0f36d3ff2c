"""Windows: pure functions of (seed, epoch, index), their targets, and augmentation."""

import pickle
from dataclasses import replace

import librosa
import numpy as np
import pytest

from tests.domains.music.spectocloud.corpus import EMOTIONS, make_notes, make_row, make_settings, make_sound
from training.data.manifest import Row
from training.domains.music.alignment.timemap import mapped_notes
from training.domains.music.audio import HOP, SAMPLE_RATE, log_mel
from training.domains.music.clouds.cloud import render
from training.domains.music.clouds.features import midi_features
from training.domains.music.midi.notes import NOTE
from training.domains.music.spectocloud import data, sound
from training.domains.music.spectocloud.data import Songs, check_row, cut, window_starts
from training.errors import DataError


def songs(rows, training=True, score=False, seed=42, windows=None, **augment) -> Songs:
    settings = make_settings(augment=augment, windows=windows or {})
    return Songs(rows, settings.windows, settings.augment if training else None, seed, score)


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


PLAIN = {"gain_db": 0.0, "emotion_noise": 0.0, "no_score": 0.0}


def start_of(split: Songs, epoch: int, index: int) -> int:
    """The start frame of an unaugmented item, found by its spectrogram."""
    item = split.item(epoch, index)
    logmel = split.rows[int(item["song"])].records["audio_path"]["logmel"]
    found = [s for s in range(len(logmel)) if np.array_equal(cut(logmel, s).T, item["logmel"])]
    assert len(found) == 1
    return found[0]


def test_an_item_is_a_pure_function_of_seed_epoch_and_index(rows):
    """It does not depend on other items, nor on the process."""
    a, b = songs(rows), pickle.loads(pickle.dumps(songs(rows)))
    for index in range(len(a)):
        a.item(3, index)
    for epoch, index in ((0, 0), (1, 7), (0, 11)):
        assert same(a.item(epoch, index), b.item(epoch, index))
    assert not same(a.item(0, 0), songs(rows, seed=43).item(0, 0))


@pytest.mark.parametrize("training", [True, False])
def test_the_row_of_each_item_is_known_where_a_row_is_left_out(rows, training):
    silent = replace(rows[0], records=rows[0].records | {"midi_path": {"notes": np.zeros(0, NOTE)}})
    split = songs([rows[0], silent, *rows[1:]], training)
    of_item = split.row_of_each().tolist()
    assert len(of_item) == len(split) and set(of_item) == {0, 2, 3}
    for index, row in enumerate(of_item):
        assert split.rows[int(split.item(0, index)["song"])] is [rows[0], silent, *rows[1:]][row]


def test_every_epoch_draws_other_windows_from_all_parts_of_a_song(rows):
    split = songs(rows, **PLAIN)
    assert len(split) == 4 * 3
    starts = np.array([[start_of(split, epoch, index) for index in range(4)] for epoch in range(12)])
    assert len(np.unique(starts[:, 0])) > 3
    assert (np.diff(starts, axis=1) > 0).all()  # one from each part, in order
    possible = window_starts(rows[0].records["midi_path"]["notes"], len(rows[0].records["audio_path"]["logmel"]), 0.5)
    assert starts.min() < possible[len(possible) // 8] and starts.max() > possible[-len(possible) // 8]


def test_the_target_is_rendered_from_the_notes_of_the_same_window(rows):
    split = songs(rows, **PLAIN)
    for index in (0, 6, 11):
        item = split.item(2, index)
        row = rows[int(item["song"])]
        start = start_of(split, 2, index) * HOP / SAMPLE_RATE
        cloud = render(row.records["midi_path"]["notes"], start, row.values["emotion"])
        assert np.array_equal(item["positions"], cloud.positions)
        assert np.array_equal(item["colors"], cloud.colors)
        assert np.array_equal(item["properties"], cloud.properties)
        assert np.array_equal(item["midi_features"], midi_features(row.records["midi_path"]["notes"], start))
        assert np.array_equal(item["sounding"], ~cloud.lifeline["silent"])


@pytest.mark.parametrize("training", [True, False])
def test_the_score_is_read_through_the_rows_time_map(training):
    """Windows, targets and features are those of notes that were moved beforehand."""
    knots = [[0.0, 1.0], [2.0, 2.5], [5.0, 6.0]]
    plain = make_row(0)
    notes = mapped_notes(np.array(knots), plain.records["midi_path"]["notes"])
    moved = replace(plain, records={**plain.records, "midi_path": {"notes": notes}})
    of_map = songs([replace(plain, values={**plain.values, "time_map": knots})], training, score=True)
    of_moved, of_plain = songs([moved], training, score=True), songs([plain], training, score=True)
    assert len(of_map) == len(of_moved)
    assert all(same(of_map.item(1, index), of_moved.item(1, index)) for index in range(len(of_map)))
    assert not same(of_map.item(1, 0), of_plain.item(1, 0))


def test_held_out_windows_are_fixed_and_never_varied(rows):
    split = songs(rows, training=False)
    assert len(split) == 2 * 3
    for index in range(len(split)):
        item = split.item(0, index)
        assert same(item, split.item(5, index))
        assert not item["midi_features"].any()
        song, start = split.fixed[index]
        assert np.array_equal(item["logmel"], cut(rows[song].records["audio_path"]["logmel"], start).T)
        assert item["emotion"][:3].tolist() == pytest.approx(EMOTIONS[song])
    assert all(songs(rows, training=False, score=True).item(0, i)["midi_features"].any() for i in range(len(split)))


def test_a_song_of_one_window_is_held_out_once():
    short = make_row(0, seconds=1.3)
    assert len(songs([short], training=False, windows={"validation_per_song": 8})) == 1
    item = songs([short], training=False).item(0, 0)
    assert np.isfinite(item["logmel"]).all() and (item["logmel"][:, -2:] == np.float32(sound.LOG_FLOOR)).all()


def test_windows_that_are_mostly_silent_are_left_out():
    notes = np.zeros(3, NOTE)
    notes["onset"], notes["duration"], notes["pitch"], notes["velocity"] = (0, 6, 12), (1.5, 0.1, 2), 60, 80
    frames = int(15 * SAMPLE_RATE / HOP)
    for least in (0.25, 0.5, 1.0):
        starts = window_starts(notes, frames, least)
        shares = [(~render(notes, data.seconds(s), (0, 0, 0.5)).lifeline["silent"]).mean() for s in starts]
        others = np.setdiff1d(np.arange(frames - 63), starts)
        left = [(~render(notes, data.seconds(s), (0, 0, 0.5)).lifeline["silent"]).mean() for s in others]
        # a sub-frame that a note touches for a frame or less may be silent to the renderer
        assert min(shares) >= least - 0.25 and max(left) < least


def test_a_song_with_too_little_sound_still_gives_windows():
    notes = np.zeros(1, NOTE)
    notes["onset"], notes["duration"], notes["pitch"], notes["velocity"] = 5, 0.1, 60, 80
    starts = window_starts(notes, 400, 0.5)
    assert len(starts) and all(data.seconds(s) < 5.1 and data.seconds(s + 64) > 5 for s in starts)
    assert len(window_starts(notes[:0], 400, 0.5)) == 400 - 63


def test_a_split_without_any_song_with_sound_and_notes_is_refused(rows):
    empty = Row(rows[0].values, "m.jsonl:1", {**rows[0].records, "midi_path": {"notes": np.zeros(0, NOTE)}})
    assert len(songs([empty, rows[1]])) == 4
    with pytest.raises(DataError, match="None of the 1 songs"):
        songs([empty])


# -- precomputed clouds --------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path, rows):
    """A row with a precomputed cloud at frame 100."""
    positions = np.random.default_rng(0).random((1200, 3)).astype(np.float32)
    np.save(tmp_path / "cloud.npy", positions)
    values = {"target_pointcloud_path": str(tmp_path / "cloud.npy"), "target_pointcloud_start": 100 * HOP / SAMPLE_RATE}
    return Row({**rows[0].values, **values}, "m.jsonl:1", rows[0].records), positions


@pytest.mark.parametrize("training", [True, False])
def test_a_precomputed_cloud_is_the_target_of_its_window(own, training):
    row, positions = own
    split = songs([row], training, transpose=12, gain_db=0.0)
    item = split.item(0, 0)
    assert np.array_equal(item["positions"], positions)
    assert np.array_equal(item["logmel"], cut(row.records["audio_path"]["logmel"], 100).T)
    assert not np.array_equal(split.item(0, 1)["positions"], positions)


def test_a_precomputed_cloud_equals_the_rendered_one(own, rows, tmp_path):
    row, _ = own
    start = row.values["target_pointcloud_start"]
    np.save(tmp_path / "cloud.npy", render(row.records["midi_path"]["notes"], start, row.values["emotion"]).positions)
    given = songs([row], training=False).item(0, 0)
    split = songs([rows[0]], training=False)
    split.fixed[0] = (0, 100)
    assert same(given, split.item(0, 0))


CLAIMS_TERABYTES = b"F\x00" + b"{'descr':'<f4','fortran_order':False,'shape':(1000000000000,3)}".ljust(69) + b"\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (np.zeros((1200, 2), np.float32), r"float32 \[1200, 3\], not float32 \[1200, 2\]"),
        (np.zeros((1200, 3)), "not float64"),
        (np.full((1200, 3), np.nan, np.float32), "not finite"),
        (np.array([{}], object), "not a readable .npy"),
        (b"junk", "not a readable .npy"),
        (b"\x93NUMPY\x01\x00" + CLAIMS_TERABYTES, "not a readable .npy"),
        (b"", "not a readable .npy"),
    ],
)
def test_an_invalid_cloud_is_refused_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "cloud.npy"
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    with pytest.raises(ValueError, match=reason):
        check_row({"target_pointcloud_path": str(path), "emotion": [0, 0, 0.5]})


def test_a_cloud_damaged_after_the_check_is_reported_with_its_row(own, tmp_path):
    row, _ = own
    split = songs([row])
    (tmp_path / "cloud.npy").write_bytes(b"gone")
    with pytest.raises(DataError, match=r"m\.jsonl:1: .*cloud\.npy"):
        split.item(0, 0)


# -- augmentation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gain_db", [-9.0, 9.0])
def test_gain_gives_the_log_mel_of_the_louder_sound(gain_db):
    wave = make_sound(make_notes(np.random.default_rng(5), 3.0), 3.0)
    plain, want = log_mel(wave), log_mel(wave * np.float32(10 ** (gain_db / 20)))
    got = np.concatenate([sound.at_gain(cut(plain.astype(np.float16), at), gain_db) for at in (0, 64)])
    plain, want = plain[:128], want[:128]
    known = plain > sound.LOG_FLOOR + 0.01  # values at the floor before are unknown
    np.testing.assert_allclose(got[known], want[known], atol=0.01)
    assert got[~known].max() < sound.LOG_FLOOR + 0.02 + max(0, gain_db * sound.DB)
    assert (got[plain <= np.float32(sound.LOG_FLOOR)] == np.float32(sound.LOG_FLOOR)).all()
    assert known.mean() > 0.3 and (~known).any()


def test_band_centres_are_those_of_the_filters():
    np.testing.assert_allclose(sound.band_centres(), librosa.mel_frequencies(130, fmin=0, fmax=22050)[1:-1], rtol=1e-9)


@pytest.mark.parametrize("semitones", [-3, 4])
def test_transposition_moves_sound_and_notes_together(semitones):
    notes = make_notes(np.random.default_rng(6), 3.0)
    notes["pitch"] = np.random.default_rng(6).integers(60, 80, len(notes))
    moved, got = sound.transposed(notes, log_mel(make_sound(notes, 3.0)), semitones)
    assert (moved["pitch"].astype(int) - notes["pitch"] == semitones).all()
    want, plain = log_mel(make_sound(moved, 3.0)), log_mel(make_sound(notes, 3.0))
    assert np.abs(got - want).mean() < 0.5 * np.abs(plain - want).mean()


def test_drums_are_not_transposed_and_no_note_leaves_the_keyboard():
    notes = make_notes(np.random.default_rng(7), 3.0)
    notes["drum"][::2] = True
    logmel = np.zeros((64, 128), np.float32)
    moved, _ = sound.transposed(notes, logmel, 5)
    assert (moved["pitch"][::2] == notes["pitch"][::2]).all() and (moved["pitch"][1::2] != notes["pitch"][1::2]).all()
    notes["pitch"][1] = 126
    unmoved, same_sound = sound.transposed(notes, logmel, 5)
    assert unmoved is notes and same_sound is logmel


def test_the_target_follows_noise_on_the_emotion(rows):
    split = songs(rows, gain_db=0.0, emotion_noise=0.3)
    item = split.item(0, 1)
    assert not np.allclose(item["emotion"][:3], EMOTIONS[0])
    assert (np.abs(item["emotion"][:2]) <= 1).all() and 0 <= item["emotion"][2] <= 1 and not item["emotion"][3:].any()
    plain = songs(rows, gain_db=0.0, emotion_noise=0.0)
    cloud = render(rows[0].records["midi_path"]["notes"], data.seconds(start_of(plain, 0, 1)), item["emotion"])
    assert np.array_equal(item["colors"], cloud.colors)


def test_half_of_the_samples_have_no_score(rows):
    split = songs(rows, windows={"per_song": 40})
    shown = np.mean([split.item(0, i)["midi_features"].any() for i in range(len(split))])
    assert 0.3 < shown < 0.7
    assert not any(songs(rows, no_score=1.0).item(0, i)["midi_features"].any() for i in range(12))


def test_emotions_of_3_and_64_numbers_make_one_batch(rows):
    full = Row({**rows[1].values, "emotion": [0.1] * 64}, "m.jsonl:2", rows[1].records)
    split = songs([rows[0], full], training=False)
    batch = split.collate([split.item(0, i) for i in range(len(split))])
    assert batch["emotion"].shape == (4, 64) and bool((batch["emotion"][2:, 63] == 0.1).all())
    assert {key: tuple(value.shape[1:]) for key, value in batch.items()} == {
        "logmel": (128, 64), "emotion": (64,), "midi_features": (32,), "positions": (1200, 3), "colors": (1200, 4),
        "properties": (1200, 3), "sounding": (8,), "song": (),
    }  # fmt: skip
    assert split.collate([split.item(0, 0)])["logmel"].shape == (1, 128, 64)
