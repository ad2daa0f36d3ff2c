"""Shows an export's samples (pictures, sounds) in the TensorBoard and W&B run of its training, and adds the exported
files to the W&B run as an artifact, and its checkpoints as another one, from which other hosts restore them."""

from __future__ import annotations

import contextlib
import io
import tempfile
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.recipe import Recipe
from training.workspace import Workspace

PICTURES, SOUNDS = (".png",), (".wav", ".mp3")
LONGEST = 20.0  # seconds of a sound that are shown in TensorBoard, which takes only uncompressed ones
UPLOAD_SECONDS = 120.0  # how long an export waits for W&B to upload its files, beside the time that follows from ...
UPLOAD_RATE = 1e6  # ... bytes a second, of checkpoints


def show_exports(recipe: Recipe, entry: Mapping[str, Any], workspace: Workspace, folder: Path) -> None:
    """Add the samples and files that `entry` (of the receipt) names in `folder` to their training's run; nothing where
    that run is not on this host."""
    run = workspace.runs(recipe.run) / Path(str(entry["trained"].get("run_id") or ".")).name
    logging = recipe.settings.logging
    if not run.is_dir() or run == workspace.runs(recipe.run):
        return
    step = int(entry["checkpoint"].get("step") or 0)
    samples = {
        f"samples/{Path(name).stem}{'' if name.endswith(PICTURES) else ' (sound)'}": folder / name
        for name, about in entry["files"].items()
        if about["kind"] == "sample" and name.endswith((*PICTURES, *SOUNDS))
    }
    if logging.tensorboard:
        _to_board(recipe, run, step, samples)
    if logging.wandb != "off":
        _to_wandb(recipe, entry, run, step, samples, folder, workspace)


def _to_board(recipe: Recipe, run: Path, step: int, samples: Mapping[str, Path]) -> None:
    from training.engine.tracking.board import Board

    pictures = {name: path.read_bytes() for name, path in samples.items() if path.suffix in PICTURES}
    beginnings = {name: beginning(recipe, path) for name, path in samples.items() if path.suffix in SOUNDS}
    sounds = {name: content for name, content in beginnings.items() if content is not None}
    if not pictures and not sounds:
        return
    board = Board(run)
    board.show(step, pictures, sounds)
    board.close()
    if board.file.failed:
        print(f"  NOTE: samples are not in TensorBoard: {board.file.path}: {board.file.failed.strerror}")


def beginning(recipe: Recipe, path: Path) -> bytes | None:
    """The beginning of a sound as a 16-bit WAV: of a WAV by the standard library, of other formats by the recipe; None
    where neither reads it."""
    if path.suffix == ".wav":
        with contextlib.suppress(wave.Error, EOFError):  # of floating point, say: the standard library reads none
            return _cut(path)
    return recipe.preview(path, LONGEST)


def _cut(path: Path) -> bytes:
    """Raises wave.Error for anything but integer PCM."""
    with wave.open(str(path)) as sound:
        about, frames = sound.getparams(), sound.readframes(int(LONGEST * sound.getframerate()))
    if about.sampwidth != 2:
        raise wave.Error(f"{8 * about.sampwidth} bits")
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setparams(about)
        sound.writeframes(frames)
    return out.getvalue()


def _to_wandb(
    recipe: Recipe, entry: Mapping[str, Any], run: Path, step: int, samples: Mapping[str, Path], folder: Path,
    workspace: Workspace,
) -> None:  # fmt: skip
    from training.engine.checkpoints.provenance import plain
    from training.engine.tracking.tracker import require_wandb, wandb_options
    from training.engine.tracking.wandb_process import WandbProcess
    from training.persist.wandb_artifact import TYPE, pack, size_of

    require_wandb(recipe.settings.logging)
    options = wandb_options(run, plain(recipe.settings), recipe.settings.logging, recipe.title)
    wandb = WandbProcess(options, lambda text: print(f"  {text}"))
    if samples:
        wandb.show(step, samples)
    beside = [name for name in ("receipt.json", "metrics.json") if (folder / name).is_file()]
    files = {name: folder / name for name in [*entry["files"], *beside]}
    about = {key: entry[key] for key in ("title", "synthetic", "checkpoint", "metrics")}
    name = f"{recipe.run.replace('/', '-')}-{run.name}"
    wandb.artifact(name, files, about)
    if recipe.settings.logging.wandb == "offline":  # checkpoints would only be copied, on the disk that they are on
        wandb.close(UPLOAD_SECONDS)
        return
    with tempfile.TemporaryDirectory(prefix="wandb-", dir=run) as packed:  # on their disk: the checkpoints are linked
        about = pack(workspace, recipe.run, run.name, Path(packed))
        if about:
            wandb.artifact(f"{name}-checkpoint", {path: Path(packed, path) for path in about["files"]}, about, TYPE)
        wandb.close(UPLOAD_SECONDS + size_of(Path(packed)) / UPLOAD_RATE)  # the process reads the files until then
