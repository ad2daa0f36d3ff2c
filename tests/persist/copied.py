"""What a second place for checkpoints holds."""

from pathlib import Path

from training.data.files import sha256
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder

WHERE = Path("checkpoints/toy")


def intact(folder):
    """Name -> step of every listed checkpoint, each of which must be intact."""
    listed = CheckpointFolder(folder).listed()
    assert all(sha256(folder / name) == entry.sha256 for name, entry in listed.items())
    return {name: entry.step for name, entry in listed.items()}


def tidy(folder):
    return {path.suffix for path in folder.iterdir() if path.is_file()} <= {".pt", ".json"}
