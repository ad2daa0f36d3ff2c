"""The address of a run of Weights & Biases, as `--from-wandb` takes it. Uses the standard library only."""

from __future__ import annotations

import re
from dataclasses import dataclass

from training.errors import UsageError

_PART = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_ADDRESS = re.compile(rf"(?:https://[^/]+/)?({_PART}/{_PART})/(?:runs/)?({_PART})(?:@([0-9a-f]{{8,64}}))?")


@dataclass(frozen=True)
class WandbRun:
    """ENTITY/PROJECT/RUN, and the SHA-256 (or its beginning) that its checkpoint must have; empty: any."""

    path: str
    sha256: str = ""

    def __str__(self) -> str:
        return self.path + (f"@{self.sha256}" if self.sha256 else "")

    @classmethod
    def parse(cls, text: str) -> WandbRun:
        """Raises UsageError."""
        found = _ADDRESS.fullmatch(text)
        if found is None:
            raise UsageError(
                f"--from-wandb {text}: it takes ENTITY/PROJECT/RUN, as in the address of the run's page, and "
                "optionally @SHA256 of its checkpoint (8 to 64 hex digits)."
            )
        return cls(f"{found[1]}/{found[2]}", found[3] or "")
