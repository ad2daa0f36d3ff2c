"""summary.json: what `prepare` found and made. A domain decides what it holds; all of them have `synthetic`."""

from __future__ import annotations

import json
from typing import Any

from training.errors import DataError
from training.workspace import Workspace

SUMMARY = "summary.json"


def summary_of(workspace: Workspace) -> dict[str, Any] | None:
    """What `prepare` wrote about the workspace's manifests; None where it has not run (or was stopped)."""
    try:
        return json.loads((workspace.manifests / SUMMARY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(f"{workspace.manifests / SUMMARY} is damaged ({error}). Run prepare again.") from None
