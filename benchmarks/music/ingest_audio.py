"""Recordings into a store: digests, sandboxed decoding, log-mel spectrograms, fsync; against librosa, and against bare
decoding, which every reader needs. One process per side.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import soundfile

from benchmarks import material
from benchmarks.harness import Row, in_turn, not_installed, not_measured
from training.data.digests import SETTLED
from training.data.encode import encode
from training.domains.music.audio import HOP, LOGMEL, N_FFT, N_MELS, SAMPLE_RATE

SECONDS = 45.0  # per file
FORMATS = ("wav", "flac", "mp3", "ogg")


def measure(small: bool) -> list[Row]:
    """Rows 2a to 2e: seconds for the same files."""
    files, rounds, seconds = (2, 1, 2.0) if small else (16, 5, SECONDS)
    rows = []
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        names = {kind: [root / f"{number:02d}.{kind}" for number in range(files)] for kind in FORMATS}
        for paths in names.values():
            for number, path in enumerate(paths):
                material.recording(path, number, seconds)
        time.sleep(SETTLED)  # otherwise a second run would read the files again, because they may still change
        about = f"{files} files of {seconds:g} s, stereo, 44.1 kHz; digests, sandbox and store included"
        for letter, kind in zip("abcd", FORMATS, strict=True):
            sides = {"ours": partial(_first, names[kind], root / kind), "decode": partial(_decode, names[kind])}
            if kind == "wav" and not not_installed("librosa"):
                sides["librosa"] = partial(_librosa, names[kind])
            times = in_turn(sides, rounds)
            rows.append(_row(f"2{letter}", kind, times, about))
        first = [_first(names["wav"], root / "wav") for _ in range(rounds)]
        again = [_run(names["wav"], root / "wav") for _ in range(rounds)]
    ratio = median([a / b for a, b in zip(first, again, strict=True)])
    spread = {"ours": [min(again), median(again), max(again)], "reference": [min(first), median(first), max(first)]}
    return [
        *rows,
        Row("2e", "a second run over the same wav files against the first", median(again), median(first), "s", ratio,
            ">= 50x", ratio >= 50, "", spread),
    ]  # fmt: skip


def _row(bar: str, kind: str, times: dict[str, list[float]], about: str) -> Row:
    spread = {name: [min(of), median(of), max(of)] for name, of in times.items()}
    if kind == "wav":
        what, wanted = "wav into a store, one process, against librosa", ">= 2x"
        if "librosa" not in times:
            return not_measured(bar, what, wanted, not_installed("librosa"))
        ratio = median([reference / ours for ours, reference in zip(times["ours"], times["librosa"], strict=True)])
        ours, reference = median(times["ours"]), median(times["librosa"])
        return Row(bar, what, ours, reference, "s", ratio, wanted, ratio >= 2, about, spread)
    ratio = median([ours / bare for ours, bare in zip(times["ours"], times["decode"], strict=True)])
    return Row(bar, f"{kind} into a store against bare decoding (soundfile)", median(times["ours"]),
               median(times["decode"]), "s", ratio, "<= 1.3x", ratio <= 1.3, about, spread)  # fmt: skip


def _first(paths: list[Path], cache: Path) -> float:
    shutil.rmtree(cache, ignore_errors=True)
    return _run(paths, cache)


def _run(paths: list[Path], cache: Path) -> float:
    began = time.perf_counter()
    done = encode([str(path) for path in paths], LOGMEL, cache, 1, say=lambda _: None)
    seconds = time.perf_counter() - began
    if done.refused:
        raise RuntimeError(f"{len(done.refused)} files were refused: {next(iter(done.refused.values()))}")
    return seconds


def _decode(paths: list[Path]) -> float:
    began = time.perf_counter()
    for path in paths:
        soundfile.read(path, dtype="float32")
    return time.perf_counter() - began


def _librosa(paths: list[Path]) -> float:
    import librosa

    began = time.perf_counter()
    for path in paths:
        wave, rate = librosa.load(path, sr=SAMPLE_RATE)
        mel = librosa.feature.melspectrogram(y=wave, sr=rate, n_fft=N_FFT, hop_length=HOP, n_mels=N_MELS)
        np.save(path.with_suffix(".npy"), np.log(np.maximum(mel, 1e-5)).astype(np.float16))
    return time.perf_counter() - began
