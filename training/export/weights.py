"""The weights as safetensors under their plain names, for programs that build the model themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from training.data.files import write_atomic
from training.errors import ExportError


def plain_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a model without the prefixes that torch.compile adds to names, also if only a part was compiled."""
    return {".".join(part for part in name.split(".") if part != "_orig_mod"): t for name, t in state.items()}


def write_weights(state: Mapping[str, Any], path: Path, metadata: Mapping[str, str]) -> dict[str, int]:
    """Write parameters and buffers (tensors or numpy arrays). Each of several tensors that share memory is written in
    full. Returns the counts of inspect_weights."""
    tensors = {name: _tensor(value).detach().cpu().contiguous().clone() for name, value in sorted(state.items())}
    write_atomic(path, _ordered(save(tensors, {"format": "pt", **metadata})))
    return inspect_weights(path)


def _tensor(value: Any) -> torch.Tensor:
    return value if isinstance(value, torch.Tensor) else torch.from_numpy(np.array(value))


def _ordered(content: bytes) -> bytes:
    """The same file with sorted keys in its header, since the library writes metadata in a random order."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[end:]


def inspect_weights(path: Path) -> dict[str, int]:
    """The numbers of "tensors" and of "values" in them. Raises ExportError for an unreadable file, for a name with a
    prefix of torch.compile, or for a value that is not finite."""
    values = 0
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            for name in names:
                tensor = file.get_tensor(name)
                values += tensor.numel()
                if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                    raise ExportError(f"{path.name}: `{name}` is not finite.")
    except (SafetensorError, OSError) as error:
        raise ExportError(f"{path.name} is not a readable safetensors file: {error}") from None
    wrapped = [name for name in names if "_orig_mod" in name.split(".")]
    if wrapped:
        raise ExportError(f"{path.name} has the name `{wrapped[0]}`, which only a compiled model has.")
    return {"tensors": len(names), "values": values}
