"""Recordings of a guitar without its amplifier (DI): decoding, and the clips of manifest rows at a capture's rate."""

from __future__ import annotations

from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.data.encode import Encoder

if TYPE_CHECKING:
    from training.data.rows import Row

SUFFIXES = (".wav", ".flac")
DI_PATH = "di_path"
LEAST_SECONDS = 2.0
CLIPPED = 0.001  # the largest share of samples at full scale
_FULL = 0.999
_MOST_SECONDS = 7200.0
_RATES = (8_000, 384_000)
_MARGIN = 64  # samples at the capture's rate that are cut from both ends of what was resampled: its edges ring


def decode(path: Path) -> dict[str, np.ndarray]:
    """A file -> {"sound": float32 [n], its left channel, full scale 1; "rate": int64 [], in Hz; "channels": int64 []}.

    Raises ValueError, with the reason, if it cannot be decoded, is shorter than LEAST_SECONDS, silent, not finite, or
    more than CLIPPED of it is at full scale.
    """
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            rate, channels, frames = file.samplerate, file.channels, file.frames
            if not _RATES[0] <= rate <= _RATES[1]:
                raise ValueError(f"its sample rate is {rate:,} Hz")
            if frames > _MOST_SECONDS * rate:
                raise ValueError(f"{frames / rate / 60:.0f} minutes; at most {_MOST_SECONDS / 60:.0f} are read")
            sound = np.ascontiguousarray(file.read(dtype="float32", always_2d=True)[:, 0])
    except soundfile.LibsndfileError as error:
        raise ValueError(f"cannot be decoded: {error.error_string}") from None
    if len(sound) < LEAST_SECONDS * rate:
        raise ValueError(f"{len(sound) / rate:.2f} s; at least {LEAST_SECONDS:g} s are needed")
    if not np.isfinite(sound).all():
        raise ValueError("holds numbers that are not finite")
    if not np.abs(sound).max() > 1e-5:
        raise ValueError("is silent")
    clipped = float((np.abs(sound) >= _FULL).mean())
    if clipped > CLIPPED:
        raise ValueError(f"{clipped:.2%} of it is clipped; at most {CLIPPED:.1%} may be")
    return {"sound": sound, "rate": np.array(rate), "channels": np.array(channels)}


DI = Encoder("di", "di 1", decode, imports=("soundfile",))


def resampled(sound: np.ndarray, rate: int, to: int) -> np.ndarray:
    """float32 [n] at `rate` -> float32 [about n * to / rate] at `to` Hz, by a polyphase filter."""
    if rate == to:
        return sound.astype(np.float32)
    from scipy.signal import resample_poly

    common = gcd(rate, to)
    return resample_poly(sound.astype(np.float64), to // common, rate // common).astype(np.float32)


def clip(row: Row, rate: int) -> np.ndarray:
    """The clip of a manifest row, at `rate` Hz: float32 [round((end - begin) * rate)]."""
    record = row.records[DI_PATH]
    sound, own = record["sound"], int(record["rate"])
    begin, length = float(row.values["begin"]), round((row.values["end"] - row.values["begin"]) * rate)
    first = round(begin * own)
    last = first + -(-length * own // rate)
    if own == rate:
        return np.array(sound[first : first + length], np.float32)
    # more on both sides, so that the filter's edges are outside of the clip: as many samples as are a full number of
    # samples at the other rate, so that the clip begins at a sample of both
    step = own // gcd(own, rate)
    margin = step * -(-_MARGIN * own // (rate * step))
    part = np.asarray(sound[max(0, first - margin) : last + margin])
    part = np.pad(part, (max(0, margin - first), max(0, last + margin - len(sound))))
    skipped = margin * rate // own
    return resampled(part, own, rate)[skipped : skipped + length]
