"""ONNX Runtime for browsers (onnxruntime-web), in the version that runtime.json pins: from `npm ci` in hosts/browser,
else from a content delivery network with integrity hashes."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from training.data.files import disk_errors
from training.errors import HostError
from training.workspace import PROJECT

ABOUT = Path(__file__).parent / "runtime.json"
INSTALLED = PROJECT / "hosts" / "browser" / "node_modules" / "onnxruntime-web" / "dist"


def pinned() -> dict[str, Any]:
    """{"package", "version", "cdn": base address, "files": {"script" and "wasm": {"name", "integrity"}}, "webgpu": the
    same for the build with WebGPU}."""
    return json.loads(ABOUT.read_text(encoding="utf-8"))


def integrity(path: Path) -> str:
    """The value of an `integrity` attribute for a file: sha384 in base64 (W3C, Subresource Integrity)."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha384").digest()
    return "sha384-" + base64.b64encode(digest).decode()


def bring(folder: Path, installed: Path = INSTALLED, webgpu: bool = False) -> dict[str, Any]:
    """Copy the installed runtime into `folder`/runtime, if there is one; returns the page's entry about it: {"local",
    "base", "files", "text"}, and "webgpu" for a page that uses it, too. Raises HostError if an installed file is not
    that of the pinned version, or on a full disk."""
    about = pinned()
    name = f"{about['package']} {about['version']}"
    text = f"{name} (WebAssembly on the processor)"
    builds = {build: about[build] for build in (("files", "webgpu") if webgpu else ("files",))}
    if not installed.is_dir():
        text += f", loaded from {about['cdn']} and checked by its SHA-384."
        return {"local": False, "base": about["cdn"], "text": text} | builds
    target = folder / "runtime"
    with disk_errors(target):
        target.mkdir(parents=True, exist_ok=True)
        for file in (file for build in builds.values() for file in build.values()):
            source = installed / file["name"]
            if not source.is_file() or integrity(source) != file["integrity"]:
                raise HostError(f"{source} is not that of {name}. Run `npm ci` in {installed.parents[2]} again.")
            shutil.copyfile(source, target / file["name"])
    return {"local": True, "base": "./runtime/", "text": f"{text}, served here."} | builds
