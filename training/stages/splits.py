"""Loads a split for training: checks its manifest, decodes its files, and gives access to its stored arrays."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.data import files, index, manifest, sealed
from training.data.encode import describe, encode_all
from training.data.files import printable
from training.data.identity import data_digest
from training.data.schema import SPLITS
from training.data.writing import how, index_path
from training.errors import UsageError
from training.registry import domain_of
from training.workspace import PROJECT, Workspace

if TYPE_CHECKING:
    from training.data.rows import Row
    from training.data.schema import Schema
    from training.recipe import Recipe


def load_split(
    recipe: Recipe,
    workspace: Workspace,
    split: str,
    *,
    options: Mapping[str, Any] | None = None,
    schema: Schema | None = None,
    opening: str = "",
    checkpoint_sha256: str = "",
    workers: int | None = None,
    say: Callable[[str], None] = print,
) -> Sequence[Row]:
    """The rows of "train", "val" or "test" with their stored arrays; what is not in the stores is decoded first.

    The manifest is the config's (`data.train_manifest`, `data.val_manifest`) or the workspace's own; it may be written
    by hand. A manifest that was checked before is not read again while neither it nor any file that it names has
    changed.

    Args:
        options: the domain's options by attribute: folders under which the files of a moved manifest are looked up.
        schema: the schema of a row; default: that of the family's domain.
        opening: why the test split is opened, with the SHA-256 of the checkpoint that is judged: both are recorded
            (data/sealed.py) before the rows are returned. For the test split only.

    Raises DataError for a missing or faulty manifest, or too many unreadable files; UsageError for the test split
    without `opening`.
    """
    if split not in SPLITS:
        raise ValueError(f"`{split}` is no split; there are {', '.join(SPLITS)}")
    if split == "test" and not opening:
        raise UsageError(
            f"The test split of {recipe.data} is sealed: it is opened once, to judge a finished model, and every "
            "opening is recorded. Neither training nor the choice between models may read it."
        )
    rows = _load(recipe, workspace, split, options or {}, schema or domain_of(recipe.run).schema(), workers, say)
    if split == "test" and os.environ.get("RANK", "0") == "0":  # one opening, however many processes read it
        sealed.record(workspace, recipe.run, checkpoint_sha256, data_digest({split: rows}), opening)
    return rows


def load_for_publishing(recipe: Recipe, workspace: Workspace, split: str) -> Sequence[Row]:
    """The rows of a split of the workspace's own manifests, to be copied elsewhere as they are. The test split is not
    opened: no row of it is read."""
    return _load(recipe, workspace, split, {}, domain_of(recipe.run).schema(), None, print)


def _load(
    recipe: Recipe, workspace: Workspace, split: str, options: Mapping[str, Any], schema: Schema,
    workers: int | None, say: Callable[[str], None],
) -> Sequence[Row]:  # fmt: skip
    settings = recipe.settings.data
    named = {"train": settings.train_manifest, "val": settings.val_manifest}.get(split)
    path = _existing(Path(named).expanduser()) if named else workspace.manifest(recipe.data, split)
    cache = Path(settings.cache_dir).expanduser() if settings.cache_dir else workspace.cache
    encoders, roots = recipe.encoders(), _roots(schema, workspace, options)
    place = index_path(cache, recipe.family, path)
    under = {"folder": path.absolute().parent, "here": Path.cwd(), **roots}
    origin = partial(
        index.Origin,
        how=how(recipe.family, recipe.row_checks, encoders, schema),
        under={key: str(value) for key, value in under.items()},
    )
    if files.regular_file(path) is None:
        rows = index.read(place, cache, path, origin)
        if rows is not None:
            return rows
    rows = manifest.load(path, schema, path_keys=tuple(encoders), roots=roots, check=recipe.check_row)
    listing = cache / "quarantine" / f"{recipe.data}_{split}.jsonl"
    kept, refused = encode_all(rows, encoders, cache, workers, quarantine=listing, say=say)
    if refused:
        place.unlink(missing_ok=True)
        say(f"  {len(rows) - len(kept)} of {len(rows)} rows of {printable(path)} are left out:\n{describe(refused)}")
        return kept
    checked = origin(hashlib.sha256(rows.table.text).hexdigest())  # of what was read: it may have changed since
    return index.write(place, kept.table, checked) or kept


def _roots(schema: Schema, workspace: Workspace, options: Mapping[str, Any]) -> dict[str, Path | None]:
    """Path key -> the folder under which moved files are looked up."""
    roots: dict[str, Path | None] = {}
    for key in schema.paths:
        given = options.get(key.root) if key.root else None
        roots[key.name] = Path(given) if given is not None else workspace.root / key.folder if key.folder else None
    return roots


def _existing(path: Path) -> Path:
    """A manifest named in a config: relative to the working directory if it exists there, else to the project."""
    return path if path.is_absolute() or path.exists() else PROJECT / path
