"""Writes the demo's captures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from training.data.files import write_atomic
from training.data.identity import MARKER
from training.domain import Job

FOLDER = "demo_captures"
#: Capture -> its gain. At the higher one, 2x oversampling was better than a trained network in first trials.
GAINS = {"lead": 20.0, "fuzz": 64.0}


def make_demo(job: Job) -> dict[str, Path]:
    """lead.nam and fuzz.nam; the folder is marked as synthetic."""
    from training.domains.amp.demo.fitting import GAIN, folded, stored

    folder = job.workspace.root / "data" / FOLDER
    if (folder / MARKER).is_file():  # written last, so the demo is complete
        return {"captures": folder}
    folder.mkdir(parents=True, exist_ok=True)
    network, error = stored()
    for name, gain in GAINS.items():
        louder = folded(network, gain / GAIN)
        write_atomic(folder / f"{name}.nam", json.dumps(document(louder, name, gain)).encode())
    write_atomic(folder / MARKER, json.dumps({"synthetic": True, "error_db": error}).encode() + b"\n")
    job.say(
        f"  made {', '.join(f'{name} (gain {gain:g})' for name, gain in GAINS.items())} in "
        f"{job.workspace.relative(folder)}: a network fitted to a circuit at gain {GAIN:g} (ESR {error:.1f} dB)"
    )
    return {"captures": folder}


def document(network, name: str, gain: float) -> Mapping[str, object]:
    """The content of a .nam file of version 0.5.4, as neural-amp-modeler 0.12 writes it."""
    from training.domains.amp.captures import weights_of

    array = network.shapes[0]
    layers = {
        "input_size": 1, "condition_size": 1, "channels": array.channels, "head_size": 1,
        "kernel_size": array.layers[0].kernel, "dilations": [layer.dilation for layer in array.layers],
        "activation": "Tanh", "gated": False, "head_bias": True,
    }  # fmt: skip
    return {
        "version": "0.5.4",
        "metadata": {"name": name, "modeled_by": "athanor demo", "gear_type": "amp", "gear_make": "computed",
                     "gear_model": f"tanh circuit, gain {gain:g}", "tone_type": name, "synthetic": True},
        "architecture": "WaveNet",
        "config": {"layers": [layers], "head": None, "head_scale": network.head_scale},
        "weights": [float(value) for value in weights_of(network, "nam")],
        "sample_rate": network.sample_rate,
    }  # fmt: skip
