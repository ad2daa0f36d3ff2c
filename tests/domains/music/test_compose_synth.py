"""The synthesiser: right pitch, no clicks, no clipping, and loudness that follows velocity."""

import numpy as np
import pytest
import soundfile

from training.domains.music.composing import synth
from training.domains.music.composing.compose import compose
from training.domains.music.midi.notes import NOTE


def _note(pitch=69, velocity=80, program=0, duration=1.0, onset=0.1, drum=False):
    return np.array([(onset, duration, pitch, velocity, program, drum)], NOTE)


@pytest.mark.parametrize("family", range(16))
def test_every_family_has_the_requested_pitch(family):
    for pitch in (45, 69, 81):
        wave = synth.render(_note(pitch, program=family * 8))[4410:][:32768]
        spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 1 << 17))
        wanted = 440 * 2 ** ((pitch - 69) / 12)
        at = np.fft.rfftfreq(1 << 17, 1 / synth.SAMPLE_RATE)
        near = np.abs(at / wanted - 1) < 0.05
        assert abs(at[near][spectrum[near].argmax()] / wanted - 1) < 0.015  # a semitone is .059
        assert spectrum[near].max() > 20 * np.median(spectrum)


@pytest.mark.parametrize("program", range(0, 128, 8))
def test_notes_start_and_end_without_clicks(program):
    """A click is a jump much larger than those within the tone."""
    wave = synth.render(_note(57, 100, program, duration=0.5))
    jumps = np.abs(np.diff(wave, 2))
    start, end = int(0.1 * synth.SAMPLE_RATE), int(0.6 * synth.SAMPLE_RATE)
    tone = jumps[start + 800 : end - 800].max()
    assert jumps[: start + 300].max() < 3 * tone and jumps[end - 300 :].max() < 1.5 * tone
    assert np.abs(wave[-441:]).max() < 0.01 and np.abs(wave[: start - 1]).max() < 1e-6


def test_louder_velocity_is_louder_and_brighter():
    def level_and_brightness(velocity):
        wave = synth.render(_note(velocity=velocity))
        power = np.abs(np.fft.rfft(wave)) ** 2
        return np.sqrt(np.mean(wave**2)), (power * np.arange(len(power))).sum() / power.sum()

    levels, brightness = zip(*(level_and_brightness(v) for v in (20, 50, 80, 120)), strict=True)
    assert list(levels) == sorted(levels) and levels[-1] > 8 * levels[0]
    assert list(brightness) == sorted(brightness)


def test_pieces_keep_their_dynamics_and_never_clip():
    """Normalising each piece by its peak would make soft pieces as loud as loud ones."""
    waves = {name: synth.render(compose(name, 42, 0).notes()) for name in ("sad", "happy", "angry")}
    levels = {name: 20 * np.log10(np.sqrt(np.mean(wave**2))) for name, wave in waves.items()}
    assert levels["angry"] > levels["happy"] + 1.5 > levels["sad"] + 6
    for wave in waves.values():
        assert wave.dtype == np.float32 and np.isfinite(wave).all() and np.abs(wave).max() < 1
        assert abs(wave.mean()) < 0.01


def test_every_drum_key_sounds():
    for key in (36, 38, 42, 49, 45, 81):
        assert np.abs(synth.render(_note(key, 100, duration=0.1, drum=True))).max() > 0.02, key


def test_many_loud_notes_are_limited_and_do_not_clip():
    notes = np.concatenate([_note(pitch, 127, 48) for pitch in range(40, 90, 2)])
    wave = synth.render(notes)
    assert 0.7 < np.abs(wave).max() < 1


def test_the_same_notes_give_the_same_samples_and_no_notes_silence(tmp_path):
    notes = compose("surprise", 1, 0).notes()
    wave = synth.render(notes)
    assert np.array_equal(wave, synth.render(notes))
    assert not synth.render(notes[:0]).any() and len(synth.render(notes[:0])) > 1000
    synth.write_wav(tmp_path / "x.wav", wave)
    info = soundfile.info(tmp_path / "x.wav")
    assert (info.samplerate, info.channels, info.subtype, info.frames) == (44100, 1, "PCM_16", len(wave))
