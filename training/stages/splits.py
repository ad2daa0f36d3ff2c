"""A split, ready to train on: its manifest checked, its files decoded, its arrays at hand."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.data import files, index, manifest
from training.data.encode import describe, encode_all
from training.data.files import printable
from training.workspace import PROJECT, Workspace

if TYPE_CHECKING:
    from training.data.encode import Encoder
    from training.data.rows import Row
    from training.recipe import Recipe


def load_split(
    recipe: Recipe,
    workspace: Workspace,
    split: str,
    *,
    audio_root: Path | None = None,
    midi_root: Path | None = None,
    options: Mapping[str, Any] | None = None,
    workers: int | None = None,
    say: Callable[[str], None] = print,
) -> Sequence[Row]:
    """The rows of "train" or "val" with their stored arrays; what the stores lack is decoded first.

    The manifest is the config's (`data.train_manifest`, `data.val_manifest`) or the workspace's own; a hand-written one
    is as good as a built one. A manifest that was checked before is not read again while neither it nor any file that
    it names has changed. Raises DataError for a missing or faulty manifest, or too many unreadable files.
    """
    audio_root = audio_root or (options or {}).get("audio_root")
    midi_root = midi_root or (options or {}).get("midi_root")
    settings = recipe.settings.data
    named = settings.train_manifest if split == "train" else settings.val_manifest
    path = _existing(Path(named).expanduser()) if named else workspace.manifest(recipe.manifest, split)
    cache = Path(settings.cache_dir).expanduser() if settings.cache_dir else workspace.cache
    encoders = recipe.encoders()
    place = index_path(cache, recipe.family, path)
    under = {"folder": path.absolute().parent, "here": Path.cwd(), "audio": audio_root, "midi": midi_root,
             "clouds": workspace.clouds}  # fmt: skip
    origin = partial(
        index.Origin,
        how=how(recipe.family, recipe.row_checks, encoders),
        under={key: str(value) for key, value in under.items()},
    )
    if files.regular_file(path) is None:
        rows = index.read(place, cache, path, origin)
        if rows is not None:
            return rows
    rows = manifest.load(
        path,
        path_keys=tuple(encoders),
        audio_root=audio_root,
        midi_root=midi_root,
        clouds_root=workspace.clouds,
        check=recipe.check_row,
    )
    listing = cache / "quarantine" / f"{recipe.manifest}_{split}.jsonl"
    kept, refused = encode_all(rows, encoders, cache, workers, quarantine=listing, say=say)
    if refused:
        place.unlink(missing_ok=True)
        say(f"  {len(rows) - len(kept)} of {len(rows)} songs of {printable(path)} are left out:\n{describe(refused)}")
        return kept
    checked = origin(hashlib.sha256(rows.table.text).hexdigest())  # of what was read: it may have changed since
    return index.write(place, kept.table, checked) or kept


def index_path(cache: Path, family: str, path: Path) -> Path:
    """Where the index of a manifest is kept, for one family."""
    which = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:16]
    return cache / "index" / f"{family}-{path.stem[:64]}-{which}" / "rows"


def how(family: str, row_checks: int, encoders: Mapping[str, Encoder]) -> dict[str, object]:
    """What else than the manifest decides what its rows are: whose checks they passed, and what decoded their files."""
    told = {key: [encoder.kind, encoder.version] for key, encoder in encoders.items()}
    return {"family": family, "checks": [manifest.CHECKS, row_checks], "encoders": told}


def _existing(path: Path) -> Path:
    """A manifest named in a config: from where the user stands, else from the project's folder."""
    return path if path.is_absolute() or path.exists() else PROJECT / path
