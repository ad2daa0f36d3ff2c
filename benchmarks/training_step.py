"""Bar 4, first half: tokens per second of the MIDI generator's training on a CPU, against reference implementations of
the training of a model of that size.

Ours is the engine's step with the settings of the `full` preset, including dropout, EMA and packed songs, in the
config's bfloat16 (or float32, if the CPU has no instructions for it; the engine selects it, and nanoGPT's loop uses the
same), with windows of 512 tokens, and not compiled, like the references. Those have as many parameters and predict as
many tokens (benchmarks/reference_loops.py).
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks import reference_loops
from benchmarks.harness import Row, in_turn, median, not_installed, not_measured, timed
from benchmarks.reference_loops import Loop, Shape
from benchmarks.running import EngineRun, quiet, running
from training.data.manifest import Row as ManifestRow
from training.engine.step.precision import emulates_bfloat16
from training.registry import load_recipe

BATCH, STEPS, ROUNDS = 2, 2, 8
SMALL = ("model.width=32", "model.layers=2", "model.heads=2", "model.emotion_width=16")


def measure(small: bool) -> list[Row]:
    """Rows 4a to 4d."""
    shape = Shape(64, 32, 2, 2) if small else Shape()
    rounds = 2 if small else ROUNDS
    usual = Loop(shape, BATCH, dtype=None, fused=False, log_every=1)
    emulated = emulates_bfloat16()
    bare = Loop(shape, BATCH, dtype=None if emulated else torch.bfloat16)
    missing = not_installed("transformers", "accelerate")
    with tempfile.TemporaryDirectory() as place, quiet(), contextlib.ExitStack() as stack:
        engine, *plain = (
            stack.enter_context(midi_generator(Path(place) / amp, shape, BATCH, f"training.amp={amp}", small=small))
            for amp in (["true"] if emulated else ["true", "false"])
        )
        sides: dict[str, Callable[[], float]] = {
            "ours": lambda: timed(lambda: engine(STEPS)),
            "usual": lambda: timed(lambda: usual(STEPS)),
            "bare": lambda: timed(lambda: bare(STEPS)),
        }
        if plain:
            sides["plain"] = lambda: timed(lambda: plain[0](STEPS))
        if not missing:
            stack.enter_context(reference_loops.quiet_transformers())
            model = reference_loops.llama(shape)
            sides["trainer"] = lambda: reference_loops.trainer_seconds(model, shape, BATCH, STEPS, Path(place))
        times = in_turn(sides, rounds)
    tokens = BATCH * shape.context * STEPS
    parameters = sum(p.numel() for p in engine.run.state.model.parameters())
    others = sum(p.numel() for p in usual.raw.parameters())
    about = (
        f"{parameters / 1e6:.1f} M parameters against {others / 1e6:.1f} M, {BATCH} x {shape.context} tokens a step, "
        f"{torch.get_num_threads()} threads; {engine.run.state.precision}"
    )

    def row(bar: str, side: str, what: str, least: float) -> Row:
        ratio = median(r / o for o, r in zip(times["ours"], times[side], strict=True))
        spread = {name: [min(times[name]), median(times[name]), max(times[name])] for name in ("ours", side)}
        ours, reference = (tokens / spread[name][1] for name in ("ours", side))
        wanted = f">= {least:g}x" if least else "stated"
        return Row(bar, what, ours, reference, "tokens/s", ratio, wanted, ratio >= least, about, spread)

    what = "training step against Hugging Face's Trainer, Llama of the same shape"
    same = "training step in bfloat16 against the same in float32"
    return [
        row("4a", "usual", "training step as configured against the usual float32 loop", 3),
        row("4b", "trainer", what, 1) if not missing else not_measured("4b", what, ">= 1x", missing),
        row("4c", "bare", "training step against nanoGPT's loop in the same precision, fused AdamW too", 0),
        row("4d", "plain", same, 0) if plain else not_measured("4d", same, "stated", "no bfloat16 instructions here"),
    ]


@contextlib.contextmanager
def midi_generator(
    folder: Path, shape: Shape, batch: int, *overrides: str, small: bool = False, device: str = "cpu", workers: int = 0
) -> Iterator[EngineRun]:
    """Start a training of the MIDI generator's `full` preset on random songs."""
    recipe = load_recipe(
        "midi_generator", "full", None,
        [f"model.context={shape.context}", f"data.batch_size={batch}", f"data.num_workers={workers}",
         *([] if "training.compile=true" in overrides else ["training.compile=false"]), *overrides,
         *(SMALL if small else ())],
    )  # fmt: skip
    epoch = 2_000 * batch * shape.context  # tokens: an epoch is longer than the measurement
    train, held_out = recipe.dataset(songs(epoch), True), recipe.dataset(songs(8 * shape.context), False)
    with running(recipe, train, held_out, folder, device=device) as engine:
        yield engine


def songs(tokens: int) -> list[ManifestRow]:
    """Songs of about 2,600 random ids each (500 to 4,700), `tokens` in total, each with an emotion."""
    random = np.random.default_rng(0)
    made: list[ManifestRow] = []
    while tokens > 0:
        ids = random.integers(0, 384, int(random.integers(500, 4_700))).astype(np.uint16)
        values = {"id": f"song{len(made)}", "emotion": random.uniform(0, 1, 3).round(2).tolist()}
        made.append(ManifestRow(values, f"songs:{len(made)}", {"midi_path": {"ids": ids}}))
        tokens -= len(ids)
    return made
