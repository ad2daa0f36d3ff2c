"""Writes a folder that any web server can serve: a domain's page, the exported models that it runs, and the runtime.

play.json, which the page loads first: {"about": a sentence, "synthetic": bool, "models": {graph: {"file", "bytes",
"integrity"}}, "runtime": runtime.bring, "extra": the domain's}.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from training.data.files import disk_errors, write_atomic
from training.errors import UsageError
from training.export.receipt import read_receipt
from training.play.runtime import INSTALLED, bring, integrity

HERE = Path(__file__).parent  # page.html.j2: what all pages have alike
SHARED = HERE / "shared"  # what every page may load
PAGE = "index.html.j2"


def write_site(
    folder: Path,
    page: Path,
    exports: Path,
    models: Mapping[str, Path],
    about: str,
    extra: Mapping[str, Any] | None = None,
    runtime: Path | None = None,
    webgpu: bool = False,
) -> None:
    """Write the page in `folder`, replacing one that is there.

    `page`: the folder with index.html.j2 and what it loads beside those of shared/; `models`: name -> its ONNX file;
    `exports`: where the receipt is; `runtime`: the folder of an installed runtime, instead of hosts/browser's;
    `webgpu`: whether the page may use the runtime's build with WebGPU.

    Raises UsageError if a file of `models` has not been exported, ExportError for a damaged receipt, HostError.
    """
    receipt = read_receipt(exports)
    if receipt is None:
        raise UsageError(f"There are no exports in {exports}. Train and export first, or name the job with --out DIR.")
    for path in models.values():
        if not path.is_file():
            raise UsageError(f"{path} is missing: `python -m training export` makes it.")
    with disk_errors(folder):
        if folder.is_dir() and (folder / "play.json").is_file():
            shutil.rmtree(folder)
        (folder / "models").mkdir(parents=True, exist_ok=True)
        engine = bring(folder, runtime or INSTALLED, webgpu)
        origin = "" if engine["local"] else engine["base"].split("/npm/")[0]
        for path in [*SHARED.iterdir(), *page.iterdir()]:
            if path.name != PAGE:
                write_atomic(folder / path.name, path.read_bytes())
        templates = Environment(
            loader=FileSystemLoader([page, HERE]), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        # `origin`: of the runtime, if it is not local: in the page's Content-Security-Policy
        write_atomic(folder / "index.html", templates.get_template(PAGE).render(origin=origin).encode())
        entries = {name: _model(path, folder, f"models/{name}.onnx") for name, path in models.items()}
    facts = {
        "about": about,
        "synthetic": bool(receipt.get("synthetic")),
        "models": entries,
        "runtime": engine,
        "extra": dict(extra or {}),
    }
    write_atomic(folder / "play.json", (json.dumps(facts, indent=1) + "\n").encode())


def _model(source: Path, folder: Path, name: str) -> dict[str, Any]:
    """Copy a model into the page's folder, as a link to the same data where the disk allows it; its entry."""
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return {"file": name, "bytes": target.stat().st_size, "integrity": integrity(target)}
