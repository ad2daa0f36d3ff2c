"""Log-mel spectrograms equal librosa's; files that cannot be decoded are refused with a reason."""

import random
import shutil
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from training.domains.music import audio, mel
from training.domains.music.audio import HOP, SAMPLE_RATE, WINDOW_FRAMES, decode, encode_audio, log_mel
from training.errors import HostError

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


def sound(seconds: float = 2.0, rate: int = SAMPLE_RATE, channels: int = 1) -> np.ndarray:
    """A chord that fades, over a little noise: float64 [n, channels], channels of different loudness."""
    t = np.arange(round(seconds * rate)) / rate
    wave = sum(np.sin(2 * np.pi * f * t) for f in (220.0, 277.2, 1661.2)) / 6 * (1 - 0.4 * t / seconds)
    wave = wave + 0.01 * np.random.default_rng(1).standard_normal(len(t))
    return np.stack([wave / (i + 1) for i in range(channels)], axis=1)


def write(path: Path, wave: np.ndarray, rate: int = SAMPLE_RATE) -> Path:
    """Write any supported format, with soundfile or ffmpeg."""
    kinds = {".wav": {}, ".flac": {}, ".ogg": {"format": "OGG", "subtype": "VORBIS"}, ".mp3": {"format": "MP3"}}
    suffix = path.suffix.lower()
    if suffix in kinds:
        soundfile.write(path, wave, rate, **kinds[suffix])
    else:
        source = path.with_name("source.wav")
        soundfile.write(source, wave, rate)
        command = ["ffmpeg", "-nostdin", "-y", "-v", "error", "-i", str(source), "-c:a", "aac", "-b:a", "192k"]
        subprocess.run([*command, f"file:{path}"], check=True)
    return path


# -- the numbers ---------------------------------------------------------------------------------------------------


def test_a_window_lasts_one_and_a_half_seconds():
    """64 frames with a hop of 512 would be only .74 s."""
    assert (WINDOW_FRAMES, HOP, SAMPLE_RATE) == (64, 1024, 44100)
    assert pytest.approx(1.486, abs=5e-4) == audio.WINDOW_SECONDS
    frames = len(log_mel(np.zeros(round(1.486 * SAMPLE_RATE), np.float32)))
    assert frames == WINDOW_FRAMES


@pytest.mark.parametrize("samples", [65536, 65537, 70000, 3 * 44100 + 511, (1 << 20) + 2047, (1 << 20) + 90_000])
def test_log_mels_are_those_of_librosa(samples):
    import librosa

    wave = (np.resize(sound(3.0)[:, 0], samples) * np.linspace(1, 0, samples) ** 4).astype(np.float32)
    power = librosa.feature.melspectrogram(
        y=wave, sr=SAMPLE_RATE, n_fft=2048, hop_length=1024, n_mels=128, center=True, pad_mode="constant"
    )
    ours = log_mel(wave)
    assert ours.dtype == np.float32 and ours.shape == (1 + samples // 1024, 128)
    np.testing.assert_allclose(ours, np.log(np.maximum(power, audio.FLOOR)).T, atol=2e-3)


@pytest.mark.parametrize(("rate", "n_fft", "count"), [(SAMPLE_RATE, audio.N_FFT, audio.N_MELS), (16_000, 512, 40)])
def test_filters_are_those_of_librosa_to_the_bit(rate, n_fft, count):
    """Stored log-mels are found again by the version of their encoder."""
    import librosa

    assert np.array_equal(mel.frequencies(count + 2, rate / 2), librosa.mel_frequencies(count + 2, fmax=rate / 2))
    ours, theirs = mel.filters(rate, n_fft, count), librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=count)
    assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs)


def test_the_public_constants_define_the_stored_frames():
    """hann, mel_filters, FLOOR, and the samples of a window."""
    wave = np.random.default_rng(0).standard_normal(200_000).astype(np.float32) * 0.1
    s = 37
    samples = wave[s * HOP - 1024 :][: audio.WINDOW_SAMPLES].astype(np.float64)
    assert len(samples) == audio.WINDOW_SAMPLES == 66_560
    frames = np.stack([samples[i * HOP : i * HOP + 2048] * audio.hann() for i in range(WINDOW_FRAMES)])
    power = np.abs(np.fft.rfft(frames)) ** 2 @ audio.mel_filters().T
    np.testing.assert_allclose(np.log(np.maximum(power, audio.FLOOR)), log_mel(wave)[s : s + 64], atol=1e-3)


def test_half_precision_represents_the_loudest_and_the_softest_sound(tmp_path):
    wave = np.ones((90_000, 1)) * np.where(np.arange(90_000)[:, None] % 50 < 25, 1.0, -1.0)
    wave[45_000:] = 0
    stored = encode_audio(write(tmp_path / "square.wav", wave))["logmel"]
    assert stored.dtype == np.float16 and np.isfinite(stored).all()
    assert stored.min() == np.float16(np.log(audio.FLOOR))
    np.testing.assert_allclose(stored.astype(np.float32), log_mel(decode(tmp_path / "square.wav")), atol=0.01)


def test_memory_does_not_grow_with_the_length_of_a_file(tmp_path):
    """Ten minutes take no more than one, apart from the result."""
    minute = (np.random.default_rng(0).standard_normal(SAMPLE_RATE * 60) * 1000).astype(np.int16)
    peaks = []
    for minutes in (1, 10):
        path = tmp_path / f"{minutes}.wav"
        with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1) as file:
            for _ in range(minutes):
                file.write(minute)
        audio.mel_filters()
        tracemalloc.start()
        encode_audio(path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    stored = 2 * 128 * 2 * 10 * 60 * SAMPLE_RATE / HOP  # bytes: the result, and the parts that it is concatenated from
    assert peaks[1] < peaks[0] + stored


# -- every format --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("a.wav", 1e-3), ("A.WAV", 1e-3), ("a.flac", 1e-3), ("a.ogg", 0.05), ("a.mp3", 0.05)]
    + [pytest.param(name, 0.05, marks=needs_ffmpeg) for name in ("a.m4a", "a.M4A")],
)
def test_every_format_decodes_to_the_same_sound(tmp_path, name, tolerance):
    wave = sound(channels=2)
    ours = decode(write(tmp_path / name, wave))
    assert ours.dtype == np.float32 and ours.ndim == 1
    inner = slice(4000, 80_000)
    np.testing.assert_allclose(ours[inner], wave.mean(axis=1)[inner], atol=tolerance)


@needs_ffmpeg
def test_raw_aac_decodes_to_the_same_sound_after_its_encoders_delay(tmp_path):
    wave = sound(channels=2)
    ours = decode(write(tmp_path / "a.aac", wave))
    np.testing.assert_allclose(ours[5024:81_024], wave.mean(axis=1)[4000:80_000], atol=0.05)


@pytest.mark.parametrize("rate", [22_050, 32_000, 48_000, 96_000])
def test_other_sample_rates_are_resampled_as_librosa_does(tmp_path, rate):
    import librosa

    path = write(tmp_path / "a.flac", sound(30.0, rate), rate)
    wave, _ = soundfile.read(path, dtype="float32")
    expected = librosa.resample(wave, orig_sr=rate, target_sr=SAMPLE_RATE)
    ours = decode(path)
    assert abs(len(ours) - len(expected)) <= 1
    np.testing.assert_allclose(ours[: len(expected)], expected[: len(ours)], atol=1e-4)


@needs_ffmpeg
def test_a_file_with_the_extension_of_another_format_is_decoded(tmp_path):
    path = write(tmp_path / "a.m4a", sound())
    assert len(decode(path.rename(tmp_path / "a.mp3"))) >= 65_536


AWKWARD = ["-i.m4a", 'it\'s a "song".m4a', "line\nbreak.m4a", "http:%20x|y;$(z) é.m4a", "a:b.m4a"]


@needs_ffmpeg
@pytest.mark.parametrize("name", AWKWARD)
def test_ffmpeg_gets_any_file_name_unchanged(tmp_path, monkeypatch, name):
    """With a space, quote, newline or leading dash."""
    write(tmp_path / "plain.m4a", sound()).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(decode(Path(name))) >= 65_536


# -- refusal -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["wav", "mp3", "flac", "ogg", "m4a", "aac"])
@pytest.mark.parametrize("content", ["noise", "text", "zeros"])
def test_a_file_that_is_not_audio_is_refused_with_a_reason(tmp_path, suffix, content):
    data = {"noise": np.random.default_rng(3).bytes(50_000), "text": b"not a song\n" * 2000, "zeros": bytes(50_000)}
    path = tmp_path / f"broken.{suffix}"
    path.write_bytes(data[content])
    with pytest.raises((ValueError, HostError), match=r"decoded|ffmpeg|needed"):
        encode_audio(path)


@pytest.mark.parametrize(
    ("wave", "reason"),
    [
        (sound(1.4), r"holds 1\.40 s of sound; at least 1\.49 s"),
        (np.zeros((90_000, 1)), "silent from beginning to end"),
        (np.where(np.arange(90_000) == 70_000, np.nan, 0.1)[:, None], "not finite"),
        (np.where(np.arange(90_000) == 70_000, np.inf, 0.1)[:, None], "not finite"),
        (sound() * 32768, "full scale is 1"),
    ],
    ids=["short", "silent", "nan", "infinite", "integers as floats"],
)
def test_sound_that_cannot_train_is_refused_with_a_reason(tmp_path, wave, reason):
    path = tmp_path / "a.wav"
    soundfile.write(path, wave, SAMPLE_RATE, subtype="FLOAT")
    with pytest.raises(ValueError, match=reason):
        encode_audio(path)


def test_an_empty_file_a_folder_and_a_wrong_header_are_refused(tmp_path):
    empty = tmp_path / "empty.wav"
    empty.touch()
    with pytest.raises(ValueError, match="empty file"):
        decode(empty)
    with pytest.raises(ValueError, match="regular file"):
        decode(tmp_path)
    soundfile.write(tmp_path / "slow.wav", sound(), 100)
    with pytest.raises(ValueError, match="sample rate of 100 Hz"):
        decode(tmp_path / "slow.wav")


def test_a_truncated_flac_is_refused(tmp_path):
    path = write(tmp_path / "a.flac", sound(10.0))
    path.write_bytes(path.read_bytes()[:-200_000])
    with pytest.raises(ValueError, match="breaks off"):
        decode(path)


@needs_ffmpeg
@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".ogg", pytest.param(".m4a", marks=needs_ffmpeg)])
def test_a_truncated_download_is_refused(tmp_path, suffix):
    """For formats that declare their length: in a WAV's header, an MP3's frame count, an MP4's index."""
    data = bytearray(write(tmp_path / f"intact{suffix}", sound(6.0)).read_bytes())
    if suffix == ".m4a":  # with the index at the start, as for streaming
        command = ["ffmpeg", "-v", "error", "-i", str(tmp_path / "intact.m4a"), "-c", "copy", "-movflags", "+faststart"]
        subprocess.run([*command, str(tmp_path / "fast.m4a")], check=True)
        data = bytearray((tmp_path / "fast.m4a").read_bytes())
    broken = tmp_path / f"broken{suffix}"
    if suffix == ".ogg":  # a damaged page in the middle, because a truncated OGG cannot be recognised
        data[len(data) // 2] ^= 0xFF
    broken.write_bytes(data[: len(data) * 2 // 3] if suffix != ".ogg" else data)
    with pytest.raises(ValueError, match=r"is truncated|breaks off|CRC"):
        encode_audio(broken)


def test_a_streamed_wav_without_a_length_is_accepted(tmp_path):
    for size in (0xFFFFFFFF, 0x7FFFFFFF, 0):
        data = bytearray(write(tmp_path / "a.wav", sound()).read_bytes())
        data[40:44] = size.to_bytes(4, "little")
        (tmp_path / "a.wav").write_bytes(data)
        if size:
            assert len(encode_audio(tmp_path / "a.wav")["logmel"]) == 1 + 88_200 // HOP


@needs_ffmpeg
def test_an_mp3_without_a_count_is_read_to_its_end(tmp_path):
    """libsndfile guesses the length of a variable-bit-rate file from its beginning (here silence) and stops reading
    there (2.8 s of these six)."""
    wave = np.concatenate([np.zeros((2 * SAMPLE_RATE, 1)), sound(4.0)])
    data = write(tmp_path / "a.mp3", wave).read_bytes()
    at = max(data.find(b"Xing"), data.find(b"Info"))
    assert at > 0
    (tmp_path / "a.mp3").write_bytes(data[:at] + b"none" + data[at + 4 :])
    assert len(encode_audio(tmp_path / "a.mp3")["logmel"]) >= 6 * SAMPLE_RATE // HOP


def test_a_day_of_sound_in_a_megabyte_is_refused_at_once(tmp_path):
    """A FLAC of constant blocks, with and without its length in the header."""
    from soak.hostile import flac_bomb

    for honest in (True, False):
        path = tmp_path / f"{honest}.flac"
        path.write_bytes(flac_bomb(random.Random(1), 3.0, honest))
        before = time.process_time()
        with pytest.raises(ValueError, match="no recording is that small"):
            encode_audio(path)
        assert time.process_time() - before < 4.0


def test_a_playlist_with_an_audio_extension_opens_no_other_file(tmp_path):
    write(tmp_path / "secret.aac", sound())
    disguise = tmp_path / "song.m4a"
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:3", "#EXTINF:3,", f"file://{tmp_path}/secret.aac", "#EXT-X-ENDLIST"]
    disguise.write_text("\n".join(lines))
    with pytest.raises(ValueError, match="cannot be decoded"):
        decode(disguise)


def test_without_ffmpeg_the_error_has_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / "a.m4a"
    path.write_bytes(bytes(1000))
    with pytest.raises(HostError, match=r"a\.m4a.*apt-get install -y ffmpeg"):
        decode(path)
    with pytest.raises(ValueError, match="cannot be decoded"):
        decode(path.rename(tmp_path / "a.wav"))


def test_the_encoder_can_be_pickled_and_its_version_has_the_parameters():
    import pickle

    assert pickle.loads(pickle.dumps(audio.LOGMEL)) == audio.LOGMEL
    for value in (SAMPLE_RATE, audio.N_FFT, HOP, audio.N_MELS, f"{audio.FLOOR:g}"):
        assert str(value) in audio.LOGMEL.version


def test_neither_decoding_nor_aligning_imports_librosa():
    """It takes seconds in every process."""
    code = (
        "import sys, numpy as np; from training.domains.music import audio; "
        "from training.domains.music.alignment import align, features; "
        "audio.log_mel(np.zeros(70_000, np.float32)); features.partials(); "
        "print([name for name in ('librosa', 'scipy.stats', 'torch') if name in sys.modules])"
    )
    messages = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=Path(__file__).resolve().parents[3])
    assert messages == "[]\n"
