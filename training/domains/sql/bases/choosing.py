"""The base model of a training: the one that --base or the settings name, or one that is made in the workspace."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.data.summary import summary_of
from training.domain import Job
from training.domains.sql.bases import demo, hub, tiny
from training.domains.sql.bases.folder import base_at
from training.domains.sql.bases.wanted import require_one, wanted_of

if TYPE_CHECKING:
    from training.domains.sql.text_to_sql.config import TextToSqlConfig


def settings_of(job: Job, settings: TextToSqlConfig) -> Mapping[str, Any]:
    """The settings that name the base's folder. Raises UsageError for a base that cannot be used, HostError for one
    that cannot be downloaded."""
    require_one(job.options)
    wanted, download = job.options.get("base") or settings.model.base, job.options.get("download")
    if download:
        wanted = hub.fetch(job.workspace.cache, wanted_of(download), job.say)
    elif wanted is None and (summary_of(job.workspace) or {}).get("synthetic"):
        wanted = "demo"  # demo data without a base: the demo's own, whatever the preset
        job.say("  No --base: the demo's base model is used.")
    if wanted == "demo":
        place = demo.make(job.workspace.cache, job.say)
    elif wanted == "tiny":
        place = tiny.make(job.workspace.cache, _texts(job.workspace.manifest("text_to_sql", "train")))
    else:
        place = base_at(wanted).path.absolute()
    return {"model": {"base": str(place)}}


def _texts(manifest: Path) -> Iterator[str]:
    """The questions and queries on which the tokenizer of the small base is trained."""
    for line in manifest.read_text(encoding="utf-8").splitlines() if manifest.is_file() else ():
        row = json.loads(line)
        yield from (row["question"], row["sql"])
