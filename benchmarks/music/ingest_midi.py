"""MIDI files into a store: digests, sandboxed decoding, tokens, and the store's own fsync; against what parses them.

The rivals only parse (mido, pretty_midi) or parse and tokenise (MidiTok, its REMI tokens); they keep nothing. What a
run takes however few files it has (a ledger made, a worker forked, the disk waited for) is counted, among as many files
as a small library has.
"""

from __future__ import annotations

import importlib
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import material
from benchmarks.harness import Row, in_turn, lacking, not_measured
from training.data.encode import encode
from training.domains.music.midi.tokens import TOKENS
from training.host import available_cpus

NOTES, SECONDS = 4900, 240.0  # a file: those of a long pop song, or a symphony's movement
WANTED, WANTED_TWO = 40.0, 1.8


def measure(small: bool) -> list[Row]:
    """Rows 1a to 1d: files a second."""
    files, few, rounds = (12, 2, 1) if small else (1500, 6, 5)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        paths = [str(root / f"{number:04d}.mid") for number in range(files)]
        for number, path in enumerate(paths):
            material.score(Path(path), number, NOTES, SECONDS)
        sides = {workers: partial(_ours, paths, root / "cache", workers) for workers in (1, 2)}
        sides |= {name: partial(_each, parse, paths[:few]) for name, parse in _rivals().items()}
        times = in_turn(sides, rounds)
    rates = {name: [(files if name in (1, 2) else few) / second for second in of] for name, of in times.items()}
    spread = {str(name): [min(of), median(of), max(of)] for name, of in rates.items()}
    about = f"{files} files of {NOTES} notes; mido reads {few} of them"
    shared = f"{about}; the caller, who hashes and writes, shares {available_cpus()} processors with them"
    two = median([both / one for one, both in zip(rates[1], rates[2], strict=True)])
    return [
        _against("1a", "mido", "mido's bare parse", rates, about, spread),
        Row("1b", "MIDI into a store, two processes against one", median(rates[2]), median(rates[1]), "files/s", two,
            f">= {WANTED_TWO:g}x", two >= WANTED_TWO, shared, spread),
        _against("1c", "pretty_midi", "pretty_midi", rates, "", {}),
        _against("1d", "miditok", "MidiTok (REMI)", rates, "", {}),
    ]  # fmt: skip


def _against(bar: str, name: str, shown: str, rates: dict, about: str, spread: dict) -> Row:
    what, wanted = f"MIDI into a store, one process, against {shown}", f">= {WANTED:g}x"
    if name not in rates:
        return not_measured(bar, what, wanted, lacking(name))
    ratio = median([ours / rival for ours, rival in zip(rates[1], rates[name], strict=True)])
    ours, rival = median(rates[1]), median(rates[name])
    return Row(bar, what, ours, rival, "files/s", ratio, wanted, ratio >= WANTED, about, spread)


def _ours(paths: list[str], cache: Path, workers: int) -> float:
    shutil.rmtree(cache, ignore_errors=True)
    began = time.perf_counter()
    done = encode(paths, TOKENS, cache, workers, say=lambda _: None)
    seconds = time.perf_counter() - began
    if done.refused:
        raise RuntimeError(f"{len(done.refused)} files were refused: {next(iter(done.refused.values()))}")
    return seconds


def _each(parse: Callable[[str], object], paths: list[str]) -> float:
    began = time.perf_counter()
    for path in paths:
        parse(path)
    return time.perf_counter() - began


def _rivals() -> dict[str, Callable[[str], object]]:
    out: dict[str, Callable[[str], object]] = {}
    if not lacking("mido"):
        out["mido"] = importlib.import_module("mido").MidiFile
    if not lacking("pretty_midi"):
        out["pretty_midi"] = importlib.import_module("pretty_midi").PrettyMIDI
    if not lacking("miditok"):
        miditok = importlib.import_module("miditok")
        out["miditok"] = miditok.REMI(miditok.TokenizerConfig(use_programs=True, use_tempos=True))
    return out
