"""summary.json: the results of `prepare`. A domain decides what it contains; it always contains `synthetic`."""

from __future__ import annotations

import json
from typing import Any

from training.errors import DataError
from training.workspace import Workspace

SUMMARY = "summary.json"


def summary_of(workspace: Workspace) -> dict[str, Any] | None:
    """The summary of the workspace's manifests; None if `prepare` has not run, or did not finish."""
    try:
        return json.loads((workspace.manifests / SUMMARY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(f"{workspace.manifests / SUMMARY} is damaged ({error}). Run prepare again.") from None
