"""The base with the adapter merged into its weights: a folder that transformers, vLLM and others read as it is."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from training.domains.sql.prompting.tokens import end_of
from training.domains.sql.text_to_sql.exports import golden
from training.domains.sql.text_to_sql.model import ADAPTER, TextToSql
from training.recipe import Artefact


def merged_state(model: TextToSql) -> dict[str, torch.Tensor]:
    """The state_dict of the base with the adapters merged, float32, under the base's own names."""
    layers = {name: module for name, module in model.lm.named_modules() if hasattr(module, "get_delta_weight")}
    out: dict[str, torch.Tensor] = {}
    for name, value in model.lm.state_dict().items():
        owner, _, rest = name.partition(".base_layer.")
        if owner in layers and rest:
            value = value.float()
            if rest == "weight":
                value = value + layers[owner].get_delta_weight(ADAPTER).float()
            out[f"{owner}.{rest}"] = value
        elif ".lora_" not in name:
            out[name] = value.float()
    return out


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
    """Load the folder with transformers alone, and generate. Rounding to bfloat16 may change a token at times."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, local_files_only=True).eval()
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    same_prompts = golden.prompts(tokenizer, about["samples"]) == about["prompts"]
    found = golden.compare(path.name, about, golden.plain_generate(model, about), least=0.5)
    return found | {"prompt_ids_equal": same_prompts, "dtype": str(config.get("dtype") or config.get("torch_dtype"))}
