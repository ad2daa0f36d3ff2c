"""The model: a frozen causal language model with LoRA adapters."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional

from training.domains.sql.bases.folder import Base, model_of, tokenizer_of
from training.domains.sql.text_to_sql.attention import BUNDLES, block_mask, bundles_of, disagreement, trains_on
from training.domains.sql.text_to_sql.config import Lora, TextToSqlConfig
from training.domains.sql.text_to_sql.data import IGNORED, attention_mask
from training.errors import UsageError

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
ADAPTER = "default"


class TextToSql(torch.nn.Module):
    """tokens, positions, segments, labels (int64 [batch, t]) -> the cross entropy of each labelled position, float32
    [n], and whether the most likely token is the right one, bool [n]."""

    def __init__(self, base: Base, settings: TextToSqlConfig):
        super().__init__()
        self.folder, self.nf4 = base.path, settings.model.nf4
        self.lm = with_adapters(model_of(base, DTYPES[settings.model.dtype], self.nf4), settings.lora)
        if settings.model.gradient_checkpointing:
            # without re-entrant autograd, which would lose the gradients of adapters behind frozen inputs
            self.lm.activation_checkpointing_enable({"use_reentrant": False})
        self.tokenizer = tokenizer_of(base)  # no part of the state_dict
        self.attention, self.compared = settings.model.attention, False
        self.lm.set_attn_implementation(BUNDLES)

    def forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, segments: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        batch = (tokens, positions, segments, labels)
        if self.attention == "flex" and self.training and not self.compared:
            self._compare(batch)
        return self._forward(*batch, self.attention)

    def _forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, segments: torch.Tensor, labels: torch.Tensor, way: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # transformers passes both on as they are; without a mask it would make one
        seen = block_mask(segments) if way == "flex" else attention_mask(segments)
        bundles = bundles_of(segments) if way == "split" else None
        hidden = self.lm.model(
            input_ids=tokens, attention_mask=seen, position_ids=positions, use_cache=False, bundles=bundles
        )[0]
        labelled = labels != IGNORED
        logits = self.lm.lm_head(hidden[labelled]).float()  # only where there is something to predict
        right = labels[labelled]
        return functional.cross_entropy(logits, right, reduction="none"), logits.argmax(-1) == right

    def _compare(self, batch: tuple[torch.Tensor, ...]) -> None:
        """Compare flex attention with the dense one on the first batch, and use the split one if they differ."""
        self.compared = True
        if not trains_on(batch[0].device):
            print("  NOTE: flex attention has no gradients on this device: the split one is used.")
            self.attention = "split"
            return
        ways = [lambda way=way: self._forward(*batch, way)[0].mean() for way in ("dense", "flex")]
        why = disagreement(ways, [parameter for parameter in self.parameters() if parameter.requires_grad])
        if why is not None:
            print(f"  NOTE: flex attention is wrong on this host ({why}): the split one is used.")
            self.attention = "split"

    @contextmanager
    def without_adapters(self) -> Iterator[None]:
        """The base model alone, within the context."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        layers = [module for module in self.lm.modules() if isinstance(module, BaseTunerLayer)]
        trained = {name: parameter.requires_grad for name, parameter in self.lm.named_parameters()}
        for layer in layers:
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for layer in layers:
                layer.enable_adapters(True)
            for name, parameter in self.lm.named_parameters():  # which enable_adapters changes, too
                parameter.requires_grad_(trained[name])


def with_adapters(model: Any, lora: Lora) -> Any:
    """`model` with an adapter at each of the target modules, the rest frozen. Raises UsageError for a module that the
    model does not have."""
    from peft import LoraConfig, inject_adapter_in_model

    there = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    missing = [name for name in lora.targets if name not in there]
    if missing:
        raise UsageError(f"lora.targets: the base has no module {missing[0]}; it has {', '.join(sorted(there))}.")
    model.requires_grad_(False)
    settings = LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(lora.targets), bias="none",
        use_rslora=lora.rslora, use_dora=lora.dora, task_type="CAUSAL_LM",
    )  # fmt: skip
    model = inject_adapter_in_model(settings, model, ADAPTER)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_adapter(name))
        if is_adapter(name):
            parameter.data = parameter.data.float()
    return model


def is_adapter(name: str) -> bool:
    """Whether an entry of the state_dict is of an adapter."""
    return ".lora_" in name


def adapter_names(model: torch.nn.Module) -> Collection[str]:
    return [name for name in model.state_dict() if is_adapter(name)]
