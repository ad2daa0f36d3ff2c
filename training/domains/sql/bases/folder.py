"""A base model on the disk: a folder as Hugging Face's libraries write it. Its code is never run."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import UsageError
from training.pretrained import refuse_code

NAMED = ("demo", "tiny")  # bases that are made here

# Wherever it is imported on a CPU, it warns that kernels are missing which it would download as code.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Base:
    """A base model that can be used."""

    path: Path
    config: dict[str, Any]

    @property
    def architecture(self) -> str:
        """The type of the model: "llama", "qwen2"."""
        return str(self.config.get("model_type", "?"))


@dataclass(frozen=True)
class Nf4:
    """How a base is quantised. `double`: the scales are quantised, too."""

    double: bool = True


def base_at(path: Path | str | None) -> Base:
    """The base model in a folder. Raises UsageError, with what to do, for one that cannot be used."""
    if path is None:
        raise UsageError("--base is needed: the folder of the base model (config.json, *.safetensors, tokenizer.json).")
    path = Path(path)
    config = path / "config.json"
    if not config.is_file():
        what = "There is no folder" if not path.is_dir() else "There is no config.json in"
        raise UsageError(f"--base: {what} {path}. Name the folder of a model in Hugging Face's format.")
    content = refuse_code(config)
    if not sorted(path.glob("*.safetensors")):
        binary = sorted(path.glob("*.bin"))
        more = f" {binary[0].name} may run code when it is read; convert it: {_CONVERT.format(path)}" if binary else ""
        raise UsageError(f"--base: {path} holds no *.safetensors.{more}")
    if not any((path / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise UsageError(f"--base: {path} holds no tokenizer (tokenizer.json).")
    return Base(path, content)


_CONVERT = (
    "python -c \"from transformers import AutoModelForCausalLM as M; m = M.from_pretrained('{0}'); "
    "m.save_pretrained('{0}-safetensors')\", then copy the tokenizer's files beside it."
)


def tokenizer_of(base: Base) -> Any:
    """Its tokenizer; it never adds tokens. Raises UsageError."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(base.path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"--base: the tokenizer of {base.path} cannot be read ({_first_line(error)}).") from None


def model_of(base: Base, dtype: Any, nf4: Nf4 | None = None) -> Any:
    """Its weights, in `dtype`, on the CPU; with `nf4` those of its linear layers in four bits. Raises UsageError."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from training.domains.sql.bases import quantized

    logging.disable_progress_bar()
    more: dict[str, Any] = {}
    if nf4 is not None:
        if "quantization_config" in base.config:
            raise UsageError(
                f"--base: {base.path} is quantised already. Name the original model, which model.quantization: nf4 "
                "quantises when it is read."
            )
        more = {"quantization_config": quantized.configuration(dtype, nf4.double), "device_map": {"": "cpu"}}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            base.path, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True,
            attn_implementation="sdpa", **more,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise UsageError(f"--base: the model in {base.path} cannot be read ({_first_line(error)}).") from None
    quantized.settle(model)
    return model


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
