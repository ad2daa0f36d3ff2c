"""Bar 7: Spectocloud in real time: one cloud per call from 1.5 s of sound, frontend included, in 16 ms.

The files are written by the project's export, with the sizes of each preset; the weights are untrained, which does not
affect the time. They are run as in a C++ application: ONNX Runtime with two threads, both sessions created once,
buffers bound once (the frontend writes directly to the model's input), idle threads that sleep (on a busy machine,
spinning threads take each other's cores), a warm-up, and then calls without pauses.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from benchmarks.harness import Row
from training.domains.music.spectocloud.frontend import SAMPLES
from training.export.int8 import write_int8
from training.export.onnx import write_onnx
from training.export.trace import trace
from training.registry import load_recipe

BUDGET = 16.0  # ms: 60 clouds a second
THREADS = 2
CALLS, WARM_UP = 2_000, 100
#: Overrides for `small`: the smallest model that has every part.
TINY = ("model.width=32", "model.layers=1", "model.heads=2", "model.particle_width=8")


class Host:
    """Two sessions and the buffers between them."""

    def __init__(self, frontend: Path, model: Path, spins: bool = False):
        self.waveform = onnxruntime.OrtValue.ortvalue_from_numpy(sound())
        spectrogram = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((1, 128, 64), np.float32))
        emotion = np.zeros((1, 64), np.float32)
        emotion[0, :3] = 0.6, 0.4, 0.5
        self.frontend, self.model = _session(frontend, spins), _session(model, spins)
        self.listen, self.draw = self.frontend.io_binding(), self.model.io_binding()
        self.listen.bind_ortvalue_input("waveform", self.waveform)
        self.listen.bind_ortvalue_output("spectrogram", spectrogram)
        self.draw.bind_ortvalue_input("spectrogram", spectrogram)
        self.given = {  # referenced here, because a binding does not own its values
            "emotion": onnxruntime.OrtValue.ortvalue_from_numpy(emotion),
            "midi_features": onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((1, 32), np.float32)),
        }
        for name, value in self.given.items():
            self.draw.bind_ortvalue_input(name, value)
        self.cloud = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((1, 1200, channels), np.float32))
            for name, channels in (("positions", 3), ("colors", 4), ("properties", 3))
        }
        for name, value in self.cloud.items():
            self.draw.bind_ortvalue_output(name, value)

    def call(self) -> tuple[float, float]:
        """Run both graphs once; returns the seconds of the frontend and of the model."""
        began = time.perf_counter()
        self.frontend.run_with_iobinding(self.listen)
        heard = time.perf_counter()
        self.model.run_with_iobinding(self.draw)
        return heard - began, time.perf_counter() - heard


def measure(small: bool) -> list[Row]:
    rows: list[Row] = []
    times = (20, 3) if small else (CALLS, WARM_UP)
    with tempfile.TemporaryDirectory() as folder:
        for preset, letters in (("full", "ab"), ("demo", "cd")):
            frontend, model, int8 = export(preset, Path(folder) / preset, TINY if small else ())
            for letter, file, kind in zip(letters, (model, int8), ("float32", "int8"), strict=True):
                what = f"Spectocloud, {preset} preset, {kind}, waveform to cloud, p99"
                rows.append(timed(f"7{letter}", what, Host(frontend, file), *times))
            if preset == "full":
                what = "The same (full, float32) with threads that spin, ONNX Runtime's default"
                row = timed("7e", what, Host(frontend, model, spins=True), *times)
                rows.append(replace(row, wanted="stated", met=True))  # only for comparison with 7a
    return rows


def export(preset: str, folder: Path, overrides: tuple[str, ...] = ()) -> tuple[Path, Path, Path]:
    """The frontend, the model and the int8 model of a preset, by the project's export; untrained."""
    folder.mkdir(parents=True)
    recipe = load_recipe("spectocloud", preset, overrides=overrides)
    torch.manual_seed(0)
    mean, std = np.full(128, -6, np.float32), np.full(1, 2.5, np.float32)
    model = recipe.build({"mean": mean, "std": std}).eval()
    files = {}
    for graph in recipe.graphs(model):
        files[graph.name] = folder / f"{graph.name}.onnx"
        write_onnx(graph, trace(graph), files[graph.name], {})
    int8 = folder / "spectocloud.int8.onnx"
    write_int8(files["spectocloud"], int8)
    return files["spectocloud_frontend"], files["spectocloud"], int8


def _session(path: Path, spins: bool) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
    options.log_severity_level = 4
    # By default an idle thread spins, and takes a core from the other session or the application.
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spins)))
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def timed(bar: str, what: str, host: Host, calls: int, warm_up: int) -> Row:
    for _ in range(warm_up):
        host.call()
    frontend, model = np.array([host.call() for _ in range(calls)]).T * 1e3
    both = frontend + model
    p50, p90, p99 = np.percentile(both, (50, 90, 99))
    note = (
        f"p50 {p50:.1f}, p90 {p90:.1f}, most {both.max():.1f}, least {both.min():.1f} ms of {calls:,} calls; "
        f"medians: frontend {np.median(frontend):.2f}, model {np.median(model):.2f} ms; "
        f"{THREADS} threads on {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}"
    )
    spread = {"p50": p50, "p90": p90, "p99": p99, "least": both.min(), "most": both.max()}
    plain = {name: float(value) for name, value in spread.items()}
    return Row(bar, what, float(p99), None, "ms", float(p99), f"<= {BUDGET:g} ms", bool(p99 <= BUDGET), note, plain)


def sound() -> np.ndarray:
    """A chord over faint noise, float32 [1, 66560]."""
    seconds = np.arange(SAMPLES) / 44_100
    chord = sum(0.1 * np.sin(2 * np.pi * hertz * seconds) for hertz in (220, 277.2, 329.6))
    return (chord + 1e-3 * np.random.default_rng(0).standard_normal(SAMPLES)).astype(np.float32)[None]
