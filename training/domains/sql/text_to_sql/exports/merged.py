"""The base with the adapter merged into its weights: a folder that transformers, vLLM and others read as it is."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from training.domains.sql.bases.quantized import dequantized, is_quantized
from training.domains.sql.prompting.tokens import end_of
from training.domains.sql.text_to_sql.exports import golden
from training.domains.sql.text_to_sql.model import ADAPTER, TextToSql
from training.errors import ExportError
from training.graphs import Artefact

#: The share of golden answers that must be the same token by token, or of their tokens each after the right ones.
LEAST_ANSWERS, LEAST_TOKENS = 0.5, 0.9


def merged_state(model: TextToSql) -> dict[str, torch.Tensor]:
    """The state_dict of the base with the adapters merged, float32, under the base's own names.

    The weights of a quantised base are those with which it was trained, de-quantised: merged into the original ones,
    the adapter would answer otherwise than it was judged.
    """
    modules = dict(model.lm.named_modules())
    out: dict[str, torch.Tensor] = {}
    for name, value in model.lm.state_dict().items():
        owner, _, leaf = name.rpartition(".")
        module = modules.get(owner)
        if module is None or ".lora_" in name:
            continue  # an adapter, or what a quantised layer adds to its weight (scales)
        value = dequantized(module) if is_quantized(module) and leaf == "weight" else value.float()
        adapted, _, _ = owner.rpartition(".base_layer")
        if adapted and owner.endswith(".base_layer"):
            owner = adapted
            if leaf == "weight":
                value = _merged(modules[adapted], value)
        out[f"{owner}.{leaf}"] = value
    return out


def _merged(layer: Any, weight: torch.Tensor) -> torch.Tensor:
    """`weight` with the adapter of its layer, float32 [out, in]. DoRA: Liu et al. 2024, equation 5."""
    changed = weight + layer.get_delta_weight(ADAPTER).float()
    if layer.use_dora.get(ADAPTER):
        magnitude = layer.lora_magnitude_vector[ADAPTER].weight.float()
        changed = changed * (magnitude / torch.linalg.vector_norm(changed, dim=1))[:, None]
    return changed


def artefact(model: TextToSql, about: Mapping[str, Any]) -> Artefact:
    """`about`: golden.expected of the model."""

    def write(path: Path) -> None:
        from training.domains.sql.bases.folder import base_at, model_of

        plain = model_of(base_at(model.folder), torch.float32)
        plain.load_state_dict(merged_state(model))
        plain = plain.to(torch.bfloat16)
        generation = copy.deepcopy(plain.generation_config)
        generation.eos_token_id = end_of(model.tokenizer)
        if generation.pad_token_id == generation.eos_token_id:
            generation.pad_token_id = None  # a padding token that ends the sequence would cut answers
        plain.generation_config = generation
        plain.save_pretrained(path)
        model.tokenizer.save_pretrained(path)

    return Artefact("merged", write, "merged", about)


def prove(path: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Load the folder with transformers alone, and generate. Rounding to bfloat16 changes some tokens, and an answer
    that differs in one differs in most of those after it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, local_files_only=True).eval()
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    if golden.prompts(tokenizer, about["samples"]) != about["prompts"]:
        raise ExportError(f"{path.name}: its tokenizer gives other token ids for the golden prompts.")
    found = golden.compare(path.name, about, golden.plain_generate(model, about), least=0.0)
    found["same_next_tokens"] = golden.same_next_tokens(model, about)
    if found["same_answers"] < LEAST_ANSWERS * found["of"] and found["same_next_tokens"] < LEAST_TOKENS:
        raise ExportError(
            f"{path.name}: {found['same_answers']} of {found['of']} golden answers are the model's, token by token, "
            f"and {found['same_next_tokens']:.1%} of their tokens; {LEAST_ANSWERS:.0%} or {LEAST_TOKENS:.0%} are "
            "required."
        )
    return found | {"dtype": str(config.get("dtype") or config.get("torch_dtype"))}
