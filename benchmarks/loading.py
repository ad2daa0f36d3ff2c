"""Reading training data: the store against one file per song, packing against truncation, and the wait for input."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.harness import Row, in_turn
from benchmarks.music import simulated
from training.data.rows import stored
from training.domain import Job
from training.domains.music.domain import MUSIC
from training.registry import load_recipe
from training.stages.splits import load_split
from training.workspace import PROJECT, Workspace

WINDOW = 512  # tokens
LENGTHS = (2_000, 24_000)  # tokens per song: 700 to 8,000 notes


def measure(small: bool) -> list[Row]:
    """Rows 5e to 5g."""
    songs, reads, rounds, steps = (24, 200, 1, 4) if small else (3000, 20_000, 7, 40)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        midi = simulated.corpus(root, songs, LENGTHS)
        workspace = Workspace(root / "out")
        MUSIC.prepare(Job(workspace, {"midi_root": midi, "val_split": 0.05}, say=lambda _: None))
        recipe = load_recipe("midi_generator", "debug" if small else "demo", None, [])
        rows = load_split(recipe, workspace, "train", say=lambda _: None)
        return [
            _reading(rows, root / "npy", reads, rounds),
            _packing(recipe, rows),
            _waiting(workspace, "debug" if small else "demo", steps),
        ]


def _reading(rows, folder: Path, reads: int, rounds: int) -> Row:
    """Windows at random positions of random songs, as in a training."""
    folder.mkdir()
    for song in range(len(rows)):
        np.save(folder / f"{song}.npy", stored(rows, song, "midi_path", "ids"))
    random = np.random.default_rng(0)
    lengths = rows.counts("midi_path", "ids")
    songs = random.integers(0, len(rows), reads)
    starts = (random.random(reads) * (lengths[songs] - WINDOW)).astype(np.int64)
    windows = list(zip(songs.tolist(), starts.tolist(), strict=True))

    def ours() -> float:
        began = time.perf_counter()
        for song, start in windows:
            np.array(stored(rows, song, "midi_path", "ids")[start : start + WINDOW])
        return time.perf_counter() - began

    def files(mmap_mode: str | None) -> float:
        began = time.perf_counter()
        for song, start in windows:
            np.array(np.load(folder / f"{song}.npy", mmap_mode=mmap_mode)[start : start + WINDOW])
        return time.perf_counter() - began

    times = in_turn({"ours": ours, "reference": partial(files, None), "mapped": partial(files, "r")}, rounds)
    rates = {name: [reads / second for second in of] for name, of in times.items()}
    ratio = median([a / b for a, b in zip(rates["ours"], rates["reference"], strict=True)])
    return Row(
        "5e", f"windows of {WINDOW} tokens from the store against one .npy a song", median(rates["ours"]),
        median(rates["reference"]), "windows/s", ratio, ">= 10x", ratio >= 10,
        f"{len(rows)} songs, in the page cache on both sides; np.load(mmap_mode='r'): {median(rates['mapped']):,.0f}/s",
        {name: [min(of), median(of), max(of)] for name, of in rates.items()},
    )  # fmt: skip


def _packing(recipe, rows) -> Row:
    """The share of the corpus in an epoch: tokens that are targets, of all tokens that can be targets."""
    dataset = recipe.dataset(rows, training=True)
    lengths = rows.counts("midi_path", "ids")
    some = np.linspace(0, len(dataset) - 1, min(len(dataset), 400)).astype(int)
    used = np.mean([(dataset.item(0, int(index))["targets"] >= 0).mean() for index in some])
    context = len(dataset.item(0, 0)["targets"])
    packed = 100 * used * len(dataset) * context / (lengths - 1).sum()
    cut = 100 * np.minimum(lengths - 1, WINDOW).sum() / (lengths - 1).sum()
    return Row(
        "5f", f"share of the corpus in an epoch, packed against truncated to {WINDOW} tokens", packed, cut, "%",
        packed, ">= 99 %", packed >= 99,
        f"songs of {LENGTHS[0]:,} to {LENGTHS[1]:,} tokens; {len(some)} windows counted",
    )  # fmt: skip


def _waiting(workspace: Workspace, preset: str, steps: int) -> Row:
    """The input wait in the log of the real command, with two data loader workers."""
    command = [sys.executable, "-m", "training", "train", "midi_generator", "--preset", preset, "--device", "cpu"]
    settings = {"training.max_steps": steps, "training.log_every": max(1, steps // 4), "data.num_workers": 2}
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    subprocess.run([*command, "--out", workspace.root], cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)
    log = next((workspace.root / "runs/midi_generator").glob("*/metrics.jsonl"))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    # The first line includes the start of the workers.
    shares = [100 * line["input_wait"] for line in lines if line["kind"] == "train"][1:]
    share = median(shares)
    return Row(
        "5g", f"steps waiting for input ({preset} preset, two data loader workers, on this CPU)", share, None, "%",
        share, "<= 1 %", share <= 1, f"{steps} steps, logged four times, the first left out",
        {"ours": [min(shares), share, max(shares)]},
    )  # fmt: skip
