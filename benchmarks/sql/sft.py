"""The reference of the comparison: the same fine-tuning by TRL's SFTTrainer, as its documentation shows it.

It gets prompts and completions as texts, a LoRA configuration of PEFT, and `completion_only_loss`; token ids and labels
are TRL's own. Rows of a micro-batch are padded to the longest, or, with `packing`, joined to sequences of up to PACKED
tokens. (Flash attention, which TRL recommends for packing, has no CPU version; torch's attention gets a mask by which
packed rows do not see each other.)
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.sql.material import Asked
from benchmarks.sql.sides import Done
from training.domains.sql.bases.folder import base_at, tokenizer_of
from training.domains.sql.text_to_sql.config import TextToSqlConfig

PACKED = (1024, 2048)  # tokens of a packed sequence: TRL's default, and twice that where a row is longer


def train(
    asked: Sequence[Asked], steps: int, settings: TextToSqlConfig, micro: int, folder: Path, *, packing: bool = False,
    adapter: Mapping[str, torch.Tensor] | None = None,
) -> Done:  # fmt: skip
    """Train on `asked`, in order, in `steps` steps of equally many questions.

    `micro`: rows of a micro-batch. `packing`: a micro-batch is a packed sequence instead, and the rows are in another
    order, so that the same questions are in a step only where there is one step. `adapter`: the weights to begin with,
    named as in the domain's model; with it, losses are recorded, and RuntimeError is raised where TRL has not made the
    token ids and labels of the domain.
    """
    trainer, done = trainer_of(asked, steps, settings, micro, folder, packing=packing, log_every=1 if adapter else 10)
    if adapter is not None:
        _load(trainer.model, adapter)
        if not packing:
            _require_same_rows(trainer.train_dataset, asked)

    def count(_: Any, args: Any, named: Mapping[str, Any]) -> None:
        done.tokens += named["input_ids"].numel()

    trainer.model.get_base_model().model.register_forward_pre_hook(count, with_kwargs=True)
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    done.losses, done.norms = [e["loss"] for e in logged], [e["grad_norm"] for e in logged]
    return done


def trainer_of(
    asked: Sequence[Asked], steps: int, settings: TextToSqlConfig, micro: int, folder: Path, *, packing: bool = False,
    log_every: int = 10,
) -> tuple[Any, Done]:  # fmt: skip
    """TRL's trainer, its data set prepared, and the record of which it will set `seconds`. Arguments as of `train`."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    done = Done()

    class Clock(TrainerCallback):
        began = 0.0

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.began = self.began or time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            done.seconds = time.perf_counter() - self.began

    lora, optim = settings.lora, settings.optim
    longest = max(one.row.length for one in asked)
    length = next(length for length in PACKED if length >= longest)
    accumulate = len(asked) // steps // micro
    if packing:  # more than one sequence in a micro-batch would be joined to one longer sequence
        micro, accumulate = 1, -(-_packs(asked, length) // steps)
    arguments = SFTConfig(
        output_dir=str(folder), use_cpu=True, bf16=False, gradient_checkpointing=False, max_steps=steps,
        per_device_train_batch_size=micro, gradient_accumulation_steps=accumulate, train_sampling_strategy="sequential",
        completion_only_loss=True, packing=packing, max_length=length if packing else None, optim="adamw_torch_fused",
        learning_rate=optim.lr, weight_decay=optim.weight_decay, adam_beta1=optim.betas[0], adam_beta2=optim.betas[1],
        adam_epsilon=optim.eps, max_grad_norm=optim.grad_clip, lr_scheduler_type="constant", logging_steps=log_every,
        save_strategy="no", report_to="none", disable_tqdm=True, seed=settings.seed,
    )  # fmt: skip
    adapter = LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(lora.targets), bias="none",
        task_type="CAUSAL_LM",
    )  # fmt: skip
    base = base_at(settings.model.base)
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32, attn_implementation="sdpa"), arguments,
        train_dataset=Dataset.from_list([{"prompt": one.prompt, "completion": one.sql} for one in asked]),
        processing_class=tokenizer_of(base), peft_config=adapter, callbacks=[Clock()],
    )  # fmt: skip
    return trainer, done


def _require_same_rows(prepared: Any, asked: Sequence[Asked]) -> None:
    for number, (theirs, one) in enumerate(zip(prepared, asked, strict=True)):
        ids = [*one.row.prompt.tolist(), *one.row.answer.tolist()]
        labels = [-100] * len(one.row.prompt) + one.row.answer.tolist()
        if theirs["input_ids"] != ids or theirs["labels"] != labels:
            raise RuntimeError(f"question {number}: TRL's token ids or labels are others than the domain's")


def _packs(asked: Sequence[Asked], length: int) -> int:
    """The number of sequences of at most `length` tokens to which TRL packs the rows."""
    from datasets import Dataset
    from trl import pack_dataset

    return len(pack_dataset(Dataset.from_dict({"input_ids": [[0] * one.row.length for one in asked]}), length))


def _load(model: torch.nn.Module, adapter: Mapping[str, torch.Tensor]) -> None:
    """Set the weights of the adapter. PEFT's names are the domain's with another beginning."""
    named = {f"base_model.model.{name.removeprefix('lm.')}": value for name, value in adapter.items()}
    own = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if named.keys() != own.keys():
        raise RuntimeError(f"the adapters have different parts: {sorted(named.keys() ^ own.keys())[:3]}")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(named[name])


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Suppress warnings, log output and progress bars of transformers, datasets and TRL."""
    import datasets
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)
        datasets.enable_progress_bars()
