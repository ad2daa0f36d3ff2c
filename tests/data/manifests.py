"""Helpers for tests of a schema: write files and manifests, and load them or get the message of their refusal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from training.data import manifest
from training.data.schema import Schema
from training.errors import DataError


def fill(root: Path, names: Iterable[str]) -> Path:
    """Create non-empty files; returns `root`."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def write(corpus: Path, *lines: Any) -> Path:
    """Write a manifest in corpus/out/manifests. Each line is a row, or bytes that are written unchanged."""
    path = corpus / "out" / "manifests" / "m.jsonl"
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"\n".join(texts) + b"\n")
    return path


@dataclass(frozen=True)
class Loading:
    """How the manifests of one schema are loaded in tests. `base`: a row's values; paths are relative to the corpus."""

    schema: Schema
    keys: tuple[str, ...]
    base: Mapping[str, Any]

    def row(self, corpus: Path, **changes: Any) -> dict[str, Any]:
        """The base row with absolute paths and these changes; None leaves a key out."""
        base = {key: str(corpus / value) if key in self.keys else value for key, value in self.base.items()}
        return {key: value for key, value in {**base, **changes}.items() if value is not None}

    def load(self, path: Path, keys: tuple[str, ...] | None = None, **options: Any) -> list[manifest.Row]:
        return manifest.load(path, self.schema, path_keys=keys or self.keys, **options)

    def refusal(self, path: Path, **options: Any) -> str:
        """The message of the error that refuses a manifest."""
        with pytest.raises(DataError) as error:
            self.load(path, **options)
        assert error.value.exit_code == 3
        return str(error.value)
