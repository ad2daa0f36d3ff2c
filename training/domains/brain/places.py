"""Where the domain's files are in a workspace."""

from __future__ import annotations

from pathlib import Path

from training.workspace import Workspace

MANIFEST = "brain"  # of every family


def stimulus_path(workspace: Workspace, run: str) -> Path:
    """The stimulus of a run in the bins of its volumes."""
    return workspace.root / "data" / "stimulus" / f"run-{run}.stimulus"


def mask_path(workspace: Workspace) -> Path:
    """The voxels that are used."""
    return workspace.root / "data" / "voxels.mask"


def regions_path(mask: Path) -> Path:
    """The regions of --atlas, beside the mask whose voxels they divide."""
    return mask.with_name("regions.safetensors")


def alarms_path(workspace: Workspace) -> Path:
    """What the alarms found, with the digest of what they depend on. JSON."""
    return workspace.root / "data" / "alarms.json"
