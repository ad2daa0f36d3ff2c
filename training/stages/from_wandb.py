"""`restore --from-wandb`: a trained family from the artifact of a W&B run, so that another host (or notebook) uses it
as a base model. What was downloaded is compared with the SHA-256 in the artifact's metadata before it is used."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

from training.errors import DataError, HostError, UsageError
from training.persist.copying import Pulse
from training.persist.folder import FolderPlace
from training.persist.restore import restore_family
from training.persist.wandb_artifact import TYPE, require_digest, require_same, run_of
from training.wandb_address import WandbRun
from training.workspace import Workspace, exclusive


def restore_from_wandb(workspace: Workspace, address: WandbRun) -> None:
    """Restore the checkpoints and logs of the run at `address`; what is newer here is kept, an older run is set aside.

    Raises UsageError (wandb is not installed), HostError (W&B does not answer, has no such run, refuses the key),
    DataError (the run has no checkpoints, or they are damaged or another model).
    """
    if importlib.util.find_spec("wandb") is None:
        raise UsageError("--from-wandb needs the wandb package: python -m pip install wandb (or the extra `wandb`).")
    folder = workspace.cache / "from-wandb"
    shutil.rmtree(folder, ignore_errors=True)  # of a download that was killed
    try:
        artifact = _artifact(address)
        about = dict(artifact.metadata or {})
        run = run_of(about, artifact.name)
        _download(artifact, folder, address)
        require_same(folder, about, artifact.name)
        require_digest(folder, run, address.sha256, artifact.name)
        checkpoints, pulse = workspace.checkpoints(run), Pulse()
        with exclusive(checkpoints, f"restoring {run}"):
            report = restore_family(folder / "checkpoints" / run, checkpoints, pulse)
        FolderPlace(folder).restore_files(workspace.root, ["runs"], pulse)
        print(f"{run}: {report}, from the artifact {artifact.name} of {address}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _artifact(address: WandbRun) -> Any:
    """The newest artifact with checkpoints that the run has logged."""
    import wandb

    try:
        logged = [one for one in wandb.Api().run(address.path).logged_artifacts() if one.type == TYPE]
    except Exception as error:
        raise HostError(
            f"{address} cannot be read: {_reason(error)} Is the path as in the address of the run's page "
            "(ENTITY/PROJECT/RUN), and WANDB_API_KEY set?"
        ) from error
    if not logged:
        raise DataError(
            f"{address} has no artifact of type {TYPE}: they are logged when a run is exported with --wandb. It may "
            "not be exported yet, or by an earlier version of this program."
        )
    return max(logged, key=lambda one: int(str(one.version).removeprefix("v")))


def _download(artifact: Any, folder: Path, address: WandbRun) -> None:
    try:
        artifact.download(root=str(folder), skip_cache=True)
    except Exception as error:
        raise HostError(f"{artifact.name} of {address} was not downloaded: {_reason(error)} Run it again.") from error


def _reason(error: Exception) -> str:
    return f"{' '.join(str(error).split())[:300] or type(error).__name__}."
