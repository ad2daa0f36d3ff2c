"""The capture's file with the trained weights: <name>.aa.nam or <name>.aa.json; or the original, where none is
shipped."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.domains.amp.captures import Capture, read_capture, write_capture
from training.domains.amp.formats.document import parse
from training.domains.amp.networks.network import Network
from training.domains.amp.plucks import playing
from training.errors import ExportError
from training.graphs import Artefact

TOLERANCE = 1e-5  # of the largest value, between the file read again and what was trained
_SECONDS, _SEED, _KEPT = 0.25, 1, 64  # of the sound that both play, and how many of its samples the receipt has


def artefacts(
    capture: Capture, networks: Sequence[Network], figures: Mapping[str, Any], worse: str | None
) -> list[Artefact]:
    """The file with the trained weights; where `worse` says why it would be no improvement, the original instead.

    `figures`: measurements, which the file's metadata takes.
    """
    if worse is not None:
        about = {"sha256": capture.digest, "why": worse}
        return [Artefact(f"{capture.name}{capture.suffix}", lambda path: _original(capture, path), "original", about)]
    content = _content(capture, networks, figures)
    name, about = f"{capture.name}.aa{capture.suffix}", _about(capture, networks)
    return [Artefact(name, lambda path: _written(path, content), "native", about)]


def _original(capture: Capture, path: Path) -> None:
    path.write_bytes(capture.content)


def _written(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _content(capture: Capture, networks: Sequence[Network], figures: Mapping[str, Any]) -> bytes:
    """The file's bytes."""
    athanor = {"teacher_sha256": capture.digest, **figures}
    with tempfile.TemporaryDirectory() as room:
        path = Path(room) / f"capture{capture.suffix}"
        write_capture(capture, networks, path, athanor)
        return path.read_bytes()


def _about(capture: Capture, networks: Sequence[Network]) -> dict[str, Any]:
    """What the prover needs: the original's structure, and the answers of the trained networks."""
    answers = [_answer(network) for network in networks]
    return {
        "teacher_sha256": capture.digest, "rate": capture.sample_rate, "version": capture.version,
        "structure": structure(capture.content), "answers": answers, "tolerance": TOLERANCE,
    }  # fmt: skip


@torch.no_grad()
def _answer(network: Network) -> list[float]:
    """Samples of the network's output for a fixed sound, at even distances."""
    sound = torch.from_numpy(playing(_SECONDS, network.sample_rate, _SEED))[None].to(next(network.parameters()))
    y = network.play(sound)[0].double().cpu().numpy()
    return [float(value) for value in y[np.linspace(0, len(y) - 1, _KEPT).astype(int)]]


def structure(content: bytes) -> str:
    """SHA-256 of a file without what training changes: the numbers of its weights, loudness, gain, and what this
    project adds. Two files with the same one have the same keys in the same order, and the same version."""
    return hashlib.sha256(repr(_without_numbers(parse(content), ())).encode()).hexdigest()


def _without_numbers(value: Any, at: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return [(key, _without_numbers(one, (*at, key))) for key, one in value.items() if key != "athanor"]
    if at[-1:] == ("weights",) or "state_dict" in at:
        return f"{len(value)} numbers" if isinstance(value, list) else None
    if at[-2:] in (("metadata", "loudness"), ("metadata", "gain")):
        return "measured"
    return [_without_numbers(one, at) for one in value] if isinstance(value, list) else value


def prove_native(path: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Read the file as a player would, and compare: structure, version, teacher, and what it answers."""
    try:
        capture = read_capture(path, int(about["rate"]))
    except ValueError as error:
        raise ExportError(f"{path.name} cannot be read again: {error}") from None
    found = structure(capture.content)
    if (capture.version, found) != (about["version"], about["structure"]):
        raise ExportError(f"{path.name} has other keys, or another version, than the capture that it came from.")
    document = parse(capture.content)
    athanor = document.get("athanor") or (document.get("metadata") or {}).get("athanor") or {}
    if athanor.get("teacher_sha256") != about["teacher_sha256"]:
        raise ExportError(f"{path.name} does not name the capture that it came from.")
    worst = 0.0
    for network, wanted in zip(capture.networks, about["answers"], strict=True):
        got, want = np.array(_answer(network)), np.array(wanted)
        worst = max(worst, float(np.abs(got - want).max() / max(1e-12, np.abs(want).max())))
    if not worst <= about["tolerance"]:
        raise ExportError(f"{path.name} answers differently: {worst:.2g} of the largest value.")
    return {"differs": worst, "networks": len(capture.networks), "version": capture.version}


def prove_original(path: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """The file is the original, byte for byte."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != about["sha256"]:
        raise ExportError(f"{path.name} is not the capture that was given.")
    return {"unchanged": True, "why": about["why"]}
