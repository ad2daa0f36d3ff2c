"""Large constants are stored once, in a file beside the checkpoints that refer to it.

A recipe's constants (Recipe.fit_constants) do not change during a run. Small ones are kept in each checkpoint, which is
then a single file that can be copied anywhere. Large ones would be written again with every save; they are stored in
`constants-<sha256>.pt`, named by the SHA-256 of that file, and a checkpoint then holds
`"constants": {}, "constants_ref": <sha256>`. As the name identifies the content, such a file is only added or deleted,
never replaced. It is fsynced before an index lists a checkpoint that refers to it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from training.data.files import Signature, regular_file, signature
from training.engine.checkpoints.checkpoint_file import has, write_state
from training.engine.checkpoints.index import FORMAT, TEMPORARY, constants_name, discard

#: Bytes; constants of at most this size together are kept in each checkpoint. At 1 MiB, ten checkpoints waste less than
#: the weights of a small model, and most families (with a mean to subtract, a vocabulary) have checkpoints of one file.
INSIDE = 1 << 20


def are_large(constants: Mapping[str, Any]) -> bool:
    """Whether these constants are stored in a separate file."""
    return sum(v.numel() * v.element_size() for v in constants.values() if isinstance(v, torch.Tensor)) > INSIDE


class StoredOnce:
    """Writes the constants files of one folder.

    The name of a constants file is only known once it is written. To write it only once in each process, `put`
    recognises tensors that it has stored by identity, and the file that it wrote by its inode and times.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._tensors: dict[str, torch.Tensor] = {}  # references, so that no other object can get the same id
        self._digest = ""
        self._written: Signature | None = None

    def put(self, constants: Mapping[str, torch.Tensor]) -> tuple[str, dict[str, Any]]:
        """Store `constants` unless they are stored already. Returns the SHA-256 of the file and its entry for the
        index. The caller must fsync the folder before it lists the entry. Raises OSError."""
        known = self._tensors.keys() == constants.keys() and all(self._tensors[n] is v for n, v in constants.items())
        if not known or not self._still_there():
            self._write(constants)
        path = self.folder / constants_name(self._digest)
        return self._digest, {"sha256": self._digest, "bytes": path.stat().st_size}

    def _still_there(self) -> bool:
        path = self.folder / constants_name(self._digest)
        return regular_file(path) is None and signature(path) == self._written

    def _write(self, constants: Mapping[str, torch.Tensor]) -> None:
        temporary = self.folder / f"{TEMPORARY}{os.getpid()}-constants"
        try:
            digest = write_state(temporary, {"format": FORMAT, "constants": _alone(constants)})
            path = self.folder / constants_name(digest)
            if not has(path, digest):
                temporary.replace(path)
        finally:
            discard(temporary)
        self._tensors, self._digest, self._written = dict(constants), digest, signature(path)


def _alone(constants: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each tensor in memory of exactly its size (no view), sorted by name, so that equal constants give equal files."""
    out = {}
    for name in sorted(constants):
        tensor = constants[name].detach().cpu().contiguous()
        exact = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        out[name] = tensor if exact else tensor.clone()
    return out
