"""A million rows, and corpora larger than memory: the real commands, measured from outside.

Names, signatures, manifests and training are real; the reading and decoding of a million scores is simulated
(simulated.py). Private memory is anonymous memory, which only the process can free; pages of mapped files can be
dropped by the system.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import material
from benchmarks.harness import Row
from benchmarks.music import simulated
from training.workspace import PROJECT

MEGABYTE = 1 << 20


def measure(small: bool) -> list[Row]:
    """Rows 9a to 9g."""
    songs, few = (3000, 1000) if small else (1_000_000, 10_000)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        rows = _many(root, songs, few, steps=20 if small else 300)
    with tempfile.TemporaryDirectory() as place:
        return rows + _larger_than_memory(Path(place), small)


def _many(root: Path, songs: int, few: int, steps: int) -> list[Row]:
    for name, count in (("many", songs), ("few", few)):
        simulated.corpus(root / name, count)
    built = _prepare(root / "many")
    _prepare(root / "few")
    starts = {name: _train(root / name, steps) for name in ("few", "many")}
    many, little = starts["many"], starts["few"]
    growth = many.private[-1] - many.private[0]
    return [
        Row("9a", f"a manifest of {songs:,} rows, built", built.seconds, None, "s", built.seconds, "<= 60 s",
            built.seconds <= 60, f"{songs:,} scores, their digests and tokens known"),
        Row("9b", f"memory of building {songs:,} rows", built.peak, None, "MiB", built.peak, "<= 1024 MiB",
            built.peak <= 1024, "the largest resident set of the process, mapped files included"),
        Row("9c", f"first step of a training on {songs:,} rows, from the command's start", many.first, None, "s",
            many.first, "<= 5 s", many.first <= 5,
            f"on {few:,} rows: {little.first:.1f} s; every file is checked for changes"),
        Row("9d", f"private memory of training on {songs:,} rows against {few:,}", many.private[-1],
            little.private[-1], "MiB", many.private[-1] / little.private[-1], "<= 1.3x",
            many.private[-1] <= 1.3 * little.private[-1], "without data loader workers"),
        Row("9e", f"private memory that {steps} steps on {songs:,} rows add", growth, None, "MiB", growth, "<= 16 MiB",
            growth <= 16, f"{many.private[0]:.0f} MiB after the first step"),
    ]  # fmt: skip


def _larger_than_memory(root: Path, small: bool) -> list[Row]:
    """Recordings and their store, each larger than the memory that a command may allocate beyond its libraries."""
    count, seconds, allowed, steps = (6, 4, 320, 4) if small else (360, 180, 320, 200)
    for number in range(count):
        material.noise(root / f"audio/song {number}.wav", number, seconds)
        material.score(root / f"midi/song {number}.mid", number, 4 * seconds, seconds)
    recorded = sum(path.stat().st_size for path in (root / "audio").iterdir()) / MEGABYTE
    out = ["--out", str(root / "out")]
    folders = ["--audio-root", str(root / "audio"), "--midi-root", str(root / "midi")]
    # Noise fits no score, so an alignment would quarantine every recording.
    prepared = watched(["prepare", *folders, *out, "--no-align"], MemoryLimit(allowed, "training.cli"))
    kept = sum(path.stat().st_size for path in (root / "out/cache").rglob("*.shard")) / MEGABYTE
    settings = [f"training.max_steps={steps}", "data.num_workers=0", "training.eval_every=1"]
    command = ["train", "spectocloud", "--preset", "debug", "--device", "cpu", *out]
    for setting in settings:
        command += ["--set", setting]
    trained = watched(
        command, MemoryLimit(allowed, "training.domains.music.spectocloud.recipe", "training.engine.loop.run")
    )
    return [
        _bounded("9f", "prepare", prepared, recorded, allowed),
        _bounded("9g", "training", trained, kept, allowed),
    ]


def _bounded(bar: str, what: str, seen: Seen, corpus: float, allowed: int) -> Row:
    share = corpus / allowed
    return Row(
        bar, f"{what} on a corpus larger than the memory it may take beyond its libraries", corpus, allowed, "MiB",
        share, ">= 2x", share >= 2 and seen.code == 0,
        f"exit code {seen.code}; {seen.seconds:.0f} s; private memory at most {max(seen.private):.0f} MiB "
        f"(RLIMIT_DATA: that of the libraries and {allowed} MiB)",
    )  # fmt: skip


# -- commands and their memory -------------------------------------------------------------------------------------


@dataclass
class Seen:
    """Measurements of a command."""

    seconds: float = 0.0
    peak: float = 0.0  # MiB, the largest resident set
    private: list[float] = field(default_factory=list)  # MiB, over time
    first: float = 0.0  # seconds until the first step was logged
    code: int = 0


class MemoryLimit:
    """Memory that a command may allocate once `modules` are imported, MiB."""

    def __init__(self, megabytes: int, *modules: str):
        self.megabytes, self.modules = megabytes, modules

    def program(self) -> str:
        return (
            f"import resource, sys, {', '.join(self.modules)}\n"
            "lines = open('/proc/self/status').read().splitlines()\n"
            "has = next(int(line.split()[1]) for line in lines if line.startswith('VmData')) * 1024\n"
            f"limit = has + {self.megabytes * MEGABYTE}\n"
            "resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))\n"
            "from training.cli import main\n"
            "sys.exit(main(sys.argv[1:]))\n"
        )


def watched(arguments: Sequence[str], limit: MemoryLimit) -> Seen:
    seen, began = Seen(), time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", limit.program(), *arguments], cwd=PROJECT, stdout=subprocess.DEVNULL
    ) as process:
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(0.05):
                seen.private.append(_private(process.pid))

        watcher = threading.Thread(target=look)
        watcher.start()
        seen.code = process.wait()
        ended.set()
        watcher.join()
    seen.seconds = time.perf_counter() - began
    return seen


def _prepare(root: Path) -> Seen:
    """Wall clock and the largest resident set of `prepare`."""
    seen, began = Seen(), time.perf_counter()
    command = [sys.executable, "-m", "training", "prepare", "--midi-root", root / "midi", "--out", root / "out"]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:  # not its rusage, which includes the process that it was forked from
            seen.peak = max(seen.peak, _status(process.pid, "VmHWM"))
            time.sleep(0.05)
    seen.seconds = time.perf_counter() - began
    if process.returncode:
        raise RuntimeError(f"prepare ended with {process.returncode}")
    return seen


def _train(root: Path, steps: int) -> Seen:
    """Run a training until it has logged `steps` steps, then send it SIGTERM."""
    command = [sys.executable, "-u", "-m", "training", "train", "midi_generator", "--preset", "debug"]
    command += ["--device", "cpu", "--resume", "never", "--out", str(root / "out")]
    for setting in ("training.max_steps=100000", "training.log_every=1", "data.num_workers=0"):
        command += ["--set", setting]
    seen, began, logged = Seen(), time.perf_counter(), 0
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=PROJECT, text=True, **quiet) as process:
        for line in process.stdout:
            if line.startswith("step "):
                logged += 1
                if logged == 1:
                    seen.first = time.perf_counter() - began
                if logged in (1, steps):
                    seen.private.append(_private(process.pid))
                if logged == steps:
                    process.send_signal(signal.SIGTERM)
                    break
        process.communicate()
    if logged < steps:
        raise RuntimeError(f"the training ended after {logged} steps with exit code {process.returncode}")
    return seen


def _private(pid: int) -> float:
    """MiB of a process's anonymous memory."""
    return _status(pid, "RssAnon")


def _status(pid: int, what: str) -> float:
    """A field of a process's /proc status, in MiB; 0 if the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(what)), 0.0)
