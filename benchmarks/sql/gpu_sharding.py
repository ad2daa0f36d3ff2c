"""Bar 10 on several GPUs: fine-tuning a language model with its layers sharded over the GPUs (model.parallel fsdp),
against a copy of it on each (ddp).

This module is also the program of each rank: python -m benchmarks.sql.gpu_sharding BASE PARALLEL RESULT
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_place import Place, place_here
from benchmarks.harness import Row, not_installed, not_measured
from benchmarks.running import quiet, running
from training.engine.process.sharding import local
from training.registry import load_recipe
from training.workspace import PROJECT

PATIENCE = 240  # s, for one training
BATCH = 4  # samples a GPU and step: few, so that weights are a large part of the memory
LOSS = 0.01  # largest relative difference between the held-out losses
WHAT = {
    "10w": ("Text-to-SQL, layers sharded over the GPUs against a copy on each: tokens a second", "stated"),
    "10x": ("the same: largest memory of a GPU", "< 1x"),
    "10z": ("the same: held-out loss after the same steps", f"within {LOSS:.0%}"),
}
#: A base of a billion parameters, with random weights; and one for a test.
FULL = {
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
    "num_key_value_heads": 8,
}  # fmt: skip
SMALL = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip


def measure(here: Place) -> list[Row]:
    """Rows 10w, 10x and 10z."""
    count = torch.cuda.device_count()
    missing = not_installed("transformers", "peft", "tokenizers")
    missing = missing or (f"{count} GPU{'s' * (count != 1)} here, and two are needed" if count < 2 else "")
    if missing:
        return [not_measured(bar, what, wanted, missing) for bar, (what, wanted) in WHAT.items()]
    base = random_base(here)
    sharded, copied = (train(here, base, parallel, count) for parallel in ("fsdp", "ddp"))
    note = f"{count} GPUs, {sharded['parameters'] / 1e9:.1f} billion parameters, {BATCH} x {length(here)} tokens a GPU"
    ratios = {
        "10w": ("rate", "tokens/s", lambda ratio: True),
        "10x": ("memory", "bytes", lambda ratio: ratio < 1),
        "10z": ("loss", "", lambda ratio: abs(ratio - 1) <= LOSS),
    }
    rows = []
    for bar, (key, unit, met) in ratios.items():
        what, wanted = WHAT[bar]
        ratio = sharded[key] / copied[key]
        rows.append(Row(bar, what, sharded[key], copied[key], unit, ratio, wanted, met(ratio), note))
    return rows


def length(here: Place) -> int:
    """Tokens of a sample."""
    return min(1024, here.shape.context)


def random_base(here: Place) -> Path:
    """The folder of a base model with random weights."""
    from transformers import AutoConfig, LlamaForCausalLM

    from training.domains.sql.bases import tiny

    folder = tiny.make(here.folder, ["SELECT 1"])
    config = AutoConfig.from_pretrained(folder)
    config.update(SMALL if here.small else FULL)
    config.head_dim = config.hidden_size // config.num_attention_heads
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def train(here: Place, base: Path, parallel: str, count: int) -> dict[str, float]:
    """A short training by `count` processes: tokens per second of all of them, the largest memory of one in bytes, the
    held-out loss at the end, and the number of parameters."""
    result = here.folder / f"{parallel}.json"
    command = [sys.executable, "-m", "training.runner.launch", f"--nproc_per_node={count}", "--standalone",
               "-m", "benchmarks.sql.gpu_sharding", str(base), parallel, str(result)]  # fmt: skip
    subprocess.run(command, cwd=PROJECT, check=True, timeout=PATIENCE, stdout=subprocess.DEVNULL)
    return json.loads(result.read_text())


def one(base: str, parallel: str, result: Path) -> None:
    """The program of each rank; rank 0 writes `result`."""
    from training.domains.sql.text_to_sql.data import Bundles

    with tempfile.TemporaryDirectory() as folder, quiet():
        here = place_here(Path(folder))
        recipe = load_recipe(
            "text_to_sql", "full", None,
            [f"model.base={base}", f"model.parallel={parallel}", f"data.batch_size={BATCH}", "data.num_workers=0",
             "training.grad_accum_steps=1", "training.eval_steps=null", "training.save_steps=null",
             "training.early_stopping.monitor=val_loss", "training.early_stopping.direction=lower"],
        )  # fmt: skip
        questions = [Bundles(random_questions(number, length(here)), 1, None) for number in (2_000 * BATCH, 16)]
        with running(recipe, *questions, here.folder, device=here.device) as engine:
            ranks, state = engine.run.ranks, engine.run.state
            engine(here.warm + 3)
            here.synchronize()
            ranks.total([0.0])  # a barrier
            began = time.perf_counter()
            engine(here.steps)
            here.synchronize()
            slowest = max(ranks.gather(time.perf_counter() - began))
            loss = engine.run.held_out.evaluate(engine.run.model)["val_loss"]
            held = sum(local(p).numel() * p.element_size() for p in state.model.parameters())
            memory = max(ranks.gather(torch.cuda.max_memory_allocated() if here.device == "cuda" else held))
            if ranks.is_first:
                tokens = here.steps * engine.run.plan.global_batch * length(here)
                parameters = sum(p.numel() for p in state.model.parameters())
                found = {"rate": tokens / slowest, "memory": memory, "loss": loss, "parameters": parameters}
                result.write_text(json.dumps(found))


def random_questions(count: int, tokens: int) -> Any:
    """`count` questions of `tokens` random tokens, a quarter of them the answer."""
    from training.domains.sql.prompting.tokens import TokenizedRow
    from training.domains.sql.text_to_sql.data import Questions

    random = np.random.default_rng(count)
    rows = random.integers(3, 200, (count, tokens + 1)).astype(np.int32)
    cut = tokens // 4
    return Questions(tuple(TokenizedRow(row[:-cut], row[-cut:]) for row in rows), ("a",) * count)


if __name__ == "__main__":
    one(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
