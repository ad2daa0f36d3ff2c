"""Channels that cancel each other in their mean are kept; levels and samples that are no sound are refused."""

import numpy as np
import pytest
import soundfile

from training.domains.music.audio import SAMPLE_RATE, decode, encode_audio
from training.domains.music.sound.mixing import Levels, mix, weights


def music(seed: int = 1, seconds: float = 2.0) -> np.ndarray:
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    noise = np.random.default_rng(seed).standard_normal(len(t))
    return (0.2 * np.sin(2 * np.pi * (220 + 50 * seed) * t) + 0.05 * noise).astype(np.float32)


def file(path, *channels, subtype="FLOAT"):
    soundfile.write(path, np.stack(channels, axis=1), SAMPLE_RATE, format="WAV", subtype=subtype)
    return path


def rms(wave: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))


# -- mixing --------------------------------------------------------------------------------------------------------


def test_channels_of_opposite_polarity_sound_like_one_of_them(tmp_path):
    left = music()
    both, one = file(tmp_path / "both.wav", left, -left), file(tmp_path / "one.wav", left)
    stored = encode_audio(both)
    assert np.array_equal(stored["logmel"], encode_audio(one)["logmel"])
    assert stored["mix"].tolist() == [0.5, -0.5]
    assert np.array_equal(decode(both), left)


@pytest.mark.parametrize("gain, noise", [(-0.95, 0.0), (-1.0, 0.02), (-0.7, 0.0), (-1.2, 0.01)])
def test_nearly_opposite_channels_keep_their_level(tmp_path, gain, noise):
    left = music()
    right = gain * left + noise * np.random.default_rng(2).standard_normal(len(left)).astype(np.float32)
    path = file(tmp_path / "a.wav", left, right)
    assert len(encode_audio(path)["mix"]) == 2
    assert rms(decode(path)) == pytest.approx(rms(np.stack([left, right])), rel=0.1)


@pytest.mark.parametrize("right", ["the same", "independent", "silent", "wide", "half of it opposite"])
def test_ordinary_stereo_is_the_mean_of_its_channels(tmp_path, right):
    left, other = music(1), music(2)
    half = np.where(np.arange(len(left)) < len(left) // 2, -left, left)
    wave = {"the same": left, "independent": other, "silent": 0 * left, "wide": other - 0.5 * left,
            "half of it opposite": half}[right]  # fmt: skip
    path = file(tmp_path / "a.wav", left, wave)
    assert encode_audio(path)["mix"].shape == (0,)
    read = soundfile.read(path, dtype="float32")[0]
    assert np.array_equal(decode(path), (read[:, 0] + read[:, 1]) / np.float32(2))


def test_of_several_channels_that_cancel_each_other_the_loudest_is_used(tmp_path):
    left, other = music(1), music(2)
    path = file(tmp_path / "a.wav", 0.5 * left, -0.5 * left, other, -other)
    assert np.array_equal(decode(path), other)
    assert encode_audio(path)["mix"].tolist() == [0, 0, 1, 0]
    eight = file(tmp_path / "eight.wav", *[0 * left] * 7, left)
    assert encode_audio(eight)["mix"].shape == (0,)  # one of eight channels is soft in the mean, and not cancelled


def test_how_a_song_is_mixed_does_not_depend_on_its_blocks():
    left = music()
    channels = np.stack([left, -0.62 * left], axis=1)  # close to the limit
    for size in (1000, 4096, 44_100, len(left)):
        blocks = [channels[at : at + size] for at in range(0, len(left), size)]
        levels = Levels()
        for block in blocks:
            levels.add(block, mix(block))
        assert levels.may_cancel()
        assert (weights(blocks) is None) == (weights([channels]) is None)


# -- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale, level", [(127, 1.0), (127, 0.05), (32768, 1.0), (32768, 0.001), (2**31, 1.0)])
def test_integers_stored_as_floating_point_numbers_are_refused(tmp_path, scale, level):
    with pytest.raises(ValueError, match="full scale is 1"):
        encode_audio(file(tmp_path / "a.wav", scale * level * music() * 2))


def test_a_floating_point_mix_above_full_scale_is_accepted(tmp_path):
    path = file(tmp_path / "a.wav", 6 * music())
    assert np.abs(decode(path)).max() > 1.5


@pytest.mark.parametrize("channels", [(0.5,), (0.5, 0.5), (0.5, -0.5), (-1.0, 0.25)])
def test_a_constant_level_is_not_sound(tmp_path, channels):
    flat = np.ones(3 * SAMPLE_RATE, np.float32)
    with pytest.raises(ValueError, match="a constant level is not sound"):
        encode_audio(file(tmp_path / "a.wav", *(level * flat for level in channels)))


def test_a_constant_level_under_music_is_no_fault(tmp_path):
    assert len(encode_audio(file(tmp_path / "a.wav", music() + 0.3))["logmel"])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused_in_every_channel_and_block(tmp_path, value):
    right = music(2, 30.0)
    right[-5] = value
    with pytest.raises(ValueError, match="not finite"):
        encode_audio(file(tmp_path / "a.wav", music(1, 30.0), right))
