"""Reference implementations of the training of a model of the MIDI generator's size: nanoGPT's model and loop, and
Llama in Hugging Face's Trainer. Both run on a CPU and on a GPU.

They train a plain language model, without attention to an emotion and without separating songs. Their sequences are
full, so that tokens are comparable on all sides, and they have as many parameters as the MIDI generator.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOCABULARY = 388


@dataclass(frozen=True)
class Shape:
    """The shape of all compared models. 9 layers have as many parameters as the MIDI generator's 8 layers with 4
    cross-attentions to the emotion."""

    context: int = 512
    width: int = 384
    layers: int = 9
    heads: int = 6
    dropout: float = 0.1  # on residual branches, as in the MIDI generator's `full` preset; Llama has none there


def corpus(tokens: int = 1_000_000) -> np.ndarray:
    """Token ids in nanoGPT's format, uint16."""
    return np.random.default_rng(0).integers(0, VOCABULARY, tokens).astype(np.uint16)


# -- nanoGPT ---------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        width = shape.width
        self.heads, self.dropout = shape.heads, shape.dropout
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.c_fc, self.c_out = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.c_attn(self.ln_1(x)).split(width, dim=2)
        q, k, v = (part.view(batch, length, self.heads, width // self.heads).transpose(1, 2) for part in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self._drop(self.c_proj(y.transpose(1, 2).contiguous().view(batch, length, width)))
        return x + self._drop(self.c_out(F.gelu(self.c_fc(self.ln_2(x)))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class GPT(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(VOCABULARY, shape.width), nn.Embedding(shape.context, shape.width)
        self.h = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.ln_f = nn.LayerNorm(shape.width)
        self.lm_head = nn.Linear(shape.width, VOCABULARY, bias=False)
        self.wte.weight = self.lm_head.weight

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device))
        for block in self.h:
            x = block(x)
        return F.cross_entropy(self.lm_head(self.ln_f(x)).view(-1, VOCABULARY), targets.view(-1))


class Loop:
    """The training loop of nanoGPT's train.py. `dtype`: of autocast; None: float32 throughout. `fused`: AdamW's option.
    `log_every`: steps between log lines."""

    def __init__(
        self, shape: Shape, batch: int, device: str = "cpu", *, dtype: torch.dtype | None = torch.bfloat16,
        fused: bool = True, log_every: int = 10, compiled: bool = False,
    ):  # fmt: skip
        torch.manual_seed(1337)
        self.shape, self.batch, self.device, self.log_every, self.step = shape, batch, device, log_every, 0
        self.data = corpus()
        self.raw = GPT(shape).to(device)
        self.model: Any = torch.compile(self.raw) if compiled else self.raw
        self.mixed = contextlib.nullcontext() if dtype is None else torch.autocast(torch.device(device).type, dtype)
        parameters = list(self.raw.parameters())
        groups = [
            {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": 0.1},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=6e-4, betas=(0.9, 0.95), fused=fused or None)
        self.next = self.get_batch()

    def get_batch(self) -> tuple[Tensor, Tensor]:
        length = self.shape.context
        starts = torch.randint(len(self.data) - length - 1, (self.batch,))
        x = torch.stack([torch.from_numpy(self.data[i : i + length].astype(np.int64)) for i in starts])
        y = torch.stack([torch.from_numpy(self.data[i + 1 : i + 1 + length].astype(np.int64)) for i in starts])
        if torch.device(self.device).type == "cuda":
            return tuple(t.pin_memory().to(self.device, non_blocking=True) for t in (x, y))  # type: ignore[return-value]
        return x, y

    def __call__(self, steps: int) -> None:
        for _ in range(steps):
            rate = 6e-4 * min(1, (self.step + 1) / 500) * (0.55 + 0.45 * math.cos(math.pi * min(1, self.step / 10_000)))
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            with self.mixed:
                loss = self.model(*self.next)
            self.next = self.get_batch()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.raw.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.step += 1
            if self.step % self.log_every == 0:
                print(f"iter {self.step}: loss {loss.item():.4f}", flush=True)


# -- Hugging Face ----------------------------------------------------------------------------------------------------


def llama(shape: Shape) -> Any:
    """Llama of that shape; its feed-forward width is 8/3 of the width, rounded up to 64, as in the MIDI generator."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=shape.width, intermediate_size=-(-8 * shape.width // 3 // 64) * 64,
            num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.heads,
            max_position_embeddings=shape.context, use_cache=False, bos_token_id=385, eos_token_id=386,
            pad_token_id=384,
        )
    )  # fmt: skip


def trainer_seconds(
    model: Any, shape: Shape, batch: int, steps: int, folder: Path, *, device: str = "cpu", warm: int = 1,
    **options: Any,
) -> float:  # fmt: skip
    """Seconds of `steps` steps of Trainer.train(), after `warm` that are not timed. `options`: of TrainingArguments."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Clock(TrainerCallback):
        began = ended = 0.0

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step in (warm, warm + steps):
                if device != "cpu":
                    torch.cuda.synchronize()
                self.began, self.ended = self.ended, time.perf_counter()

    data = torch.from_numpy(corpus(batch * (steps + warm) * shape.context).astype(np.int64)).view(-1, shape.context)
    clock = Clock()
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=warm + steps, per_device_train_batch_size=batch, logging_steps=10,
        learning_rate=6e-4, weight_decay=0.1, warmup_steps=500, save_strategy="no", report_to="none",
        disable_tqdm=True, use_cpu=device == "cpu", **options,
    )  # fmt: skip
    arguments._n_gpu = min(1, arguments.n_gpu)  # otherwise it would distribute the model over all GPUs
    rows = [{"input_ids": row, "labels": row} for row in data]
    Trainer(model, arguments, train_dataset=rows, callbacks=[clock]).train()
    return clock.ended - clock.began


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Suppress the log output of transformers."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
