"""The adapter, in PEFT's format: adapter_model.safetensors and adapter_config.json."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from training.domains.sql.text_to_sql.config import TextToSqlConfig
from training.domains.sql.text_to_sql.exports import golden
from training.domains.sql.text_to_sql.model import ADAPTER, TextToSql, is_adapter
from training.errors import ExportError
from training.graphs import Artefact

#: Environment variable: where the base is, if it was moved since the export.
MOVED = "ATHANOR_BASE"
PREFIX = "base_model.model."  # of PEFT's names, before those of the base


def artefact(model: TextToSql, settings: TextToSqlConfig, about: Mapping[str, Any]) -> Artefact:
    """`about`: golden.expected of the model."""
    lora = settings.lora
    tensors = {
        PREFIX + name.replace(f".{ADAPTER}.", "."): value.detach().float().contiguous()
        for name, value in model.lm.state_dict().items()
        if is_adapter(name)
    }
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(model.folder), "r": lora.r,
        "lora_alpha": lora.alpha, "lora_dropout": lora.dropout, "target_modules": sorted(lora.targets), "bias": "none",
        "use_rslora": lora.rslora, "use_dora": lora.dora, "inference_mode": True, "fan_in_fan_out": False,
    }  # fmt: skip

    def write(path: Path) -> None:
        path.mkdir()
        save_file(tensors, path / "adapter_model.safetensors", metadata={"format": "pt"})
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        (path / "adapter_config.json").write_text(text, encoding="utf-8")
        model.tokenizer.save_pretrained(path)

    place = {"base": str(model.folder), "nf4": model.nf4 and {"double": model.nf4.double}}
    return Artefact("adapter", write, "adapter", {**about, **place})


def _base_of(about: Mapping[str, Any]) -> Path:
    """The base's folder: where the export found it, or else where MOVED says. Raises ExportError without either."""
    recorded, named = Path(about["base"]), os.environ.get(MOVED)
    if recorded.is_dir():
        return recorded
    if not named:
        raise ExportError(
            f"the adapter's base model is no longer in {recorded}. Name its folder in {MOVED}, and verify again."
        )
    return Path(named)


def prove(path: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Load the adapter with PEFT on the base, and generate with transformers."""
    from peft import PeftModel

    from training.domains.sql.bases.folder import Nf4, base_at, model_of

    tensors = load_file(path / "adapter_model.safetensors")
    if not all(torch.isfinite(value).all() for value in tensors.values()):
        raise ExportError(f"{path.name}: a weight is not finite.")
    base = model_of(base_at(_base_of(about)), torch.float32, Nf4(**about["nf4"]) if about.get("nf4") else None)
    with warnings.catch_warnings():
        # PEFT reads a property that this version of transformers has under another name, too
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        model = PeftModel.from_pretrained(base, path, local_files_only=True).eval()
    loaded = {name.replace(f".{ADAPTER}.", ".") for name in model.state_dict() if is_adapter(name)}
    missing = sorted(set(tensors) - loaded)
    if missing or len(loaded) != len(tensors):
        raise ExportError(f"{path.name}: PEFT did not load {missing[:3] or 'all tensors'}.")
    return golden.compare(path.name, about, golden.plain_generate(model, about), least=0.9)
