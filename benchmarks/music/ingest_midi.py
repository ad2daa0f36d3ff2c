"""MIDI files into a store: digests, sandboxed decoding, tokens and fsync; against other parsers.

The other implementations only parse (mido, pretty_midi) or parse and tokenise (MidiTok, its REMI tokens); they store
nothing. The fixed cost of a run (creating a ledger, forking a worker, waiting for the disk) is included; the number of
files is that of a small library.
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
from benchmarks.harness import Row, in_turn, not_installed, not_measured
from training.data.encode import encode
from training.domains.music.midi.tokens import TOKENS
from training.host import available_cpus

NOTES, SECONDS = 4900, 240.0  # per file: a long pop song, or a movement of a symphony
WANTED, WANTED_TWO = 40.0, 1.8


def measure(small: bool) -> list[Row]:
    """Rows 1a to 1d: files per second."""
    files, few, rounds = (12, 2, 1) if small else (1500, 6, 5)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        paths = [str(root / f"{number:04d}.mid") for number in range(files)]
        for number, path in enumerate(paths):
            material.score(Path(path), number, NOTES, SECONDS)
        sides = {workers: partial(_ours, paths, root / "cache", workers) for workers in (1, 2)}
        sides |= {name: partial(_each, parse, paths[:few]) for name, parse in _references().items()}
        times = in_turn(sides, rounds)
    rates = {name: [(files if name in (1, 2) else few) / second for second in of] for name, of in times.items()}
    spread = {str(name): [min(of), median(of), max(of)] for name, of in rates.items()}
    about = f"{files} files of {NOTES} notes; mido reads {few} of them"
    shared = f"{about}; the caller, which hashes and writes, shares {available_cpus()} CPUs with them"
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
        return not_measured(bar, what, wanted, not_installed(name))
    ratio = median([ours / reference for ours, reference in zip(rates[1], rates[name], strict=True)])
    ours, reference = median(rates[1]), median(rates[name])
    return Row(bar, what, ours, reference, "files/s", ratio, wanted, ratio >= WANTED, about, spread)


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


def _references() -> dict[str, Callable[[str], object]]:
    out: dict[str, Callable[[str], object]] = {}
    if not not_installed("mido"):
        out["mido"] = importlib.import_module("mido").MidiFile
    if not not_installed("pretty_midi"):
        out["pretty_midi"] = importlib.import_module("pretty_midi").PrettyMIDI
    if not not_installed("miditok"):
        miditok = importlib.import_module("miditok")
        out["miditok"] = miditok.REMI(miditok.TokenizerConfig(use_programs=True, use_tempos=True))
    return out
