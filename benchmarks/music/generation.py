"""Bar 6: how fast the exported MIDI generator generates, one token after the other, up to 512.

The files are written by the project's export, with the `full` preset; the weights are untrained, which does not affect
the time. Every side gets the same tokens (without sampling, which costs all sides the same) and computes the logits of
the next one:

- ours: the int8 step graph with its key-value cache, in ONNX Runtime, as in an application;
- no cache: the exported float32 graph of the complete sequence, run again for every token;
- torch: the model with its key-value cache, in inference mode.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from benchmarks.harness import Row, in_turn, median
from training.domains.music.midi_generator.generate import Step, torch_step
from training.export.int8 import write_int8
from training.export.onnx import write_onnx
from training.export.trace import trace
from training.registry import load_recipe

TOKENS, ROUNDS, THREADS = 512, 5, 2
SLOW_ROUNDS = 2  # of a pair that takes half a minute
PROMPT = 16  # tokens of the first call, in the measurement of the first token's latency
TINY = ("model.width=32", "model.layers=2", "model.heads=2", "model.emotion_width=16")


def measure(small: bool) -> list[Row]:
    """Rows 6a to 6d."""
    tokens, rounds = (24, 2) if small else (TOKENS, ROUNDS)
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as folder:
        model, full, step, int8 = export(Path(folder), TINY if small else ())
        ids = np.random.default_rng(0).integers(0, 384, (1, tokens))
        writers: dict[str, Step] = {
            "int8": onnx_step(int8), "float32": onnx_step(step), "torch": torch_step(model), "none": uncached(full),
        }  # fmt: skip
        for one in writers.values():
            write(one, ids[:, :PROMPT])  # warms up
        sides = {name: _writing(one, ids) for name, one in writers.items()}
        slow = in_turn({name: sides.pop(name) if name == "none" else sides[name] for name in ("int8", "none")},
                       SLOW_ROUNDS, warm=0)  # fmt: skip
        times = in_turn(sides, rounds)
        first = {name: _first_token(one, ids[:, :PROMPT]) for name, one in writers.items()}
    torch.set_num_threads(before)
    note = (
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, {tokens} tokens one by one, batch 1, "
        f"{THREADS} threads; ONNX Runtime {onnxruntime.__version__}"
    )

    def faster(bar: str, ours: str, reference: str, what: str, wanted: float, times: dict[str, list[float]]) -> Row:
        ratio = median(r / o for o, r in zip(times[ours], times[reference], strict=True))
        spread = {name: [min(times[name]), median(times[name]), max(times[name])] for name in (ours, reference)}
        speed, other = (tokens / spread[name][1] for name in (ours, reference))
        return Row(bar, what, speed, other, "tokens/s", ratio, f">= {wanted:g}x", ratio >= wanted, note, spread)

    latency = 1e3 * first["int8"]
    return [
        faster("6a", "int8", "none", "generation, int8 with a cache, against no cache", 12, slow),
        faster("6b", "int8", "torch", "generation, int8 with a cache, against torch with one", 1.5, times),
        faster("6c", "float32", "torch", "generation, float32 file with a cache, against torch with one", 1, times),
        Row("6d", "first token, int8 with a cache", latency, 1e3 * first["torch"], "ms", latency, "stated", True,
            f"after a prompt of {PROMPT} tokens, with an existing session; the reference is torch; median of 20"),
    ]  # fmt: skip


def export(folder: Path, overrides: tuple[str, ...] = ()) -> tuple[Any, Path, Path, Path]:
    """The model, the graph of a complete sequence, the step graph, and the int8 step graph, by the project's export."""
    recipe = load_recipe("midi_generator", "full", overrides=overrides)
    torch.manual_seed(0)
    model = recipe.build({}).eval()
    files = {}
    for graph in recipe.graphs(model):
        files[graph.name] = folder / f"{graph.name}.onnx"
        write_onnx(graph, trace(graph), files[graph.name], {})
    int8 = folder / "midi_generator_step.int8.onnx"
    write_int8(files["midi_generator_step"], int8)
    return model, files["midi_generator"], files["midi_generator_step"], int8


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def onnx_step(path: Path) -> Step:
    """The step graph with its key-value cache."""
    session = _session(path)
    pasts = [i for i in session.get_inputs() if i.name.startswith("past_")]
    empty = {i.name: np.zeros([1, i.shape[1], 0, i.shape[3]], np.float32) for i in pasts}
    names = [i.name for i in pasts]

    def step(input_ids: np.ndarray, emotion: np.ndarray, past: Any) -> tuple[np.ndarray, Any]:
        logits, *present = session.run(None, {"input_ids": input_ids, "emotion": emotion, **(past or empty)})
        return logits, dict(zip(names, present, strict=True))

    return step


def uncached(path: Path) -> Step:
    """The graph of the complete sequence, run with all tokens so far, which are the state."""
    session = _session(path)

    def step(input_ids: np.ndarray, emotion: np.ndarray, past: Any) -> tuple[np.ndarray, Any]:
        so_far = input_ids if past is None else np.concatenate((past, input_ids), axis=1)
        (logits,) = session.run(None, {"input_ids": so_far, "emotion": emotion})
        return logits[:, -input_ids.shape[1] :], so_far

    return step


def write(step: Step, ids: np.ndarray) -> np.ndarray:
    """The logits after each of `ids` [1, S], fed one by one: f32 [S, 388]."""
    emotion, past, out = _emotion(), None, []
    for at in range(ids.shape[1]):
        logits, past = step(ids[:, at : at + 1], emotion, past)
        out.append(logits[0, -1])
    return np.stack(out)


def _writing(step: Step, ids: np.ndarray) -> Callable[[], float]:
    def timed() -> float:
        began = time.perf_counter()
        write(step, ids)
        return time.perf_counter() - began

    return timed


def _first_token(step: Step, prompt: np.ndarray) -> float:
    """Seconds from a prompt to the logits of the first token."""
    times = []
    for _ in range(21):
        began = time.perf_counter()
        step(prompt, _emotion(), None)
        times.append(time.perf_counter() - began)
    return median(times[1:])


def _emotion() -> np.ndarray:
    emotion = np.zeros((1, 64), np.float32)
    emotion[0, :3] = 0.6, 0.4, 0.5
    return emotion
