"""receipt.json: the origin of every exported file, and what was measured on it.

    {"format": 1, "synthetic": bool, "families": {run, as "family" or "family/item": {
        "title", "synthetic", "checkpoint": {"file", "sha256", "bytes", "epoch", "step", "weights"},
        "trained": the checkpoint's provenance (data and config digest, seed, code, libraries, hardware, seconds),
        "base": the pre-trained model that it builds on (pretrained.Base), or null,
        "metrics": held-out metrics at that checkpoint, "cost": {"seconds", "money", "currency"},
        "exported": {"at", "seconds", "code", "libraries", "hardware", "options"},
        "graphs": {graph: signature.Signature and the formats made},
        "weights": the name of the safetensors file, or null; "artefacts": [names],
        "files": {name below this folder: {"kind", "sha256", "bytes", ... what was measured}},
        "notes": [texts]}}}

An artefact in `files` has "prover", "about" (the input of the prover) and "measured" (its result). A number that is not
finite is null. Each run is exported by a separate call; all runs share one receipt.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from training.data.files import write_atomic
from training.errors import ExportError
from training.host import available_cpus, cpu_name
from training.workspace import PROJECT

FORMAT = 1
NAME = "receipt.json"
LIBRARIES = ("torch", "onnx", "onnxruntime", "onnxscript", "coremltools", "safetensors", "numpy")

#: What decides the content of every domain's files, below training/: how a model is loaded, traced and written.
MAKERS = ("recipe.py", "graphs.py", "pretrained.py", "export", "data", "stages/export.py", "stages/trained.py")


def read_receipt(folder: Path) -> dict[str, Any] | None:
    """The receipt in `folder`, or None if there is none. Raises ExportError if it cannot be read."""
    path = folder / NAME
    try:
        receipt = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} cannot be read ({error}). Delete it and export again.") from None
    families = receipt.get("families") if isinstance(receipt, dict) else None
    if not isinstance(families, dict) or receipt.get("format") != FORMAT:
        raise ExportError(f"{path} is not a receipt of format {FORMAT}. Delete it and export again.")
    for family, entry in families.items():
        if not isinstance(entry, dict) or not all(isinstance(entry.get(k), dict) for k in ("files", "graphs")):
            raise ExportError(f"{path}: the entry of `{family}` is damaged. Export it again.")
    return receipt


def merge_family(folder: Path, run: str, entry: Mapping[str, Any]) -> None:
    """Add or replace one run's entry in the receipt, atomically; the entries of other runs are kept."""
    families = dict((read_receipt(folder) or {"families": {}})["families"])
    families[run] = entry
    receipt = {
        "format": FORMAT,
        "project": "athanor",
        "synthetic": any(e["synthetic"] for e in families.values()),
        "families": {name: families[name] for name in sorted(families)},
    }
    text = json.dumps(finite(receipt), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(folder / NAME, (text + "\n").encode())


def finite(value: Any) -> Any:
    """`value` with null for infinities and NaN, which JSON does not have; for receipt.json and metrics.json."""
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def figure(value: Any, unknown: float = float("nan")) -> float:
    """A number from a receipt; `unknown` for null, that is, one that was not finite."""
    return unknown if value is None else float(value)


def libraries() -> dict[str, str]:
    """The versions of Python and of the libraries that an export uses."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def hardware() -> dict[str, Any]:
    """Processor, cores that this process may use, and system."""
    return {
        "processor": cpu_name(), "cores": available_cpus(), "system": f"{platform.system()} {platform.machine()}",
    }  # fmt: skip


def code_version(*folders: Path) -> str:
    """A digest of the sources that decide the content of a run's files: MAKERS, and the run's domain (`folders`). It
    does not depend on the folder that the project is in."""
    total = hashlib.sha256()
    for source in (*(PROJECT / "training" / name for name in MAKERS), *folders):
        for path in [source] if source.is_file() else sorted(source.rglob("*")):
            if path.suffix in (".py", ".yaml"):
                name = path.relative_to(source.parent).as_posix()
                total.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()[:16]
