"""Log-mel spectrograms of audio files. Files are decoded in blocks, so that memory use does not grow with their length.

A frame is 2,048 samples under a periodic Hann window, centred on sample `i * HOP`, with zeros beyond both ends of the
song. Its power spectrum is multiplied by 128 Slaney mel filters; values below FLOOR are raised to FLOOR; the natural
logarithm is stored. The tests compare with
`librosa.feature.melspectrogram(center=True, pad_mode="constant", power=2)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import numpy as np

from training.data.encode import Encoder
from training.domains.music import mel
from training.domains.music.sound import decoding
from training.domains.music.sound.decoding import BLOCK, open_sound, too_dense
from training.domains.music.sound.mixing import Levels, mix
from training.domains.music.sound.mixing import weights as weights_of

SAMPLE_RATE = 44100
N_FFT = 2048
HOP = 1024
N_MELS = 128
WINDOW_FRAMES = 64
WINDOW_SECONDS = WINDOW_FRAMES * HOP / SAMPLE_RATE  # 1.486
#: Number of samples that determine WINDOW_FRAMES frames. For frames from s on they start at `s * HOP - N_FFT // 2`.
WINDOW_SAMPLES = (WINDOW_FRAMES - 1) * HOP + N_FFT
#: Smallest mel power; smaller values are raised to it. About 85 dB below a full-scale tone.
FLOOR = 1e-5

_RATES = (4_000, 768_000)  # Hz; a header with another rate is damaged
#: Largest sample, and largest mean level, where full scale is 1. Floating-point mixes exceed 1; a sine of that level
#: would have a peak of 2.1.
_LOUDEST, _LOUDEST_MEAN = 8.0, 1.5
_UNSCALED = "full scale is 1 (are these integers, stored as floating-point numbers without scaling?)"


def hann() -> np.ndarray:
    """The periodic Hann window, float64 [2048]: .5 - .5 cos(2 pi n / 2048)."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)


@cache
def mel_filters() -> np.ndarray:
    """The mel filter bank, float32 [128, 1025]: mel power = filters @ power spectrum. Slaney's scale and area norm."""
    filters = mel.filters(SAMPLE_RATE, N_FFT, N_MELS)
    filters.flags.writeable = False
    return filters


def decode(path: Path) -> np.ndarray:
    """A file's sound: float32 [n] at 44,100 Hz, full scale 1; the mean of its channels (exceptions: sound/mixing.py).

    Decoded by soundfile, or by ffmpeg where soundfile cannot. Raises ValueError (with the reason) if the file cannot be
    read to its end, holds numbers that are not finite, or less sound than one window; HostError if ffmpeg is needed and
    missing.
    """
    return np.concatenate(_mixed(Path(path), list)[0])


def log_mel(wave: np.ndarray) -> np.ndarray:
    """float32 [n] at 44,100 Hz -> float32 [1 + n // 1024, 128], natural logarithms."""
    wave = np.asarray(wave, np.float32)
    return np.concatenate(list(_log_mel_blocks(wave[at : at + BLOCK] for at in range(0, max(len(wave), 1), BLOCK))))


def encode_audio(path: Path) -> dict[str, np.ndarray]:
    """A file -> all of its sound: {"logmel": float16 [T, 128], "mix": float32 [channels], the weights of the channels,
    or [0] for their mean}. Raises as `decode` does, and ValueError where nothing is heard."""
    blocks, weights = _mixed(Path(path), lambda sound: [block.astype(np.float16) for block in _log_mel_blocks(sound)])
    logmel = np.concatenate(blocks)
    nothing = np.float16(np.log(FLOOR))
    if (logmel <= nothing).all():
        raise ValueError("is silent from beginning to end")
    if (logmel[2:-3, 1:] <= nothing).all():  # a step at either end is heard; the lowest filter passes a constant
        raise ValueError("holds no sound above 30 Hz (a constant level is not sound)")
    return {"logmel": logmel, "mix": np.zeros(0, np.float32) if weights is None else weights}


LOGMEL = Encoder(
    kind="logmel",
    version=f"3-{SAMPLE_RATE}-{N_FFT}-{HOP}-{N_MELS}-{FLOOR:g}",
    function=encode_audio,
    imports=("scipy.fft", "soundfile", "soxr"),
)


def _mixed(
    path: Path, work: Callable[[Iterator[np.ndarray]], list[np.ndarray]]
) -> tuple[list[np.ndarray], np.ndarray | None]:
    """`work` on a file's sound, and the weights of its channels (None: their mean). Whether the channels cancel each
    other is known at the end of a song; it is then decoded again."""
    levels = Levels()
    done = work(_sound(path, levels))
    if not levels.may_cancel():
        return done, None
    blocks = open_sound(path)
    next(blocks)
    weights = weights_of(blocks)
    return (done, None) if weights is None else (work(_sound(path, Levels(), weights)), weights)


def _log_mel_blocks(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Consecutive pieces of a wave -> consecutive pieces of its log-mel; memory holds one piece and one frame."""
    window = hann().astype(np.float32)
    filters = np.ascontiguousarray(mel_filters().T)
    held = np.zeros(N_FFT // 2, np.float32)
    for block in blocks:
        held = np.concatenate([held, block])
        count = max(0, (len(held) - N_FFT) // HOP + 1)
        yield _transform(held, count, window, filters)
        held = held[count * HOP :]
    held = np.concatenate([held, np.zeros(N_FFT // 2, np.float32)])
    yield _transform(held, max(0, (len(held) - N_FFT) // HOP + 1), window, filters)


def _transform(wave: np.ndarray, count: int, window: np.ndarray, filters: np.ndarray) -> np.ndarray:
    from scipy import fft

    out = np.empty((count, N_MELS), np.float32)
    if count == 0:
        return out
    frames = np.lib.stride_tricks.sliding_window_view(wave, N_FFT)[::HOP]
    for at in range(0, count, 256):
        spectrum = fft.rfft(frames[at : min(at + 256, count)] * window, axis=1)
        power = spectrum.real**2 + spectrum.imag**2
        np.log(np.maximum(power @ filters, np.float32(FLOOR)), out=out[at : at + len(power)])
    return out


def _sound(path: Path, levels: Levels, weights: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Blocks of a file's sound, mono, at SAMPLE_RATE, checked. `levels` is filled in."""
    import soxr

    blocks = open_sound(path)
    rate = next(blocks)
    if not _RATES[0] <= rate <= _RATES[1]:
        raise ValueError(f"has a sample rate of {rate} Hz")
    resampler = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, quality="HQ")
    most = decoding.longest(path)
    total = 0
    for block in blocks:
        peak = float(np.maximum(block.max(initial=0.0), -block.min(initial=0.0)))  # NaN if any sample is NaN
        if not np.isfinite(peak):
            raise ValueError("holds samples that are not finite numbers")
        if peak > _LOUDEST:
            raise ValueError(f"holds samples as large as {peak:g}; {_UNSCALED}")
        mono = mix(block, weights)
        levels.add(block, mono)
        mono = resampler.resample_chunk(mono) if resampler else mono
        total += len(mono)
        if total > most * SAMPLE_RATE:
            raise ValueError(too_dense(path, most))
        yield mono
    if resampler:
        mono = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        total += len(mono)
        yield mono
    if total < WINDOW_FRAMES * HOP:
        raise ValueError(f"holds {total / SAMPLE_RATE:.2f} s of sound; at least {WINDOW_SECONDS:.2f} s are needed")
    if levels.rms > _LOUDEST_MEAN:
        raise ValueError(f"has a mean level (RMS) of {levels.rms:.1f}; {_UNSCALED}")
