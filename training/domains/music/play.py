"""The command `play`: a page in the browser that runs the exported models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from training.domain import Job
from training.errors import UsageError
from training.export.layout import Layout
from training.export.receipt import read_receipt
from training.play.command import port_of
from training.play.server import serve
from training.play.site import write_site

PAGE = Path(__file__).parent / "player"
GRAPHS = {"midi_generator": ("midi_generator_step",), "spectocloud": ("spectocloud_frontend", "spectocloud")}
TEXTS = {"midi_generator": "Music that follows the emotion", "spectocloud": "clouds drawn from what is heard"}


def play(job: Job, words: Sequence[str], load: Callable[[str], Any]) -> None:
    """Write exports/play/, and serve it on 127.0.0.1 unless `write_only`. Options: `port`, `write_only`.

    Raises UsageError without exports of a family, ExportError for a damaged receipt, HostError.
    """
    port = port_of(job.options["port"])
    folder = write_page(job.workspace.exports)
    job.say(f"Written: {job.workspace.relative(folder)}/ (a static folder; any web server can serve it)")
    if not job.options["write_only"]:
        serve(folder, port, job.say)


def write_page(exports: Path, folder: Path | None = None, runtime: Path | None = None) -> Path:
    """Write the page for what is in `exports` into `folder` (default: exports/play), which is returned. `runtime`: as
    write_site. Raises as `play`."""
    families = (read_receipt(exports) or {"families": {}})["families"]
    known = [family for family in GRAPHS if family in families]
    if not known:
        raise UsageError(
            f"There are no exports of {' or '.join(GRAPHS)} in {exports}. Train and export first, or name the folder "
            "of the job with --out DIR."
        )
    models = {graph: exports / Layout(family).onnx(graph) for family in known for graph in GRAPHS[family]}
    folder = folder or exports / "play"
    about = ", and ".join(TEXTS[family] for family in known) + ": the exported ONNX files, run by this browser."
    write_site(folder, PAGE, exports, models, about, runtime=runtime, webgpu="spectocloud" in known)
    return folder
