"""Where the domain's files are in a workspace."""

from __future__ import annotations

from pathlib import Path

from training.workspace import Workspace

MANIFEST = "market"  # of every family


def root_of(decisions: Path) -> Path:
    """The folder of the workspace that a file of decisions lies in."""
    return decisions.parents[2]


def decisions_path(workspace: Workspace, symbol: str) -> Path:
    """The decisions of a symbol."""
    return workspace.root / "data" / "decisions" / f"{symbol}.decisions"


def minutes_path(workspace: Workspace, symbol: str) -> Path:
    """Its clean one-minute bars."""
    return workspace.root / "data" / "minutes" / f"{symbol}.minutes"


def oracle_path(root: Path, symbol: str) -> Path:
    """What could be known at best, of a demo's market. `root`: of the workspace."""
    return root / "data" / "oracle" / f"{symbol}.oracle"


def about_path(workspace: Workspace, symbol: str) -> Path:
    """What is known of a symbol beside its decisions: session, settings, health. JSON."""
    return workspace.root / "data" / "decisions" / f"{symbol}.json"


def features_path(workspace: Workspace) -> Path:
    """The table of the features. JSON."""
    return workspace.root / "data" / "features.json"


def detector_path(workspace: Workspace) -> Path:
    """What the leak detector found. JSON."""
    return workspace.root / "runs" / "detector.json"


def paths_path(workspace: Workspace) -> Path:
    """The paths of combinatorial cross-validation. JSON."""
    return workspace.root / "runs" / "paths.json"


def trials_path(root: Path) -> Path:
    """Everything that was tried, one JSON object a line. `root`: of the workspace."""
    return root / "runs" / "trials.jsonl"
