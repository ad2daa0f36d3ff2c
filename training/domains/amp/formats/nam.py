""".nam files of neural-amp-modeler: WaveNet (versions 0.5 and 0.7), LSTM, and SlimmableContainer.

A container holds complete models, each with the share of a player's quality setting up to which it is used. What is
refused, and why: docs/amp.md.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from training.domains.amp.formats import wavenet
from training.domains.amp.formats.document import integer, kept, mapping, number, refuse_unknown, sequence, weights
from training.domains.amp.networks.wavenet import ArrayShape

RATE = 48_000  # Hz, of a file without `sample_rate`: what neural-amp-modeler trains at
_RATES = (8_000, 384_000)
_SUPPORTED = ("WaveNet", "LSTM", "SlimmableContainer")
_MOST_MODELS = 8
#: The weights of a file may differ from `head_scale` of its configuration by rounding; beyond that, players use the
#: weights' value.
_HEAD_SCALE = 1e-5


@dataclass(frozen=True)
class Model:
    """One network of a file."""

    architecture: str  # WaveNet or LSTM
    sample_rate: int
    weights: np.ndarray  # float32 [n], as in the file
    arrays: tuple[ArrayShape, ...] = ()  # of a WaveNet
    head_scale: float = 1.0
    layers: int = 0  # of an LSTM
    hidden: int = 0
    skip: bool = False
    split_bias: bool = False  # whether an LSTM's file holds both of its biases, and no state at rest (GuitarML)


@dataclass(frozen=True)
class Read:
    """The networks of a file, the smallest first, and remarks for its owner."""

    version: str
    architecture: str
    models: tuple[Model, ...]
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


def read(document: Mapping[str, Any], sample_rate: int | None = None) -> Read:
    """A .nam document -> its networks. `sample_rate`: in Hz, for a file that holds none. Raises ValueError."""
    architecture, version = document.get("architecture"), document.get("version")
    if architecture not in _SUPPORTED:
        raise ValueError(f"architecture `{architecture}` is not supported; known are {', '.join(_SUPPORTED)}")
    if not isinstance(version, str):
        raise ValueError(f"`version` should be a text; it is {version!r}")
    metadata = mapping(document.get("metadata") or {}, "metadata")
    notes: list[str] = []
    rate = _rate(document, sample_rate, notes)
    models = tuple(_model(one, rate) for one in _single(document))
    if len({model.sample_rate for model in models}) > 1:
        raise ValueError("its models have different sample rates")
    if any(model.architecture == "LSTM" for model in models):
        notes.append("the state at rest is computed again, from a second of silence")
    return Read(version, architecture, models, tuple(notes), metadata)


def _rate(document: Mapping[str, Any], sample_rate: int | None, notes: list[str]) -> int:
    if document.get("sample_rate") is not None:
        return integer(document["sample_rate"], "sample_rate", *_RATES)
    if sample_rate is None:
        notes.append(f"no sample rate inside: {RATE:,} Hz, as players assume (--sample-rate sets another)")
    return sample_rate or RATE


def _single(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The documents of the networks: the file's own, or those of a container."""
    if document["architecture"] != "SlimmableContainer":
        yield document
        return
    config = mapping(document.get("config"), "config")
    refuse_unknown(config, ("submodels",))
    listed = sequence(config.get("submodels"), "submodels")
    if not 1 <= len(listed) <= _MOST_MODELS:
        raise ValueError(f"`submodels` has {len(listed)} models; supported are 1 to {_MOST_MODELS}")
    last = 0.0
    for place, entry in enumerate(listed, 1):
        values = mapping(entry, "submodels")
        largest = number(values.get("max_value"), "max_value")
        if not last < largest:
            raise ValueError("`max_value` of the submodels does not increase")
        last = largest
        model = mapping(values.get("model"), "model")
        if model.get("architecture") not in ("WaveNet", "LSTM"):
            raise ValueError(f"submodel {place}: architecture `{model.get('architecture')}` is not supported")
        yield model


def _model(document: Mapping[str, Any], rate: int) -> Model:
    rate = rate if document.get("sample_rate") is None else integer(document["sample_rate"], "sample_rate", *_RATES)
    config = mapping(document.get("config"), "config")
    numbers = weights(sequence(document.get("weights"), "weights"))
    if document["architecture"] == "LSTM":
        return _lstm(config, numbers, rate)
    if config.get("condition_dsp") is not None:
        raise ValueError("`condition_dsp` is not supported")
    arrays = wavenet.shapes({key: value for key, value in config.items() if key != "condition_dsp"})
    _check_count(len(numbers), 1 + sum(array.weights for array in arrays))
    scale, last = wavenet.head_scale(config), float(numbers[-1])
    return Model("WaveNet", rate, numbers, arrays, last if abs(last - scale) > _HEAD_SCALE else scale)


def _lstm(config: Mapping[str, Any], numbers: np.ndarray, rate: int) -> Model:
    refuse_unknown(config, ("input_size", "hidden_size", "num_layers"))
    if integer(config.get("input_size", 1), "input_size") != 1:
        raise ValueError(f"`input_size` {config['input_size']} (knobs) is not supported")
    hidden, layers = (
        integer(config.get("hidden_size"), "hidden_size"),
        integer(config.get("num_layers", 1), "num_layers"),
    )
    first, others = 4 * hidden * (1 + hidden + 1), 4 * hidden * (2 * hidden + 1)
    _check_count(len(numbers), first + (layers - 1) * others + 2 * hidden * layers + hidden + 1)
    return Model("LSTM", rate, numbers, layers=layers, hidden=hidden)


def _check_count(found: int, needed: int) -> None:
    if found != needed:
        raise ValueError(f"{found:,} weights; its layers need {needed:,}")


def with_weights(
    document: Mapping[str, Any],
    new: Sequence[np.ndarray],
    measured: Mapping[str, Any] | None = None,
    athanor: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The document with the weights `new` (float32 [n], one per network), the same keys and the same version.

    `measured`: values for those keys of the metadata (loudness, gain) that the file has. `athanor`: an additional key
    of the metadata; None: none.
    """
    out = copy.deepcopy(dict(document))
    for model, numbers in zip(_single(out), new, strict=True):
        model["weights"] = kept(model["weights"], numbers)
        _renew(model, measured)
    if athanor is not None:
        out["metadata"] = {**(out.get("metadata") or {}), "athanor": dict(athanor)}
    _renew(out, measured)
    return out


def _renew(document: Any, measured: Mapping[str, Any] | None) -> None:
    metadata = document.get("metadata")
    if metadata and measured:
        metadata.update({key: value for key, value in measured.items() if key in metadata})
