"""Log-mel spectrograms of audio files. Files are decoded in blocks, so that memory use does not grow with their length.

A frame is 2,048 samples under a periodic Hann window, centred on sample `i * HOP`, with zeros beyond both ends of the
song. Its power spectrum is multiplied by 128 Slaney mel filters; values below FLOOR are raised to FLOOR; the natural
logarithm is stored. The tests compare with
`librosa.feature.melspectrogram(center=True, pad_mode="constant", power=2)`.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import numpy as np

from training.data.encode import Encoder
from training.errors import HostError

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

_BLOCK = 1 << 20  # samples decoded, and transformed, at a time
_RATES = (4_000, 768_000)  # Hz; a header with another rate is damaged
_LOUDEST = 1_000.0  # full scale is 1
#: Bytes per second below which a duration is not credible; the smallest real encodings have twice as many. A file that
#: declares more sound for its size is hostile (a FLAC of constant blocks packs a day into a megabyte) and would keep a
#: decoder busy for hours, so it is refused. The first minute is always allowed.
_LEAST_BYTES, _FREE_SECONDS = 500, 60
_STREAMED = 0x7FFF_F000  # a WAV written to a pipe has no size in its header: it declares this many bytes or more
_INSTALL_FFMPEG = "install it with: sudo apt-get install -y ffmpeg"
#: The formats that ffmpeg may detect. None is a playlist or a script, which could make it open other files.
_CONTAINERS = "mov,mp4,m4a,aac,mp3,ogg,flac,wav,w64,aiff,au,caf,matroska,asf"
_ONLY_FFMPEG = (".m4a", ".aac")


def hann() -> np.ndarray:
    """The periodic Hann window, float64 [2048]: .5 - .5 cos(2 pi n / 2048)."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)


@cache
def mel_filters() -> np.ndarray:
    """The mel filter bank, float32 [128, 1025]: mel power = filters @ power spectrum. Slaney's scale and area norm."""
    import librosa  # slow to import; needed once per process

    filters = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=N_MELS)
    filters.flags.writeable = False
    return filters


def decode(path: Path) -> np.ndarray:
    """A file's sound: float32 [n] at 44,100 Hz, the mean of its channels, full scale 1.

    Decoded by soundfile, or by ffmpeg where soundfile cannot. Raises ValueError (with the reason) if the file cannot be
    read, holds numbers that are not finite, or less sound than one window; HostError if ffmpeg is needed and missing.
    """
    return np.concatenate(list(_sound(Path(path))))


def log_mel(wave: np.ndarray) -> np.ndarray:
    """float32 [n] at 44,100 Hz -> float32 [1 + n // 1024, 128], natural logarithms."""
    wave = np.asarray(wave, np.float32)
    return np.concatenate(list(_log_mel_blocks(wave[at : at + _BLOCK] for at in range(0, max(len(wave), 1), _BLOCK))))


def encode_audio(path: Path) -> dict[str, np.ndarray]:
    """A file -> {"logmel": float16 [T, 128]} of all its sound. Raises as `decode` does, and ValueError for silence."""
    blocks = [block.astype(np.float16) for block in _log_mel_blocks(_sound(Path(path)))]
    logmel = np.concatenate(blocks)
    if (logmel <= np.float16(np.log(FLOOR))).all():
        raise ValueError("is silent from beginning to end")
    return {"logmel": logmel}


LOGMEL = Encoder(
    kind="logmel",
    version=f"2-{SAMPLE_RATE}-{N_FFT}-{HOP}-{N_MELS}-{FLOOR:g}",
    function=encode_audio,
    imports=("librosa", "librosa.filters", "scipy.fft", "soundfile", "soxr"),
)


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


def _sound(path: Path) -> Iterator[np.ndarray]:
    """Blocks of a file's sound, mono, at SAMPLE_RATE, checked."""
    import soxr

    blocks = _open(path)
    rate = next(blocks)
    if not _RATES[0] <= rate <= _RATES[1]:
        raise ValueError(f"has a sample rate of {rate} Hz")
    resampler = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, quality="HQ")
    longest = _longest(path)
    total = 0
    for block in blocks:
        peak = float(np.maximum(block.max(initial=0.0), -block.min(initial=0.0)))  # NaN if any sample is NaN
        if not np.isfinite(peak):
            raise ValueError("holds samples that are not finite numbers")
        if peak > _LOUDEST:
            raise ValueError(f"holds samples as large as {peak:g}; full scale is 1")
        mono = _mono(block)
        mono = resampler.resample_chunk(mono) if resampler else mono
        total += len(mono)
        if total > longest * SAMPLE_RATE:
            raise ValueError(_too_dense(path, longest))
        yield mono
    if resampler:
        mono = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        total += len(mono)
        yield mono
    if total < WINDOW_FRAMES * HOP:
        raise ValueError(f"holds {total / SAMPLE_RATE:.2f} s of sound; at least {WINDOW_SECONDS:.2f} s are needed")


def _mono(block: np.ndarray) -> np.ndarray:
    """float32 [n, channels] -> the mean of the channels [n]."""
    if block.shape[1] == 2:  # the same result as `mean`, ten times faster
        return (block[:, 0] + block[:, 1]) / np.float32(2)
    return block.mean(axis=1, dtype=np.float32)


def _open(path: Path) -> Iterator:
    """First the file's sample rate, then blocks float32 [n, channels]. By soundfile, else by ffmpeg."""
    import soundfile

    if not path.is_file():
        raise ValueError("is not a regular file")
    if path.stat().st_size == 0:
        raise ValueError("is an empty file")
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        yield from _ffmpeg(path, str(error.error_string))
        return
    with file:
        declared = _declared_frames(path, file)
        if declared is None and file.format == "MP3" and shutil.which("ffmpeg"):
            yield from _ffmpeg(path, "")  # libsndfile guesses the length of such a file and stops reading there
            return
        yield file.samplerate
        if declared is not None and declared > _longest(path) * file.samplerate:
            raise ValueError(_too_dense(path, declared / file.samplerate))
        held, most = 0, _BLOCK // file.channels
        try:
            # Stop at the first short block: after a damaged OGG page, libsndfile returns samples that the file does
            # not hold.
            while len(block := file.read(most, dtype="float32", always_2d=True)):
                held += len(block)
                yield block
                if len(block) < most:
                    break
        except soundfile.LibsndfileError as error:
            raise ValueError(f"breaks off: {error.error_string}") from error
        if declared is not None and held < 0.99 * declared:
            expected, found = (frames / file.samplerate for frames in (declared, held))
            raise ValueError(f"is truncated: its header declares {expected:.1f} s of sound; {found:.1f} s can be read")


def _longest(path: Path) -> float:
    """Upper bound of the seconds of sound in a file of this size."""
    return _FREE_SECONDS + path.stat().st_size / _LEAST_BYTES


def _too_dense(path: Path, seconds: float) -> str:
    return f"claims {seconds / 60:,.0f} minutes of sound in {path.stat().st_size:,} bytes; no recording is that small"


def _declared_frames(path: Path, file) -> int | None:
    """Frames that the header declares; None if it does not (for an MP3 without a count, libsndfile's is a guess)."""
    with path.open("rb") as stream:
        if file.format == "WAV":
            return _wav_frames(stream)
        if file.format in ("FLAC", "OGG"):
            return file.frames if 0 < file.frames < 1 << 60 else None
        if file.format == "MP3":
            head = stream.read(10)
            tag = 0
            if head[:3] == b"ID3":
                tag = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
            stream.seek(tag)
            first = stream.read(200)
            return file.frames if b"Xing" in first or b"Info" in first else None
    return None


def _wav_frames(stream) -> int | None:
    """Frames that a RIFF file's data chunk should have; None for a streamed file or another layout."""
    if stream.read(12)[:4] != b"RIFF":
        return None
    width = 0
    while len(chunk := stream.read(8)) == 8:
        name, size = struct.unpack("<4sI", chunk)
        if name == b"data":
            return size // width if width and 0 < size < _STREAMED else None
        if name == b"fmt ":
            body = stream.read(16)
            width = struct.unpack("<H", body[12:14])[0] if len(body) == 16 else 0
            size -= len(body)
        stream.seek(size + size % 2, 1)
    return None


def _ffmpeg(path: Path, reason: str) -> Iterator:
    """As `_open`, from ffmpeg's first audio stream. `reason`: soundfile's error."""
    program = shutil.which("ffmpeg")
    if program is None:
        if path.suffix.lower() in _ONLY_FFMPEG:
            raise HostError(f"{path}: ffmpeg decodes {path.suffix} files and is missing; {_INSTALL_FFMPEG}")
        raise ValueError(f"cannot be decoded: {reason}")
    command = [program, "-nostdin", "-hide_banner", "-v", "error", "-threads", "1"]
    command += ["-protocol_whitelist", "file,pipe", "-format_whitelist", _CONTAINERS, "-i", f"file:{path.absolute()}"]
    # The AU format is a header of six numbers and then samples, so rate, channels and sound come through one pipe.
    command += ["-map", "0:a:0", "-vn", "-sn", "-dn", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        try:
            header = process.stdout.read(24)
            if len(header) < 24:
                process.wait()
                raise ValueError(f"cannot be decoded; ffmpeg: {_first_error(errors)}")
            _, offset, _, _, rate, channels = struct.unpack(">6I", header)
            process.stdout.read(offset - 24)
            yield rate
            width = 4 * channels
            while data := process.stdout.read(_BLOCK // channels * width):
                complete = len(data) - len(data) % width
                yield np.frombuffer(data[:complete], ">f4").astype(np.float32).reshape(-1, channels)
            if process.wait() != 0:
                raise ValueError(f"breaks off; ffmpeg: {_first_error(errors)}")
            if b"partial file" in _all(errors):  # ffmpeg's message for an MP4 whose index declares more data
                raise ValueError("is truncated: its index declares more sound than the file holds")
        finally:
            process.kill()


def _first_error(stream) -> str:
    """The first line of ffmpeg's error output, without its "[decoder @ address]" prefix and the path."""
    lines = _all(stream).decode(errors="replace").strip().splitlines()
    return re.sub(r"^(\[[^]]*\]|file:.*:(?= ))\s*", "", lines[0])[:200] if lines else "no reason given"


def _all(stream) -> bytes:
    stream.seek(0)
    return stream.read()
