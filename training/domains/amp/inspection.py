"""What is read from one file of the user, for `inspect`: a capture, or guitar."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.data import sandbox
from training.domain import Inspected
from training.domains.amp import guitar
from training.domains.amp.behaviour import behaviour_of
from training.domains.amp.captures import parse_capture
from training.domains.amp.formats.checking import CAPTURE, SUFFIXES
from training.domains.amp.networks.lstm import LSTM
from training.domains.amp.networks.network import Network


def inspect(path: Path) -> Inspected:
    """Raises ValueError, with the reason, for a file that `prepare` would refuse."""
    encoder = CAPTURE if path.suffix.lower() in SUFFIXES else guitar.DI
    (outcome,) = sandbox.run(encoder.function, [path], seconds=encoder.time_limit, megabytes=encoder.megabytes)
    if outcome.error is not None:
        raise ValueError(outcome.error)
    return _capture(path, outcome.value) if encoder is CAPTURE else _guitar(outcome.value)


def _capture(path: Path, record: dict[str, Any]) -> Inspected:
    capture = parse_capture(record["content"].tobytes(), path.stem)
    behaviour = behaviour_of(capture)
    facts = {
        "format": capture.format, "architecture": capture.architecture, "version": capture.version or None,
        "sample rate, Hz": capture.sample_rate, "answer to silence, dB": behaviour.silence,
        "drift after 2 s, dB": behaviour.drift, "SHA-256": capture.digest,
    }  # fmt: skip
    return Inspected(
        "capture", facts, {"networks": [_network(one) for one in capture.networks]},
        (*capture.notes, *behaviour.notes),
    )  # fmt: skip


def _network(network: Network) -> dict[str, Any]:
    count = sum(one.numel() for one in network.parameters())
    if isinstance(network, LSTM):
        return {"kind": "LSTM", "parameters": count, "size": f"{network.core.num_layers} x {network.core.hidden_size}",
                "receptive field": None}  # fmt: skip
    channels = "/".join(str(array.channels) for array in network.shapes)
    return {"kind": "WaveNet", "parameters": count, "size": f"{channels} channels",
            "receptive field": network.receptive_field}  # fmt: skip


def _guitar(record: dict[str, Any]) -> Inspected:
    rate, channels = int(record["rate"]), int(record["channels"])
    facts = {"seconds": len(record["sound"]) / rate, "rate, Hz": rate, "channels": channels,
             "peak": float(abs(record["sound"]).max())}  # fmt: skip
    return Inspected("guitar", facts, remarks=("the left channel is used",) if channels > 1 else ())
