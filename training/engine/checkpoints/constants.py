"""Large constants are stored once, beside the checkpoints that refer to them.

A recipe's constants (Recipe.fit_constants) do not change in a run's life. Small ones are kept in each checkpoint, so
that it is one file that can be carried anywhere. Large ones would be written again with every save: they go to
`constants-<sha256>.pt`, named after the SHA-256 of that file, and a checkpoint then holds
`"constants": {}, "constants_ref": <sha256>`. The name proves the content, so such a file is never replaced, only added
or deleted; it is on the disk before an index lists a checkpoint that refers to it.
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

#: Bytes of constants, all together, that stay inside of each checkpoint. At 1 MiB, ten checkpoints waste less than a
#: small model's weights take, and most families (a normaliser's mean, a vocabulary) keep checkpoints of one file.
INSIDE = 1 << 20


def are_large(constants: Mapping[str, Any]) -> bool:
    """Whether these constants are stored in a separate file."""
    return sum(v.numel() * v.element_size() for v in constants.values() if isinstance(v, torch.Tensor)) > INSIDE


class StoredOnce:
    """The constants files of one folder, as one process writes them.

    Finding the name of a constants file takes writing it. That happens once a process: `put` recognises the tensors
    that it was given before by identity, and the file that it wrote by its inode and times.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._tensors: dict[str, torch.Tensor] = {}  # held, so that no other tensor gets the identity of one of them
        self._digest = ""
        self._written: Signature | None = None

    def put(self, constants: Mapping[str, torch.Tensor]) -> tuple[str, dict[str, Any]]:
        """Have `constants` on the disk; returns the file's SHA-256 and its entry in the index. The caller syncs the
        folder before it lists the entry. Raises OSError."""
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
    """Each tensor with memory of exactly its size, in the order of names: equal constants give equal files."""
    out = {}
    for name in sorted(constants):
        tensor = constants[name].detach().cpu().contiguous()
        exact = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        out[name] = tensor if exact else tensor.clone()
    return out
