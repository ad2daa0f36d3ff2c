"""The command `play`: a page in the browser that plays guitar through a capture before and after training."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.data.files import write_atomic
from training.domain import Job
from training.domains.amp.exports.stream import NAME, graphs
from training.domains.amp.networks.network import Network
from training.domains.amp.plucks import playing
from training.domains.amp.sounds import heard
from training.errors import UsageError
from training.export.layout import Layout
from training.export.onnx import write_onnx
from training.export.ready import is_ready, write_ready
from training.export.receipt import read_receipt
from training.export.trace import trace
from training.play.command import port_of
from training.play.server import serve
from training.play.site import write_site

PAGE = Path(__file__).parent / "player"
_SECONDS, _SEED = 12.0, 5  # of the computed guitar


def play(job: Job, words: Sequence[str], load: Callable[[str], Any]) -> None:
    """Write exports/play/, and serve it on 127.0.0.1 unless `write_only`. Options: `port`, `write_only`.

    Raises UsageError without exported captures, ExportError for a damaged receipt, HostError.
    """
    port = port_of(job.options["port"])
    folder = write_page(job.workspace.exports, load)
    job.say(f"Written: {job.workspace.relative(folder)}/ (a static folder; any web server can serve it)")
    if not job.options["write_only"]:
        serve(folder, port, job.say)


def write_page(
    exports: Path, load: Callable[[str], Any], folder: Path | None = None, runtime: Path | None = None
) -> Path:
    """Write the page for the captures in `exports` into `folder` (default: exports/play), which is returned.

    `load`: gives the trained model of a run, whose original networks are exported here; `runtime`: as write_site.
    Raises as `play`.
    """
    runs = [run for run in (read_receipt(exports) or {"families": {}})["families"] if run.startswith("amp/")]
    if not runs:
        raise UsageError(
            f"There are no exported captures in {exports}. Train and export first, or name the folder of the job with "
            "--out DIR."
        )
    folder = folder or exports / "play"
    models, captures = {}, {}
    with tempfile.TemporaryDirectory() as room:
        for number, run in enumerate(runs):
            layout, pair = Layout.of(run), load(run).model.rest()
            original = Path(room) / f"{number}.onnx"
            write_stream(pair.teachers[-1], original)
            models |= {f"{layout.item}/teacher": original, f"{layout.item}/student": exports / layout.onnx(NAME)}
            captures[layout.item] = about(pair.teachers[-1], pair.students[-1])
        text = "Guitar through captures before and after training: the ONNX files, run by this browser."
        write_site(folder, PAGE, exports, models, text, {"captures": captures}, runtime)
    rate = next(iter(captures.values()))["rate"]
    write_atomic(folder / "plucked.wav", _wav(playing(_SECONDS, rate, _SEED), rate))
    return folder


def write_stream(network: Network, path: Path) -> None:
    """Write amp_stream.onnx of a network. Raises ExportError."""
    graph = graphs([network])[0]
    if is_ready(graph):
        write_ready(graph, path, {})
    else:
        write_onnx(graph, trace(graph), path, {})


def about(teacher: Network, student: Network) -> dict[str, Any]:
    """What the page needs beside the files: {"rate": Hz, "start": values of the states at rest, by side and input,
    "gains": factors to equal loudness, by side}."""
    both = heard(teacher, student, playing(2.0, student.sample_rate, _SEED))
    start = {
        side: {f"state_{n}": value[0].detach().cpu().flatten().tolist() for n, value in enumerate(network.start(1))}
        for side, network in (("teacher", teacher), ("student", student))
    }
    gains = {"teacher": 10 ** (both.gain / 20), "student": 10 ** (both.gain_after / 20)}
    return {"rate": student.sample_rate, "start": start, "gains": gains}


def _wav(sound: np.ndarray, rate: int) -> bytes:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, sound.clip(-1, 1), rate, "PCM_16", format="WAV")
    return file.getvalue()
