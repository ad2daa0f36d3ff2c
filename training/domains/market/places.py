"""Where the domain's files are in a workspace."""

from __future__ import annotations

from pathlib import Path

from training.workspace import Workspace

MANIFEST = "market"  # of every family


def decisions_path(workspace: Workspace, symbol: str) -> Path:
    """The decisions of a symbol."""
    return workspace.root / "data" / "decisions" / f"{symbol}.decisions"


def minutes_path(workspace: Workspace, symbol: str) -> Path:
    """Its clean one-minute bars."""
    return workspace.root / "data" / "minutes" / f"{symbol}.minutes"


def oracle_path(workspace: Workspace, symbol: str) -> Path:
    """What could be known at best, of a demo's market."""
    return workspace.root / "data" / "oracle" / f"{symbol}.oracle"


def about_path(workspace: Workspace, symbol: str) -> Path:
    """What is known of a symbol beside its decisions: session, settings, health. JSON."""
    return workspace.root / "data" / "decisions" / f"{symbol}.json"


def features_path(workspace: Workspace) -> Path:
    """The table of the features. JSON."""
    return workspace.root / "data" / "features.json"


def detector_path(workspace: Workspace) -> Path:
    """What the leak detector found. JSON."""
    return workspace.root / "runs" / "detector.json"


def trials_path(workspace: Workspace) -> Path:
    """Every model that was judged, one JSON object a line: how many were tried decides what a good one is worth."""
    return workspace.root / "runs" / "trials.jsonl"
