"""The configuration of a WaveNet in a .nam file, of version 0.5 (A1) and 0.7 (A2), as shapes of layer arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.domains.amp.formats.document import flag, integer, mapping, number, refuse_unknown, sequence
from training.domains.amp.networks.activations import PARAMETERS, Activation
from training.domains.amp.networks.wavenet import ArrayShape, LayerShape

_MOST_LAYERS, _MOST_HISTORY = 256, 1 << 20
_FILM = (
    "conv_pre_film", "conv_post_film", "input_mixin_pre_film", "input_mixin_post_film", "activation_pre_film",
    "activation_post_film", "layer1x1_post_film", "head1x1_post_film",
)  # fmt: skip
_BOTH = ("input_size", "condition_size", "channels", "dilations", "activation")
_A1 = ("head_size", "kernel_size", "gated", "head_bias")
_A2 = (
    "head", "kernel_size", "kernel_sizes", "bottleneck", "gating_mode", "secondary_activation", "head1x1", "layer1x1",
    "groups_input", "groups_input_mixin", "slimmable", *_FILM,
)  # fmt: skip


def shapes(config: Mapping[str, Any]) -> tuple[ArrayShape, ...]:
    """`config` of a WaveNet -> its layer arrays. Raises ValueError, naming the key, for what is invalid or not
    supported."""
    refuse_unknown(config, ("layers", "head", "head_scale"))
    if config.get("head") is not None:
        raise ValueError("`head` of the network is not supported (only that of its layer arrays)")
    listed = sequence(config.get("layers"), "layers")
    if not 1 <= len(listed) <= 16:
        raise ValueError(f"`layers` has {len(listed)} layer arrays; supported are 1 to 16")
    arrays = tuple(_array(mapping(one, "layers")) for one in listed)
    inputs, head = 1, None
    for number_, array in enumerate(arrays, 1):
        if array.inputs != inputs:
            raise ValueError(f"layer array {number_}: `input_size` is {array.inputs}; it should be {inputs}")
        if head is not None and head != array.bottleneck:
            raise ValueError(f"layer array {number_} has {array.bottleneck} channels; the head before it gives {head}")
        inputs, head = array.channels, array.head
    if head != 1:
        raise ValueError(f"the last head has {head} channels; an output of one is supported")
    return arrays


def head_scale(config: Mapping[str, Any]) -> float:
    return number(config.get("head_scale", 1.0), "head_scale")


def _array(config: Mapping[str, Any]) -> ArrayShape:
    is_a1 = "head_size" in config
    refuse_unknown(config, _BOTH + (_A1 if is_a1 else _A2))
    if integer(config.get("input_size"), "input_size") and integer(config.get("condition_size"), "condition_size") != 1:
        raise ValueError(f"`condition_size` {config['condition_size']} (knobs) is not supported")
    dilations = [
        integer(value, "dilations", most=_MOST_HISTORY) for value in sequence(config.get("dilations"), "dilations")
    ]
    if not 1 <= len(dilations) <= _MOST_LAYERS:
        raise ValueError(f"`dilations` has {len(dilations)} layers; supported are 1 to {_MOST_LAYERS}")
    channels = integer(config.get("channels"), "channels")
    parts = _a1(config, len(dilations)) if is_a1 else _a2(config, len(dilations), channels)
    kernels, activations, head = parts
    layers = tuple(
        LayerShape(kernel, dilation, *of_layer)
        for kernel, dilation, of_layer in zip(kernels, dilations, activations, strict=True)
    )
    array = ArrayShape(integer(config["input_size"], "input_size"), channels, layers=layers, **head)
    if array.receptive_field > _MOST_HISTORY:
        raise ValueError(f"a receptive field of {array.receptive_field:,} samples is not supported")
    return array


def _a1(config: Mapping[str, Any], count: int) -> tuple[list[int], list[tuple], dict[str, Any]]:
    kernel = integer(config.get("kernel_size"), "kernel_size")
    gated = flag(config.get("gated", False), "gated")
    first = _activation(config.get("activation"))
    of_layer = (first, "gated", Activation("Sigmoid")) if gated else (first,)
    head = {
        "bottleneck": integer(config["channels"], "channels"), "head": integer(config["head_size"], "head_size"),
        "head_kernel": 1, "head_bias": flag(config.get("head_bias", True), "head_bias"),
    }  # fmt: skip
    return [kernel] * count, [of_layer] * count, head


def _a2(config: Mapping[str, Any], count: int, channels: int) -> tuple[list[int], list[tuple], dict[str, Any]]:
    _refuse_modulation(config)
    bottleneck = integer(config.get("bottleneck", channels), "bottleneck")
    layer1x1 = mapping(config.get("layer1x1", {"active": True}), "layer1x1")
    mixing = flag(layer1x1.get("active", True), "layer1x1.active")
    if mixing and layer1x1.get("groups", 1) != 1:
        raise ValueError("`layer1x1.groups` is not supported")
    if not mixing and bottleneck != channels:
        raise ValueError("`bottleneck` differs from `channels` without `layer1x1`")
    head = mapping(config.get("head"), "head")
    refuse_unknown(head, ("out_channels", "kernel_size", "bias"), " of a layer array's head")
    kernel = config.get("kernel_sizes", config.get("kernel_size"))
    kernels = _each(kernel, count, "kernel_sizes")
    primary = _each(config.get("activation"), count, "activation")
    gating = _each(config.get("gating_mode", "none"), count, "gating_mode")
    secondary = _each(config.get("secondary_activation"), count, "secondary_activation")
    activations = [_of_layer(*values) for values in zip(primary, gating, secondary, strict=True)]
    about = {
        "bottleneck": bottleneck, "mixing": mixing, "head": integer(head.get("out_channels"), "head.out_channels"),
        "head_kernel": integer(head.get("kernel_size"), "head.kernel_size"),
        "head_bias": flag(head.get("bias"), "head.bias"),
    }  # fmt: skip
    return [integer(value, "kernel_sizes") for value in kernels], activations, about


def _refuse_modulation(config: Mapping[str, Any]) -> None:
    """Raise ValueError for an active part that this project does not have."""
    for key in (*_FILM, "head1x1"):
        if mapping(config.get(key) or {}, key).get("active"):
            raise ValueError(f"`{key}` is not supported")
    for key in ("groups_input", "groups_input_mixin"):
        if config.get(key, 1) != 1:
            raise ValueError(f"`{key}` {config[key]} is not supported")
    if config.get("slimmable") is not None:
        raise ValueError("`slimmable` is not supported (a SlimmableContainer is)")


def _each(value: Any, count: int, name: str) -> Sequence[Any]:
    """One value for each layer, from a list or from one for all."""
    if not isinstance(value, list):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"`{name}` has {len(value)} values for {count} layers")
    return value


def _of_layer(primary: Any, gating: Any, secondary: Any) -> tuple:
    if gating == "none":
        return (_activation(primary),)
    if gating not in ("gated", "blended"):
        raise ValueError(f"`gating_mode` {gating!r} is not supported")
    return _activation(primary), gating, _activation(secondary)


def _activation(value: Any) -> Activation:
    """A name, or an object with `type` (or `name`) and parameters."""
    if isinstance(value, str):
        return Activation(value)
    fields = dict(mapping(value, "activation"))
    name = fields.pop("type", fields.pop("name", None))
    if not isinstance(name, str) or name not in PARAMETERS:
        raise ValueError(f"activation `{name}` is not supported; known are {', '.join(PARAMETERS)}")
    return Activation(name, {key: number(one, f"activation.{key}") for key, one in fields.items()})
