"""Checkpoints of models whose weights are mostly frozen: only the trained ones are saved.

`Stepped.saved(model)` names the entries of the state_dict that a checkpoint holds. The others, the base, come from
`build` each time; a checkpoint holds their digest, so that it is never loaded into a model with another base.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch

from training.engine.process.sharding import complete, local
from training.errors import TrainingError, UsageError
from training.recipe import BASE_DTYPES

if TYPE_CHECKING:
    from training.recipe import Stepped

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class _Hashed:
    """The digest of the frozen tensors of a model, and the state in which they were hashed."""

    marks: dict[str, tuple[int, int]]  # name -> (address, number of in-place changes); differs once a tensor is changed
    sha256: str


_hashed: WeakKeyDictionary[torch.nn.Module, _Hashed] = WeakKeyDictionary()


def split_state(recipe: Stepped, model: torch.nn.Module) -> tuple[State, dict[str, Any] | None]:
    """(the part of the model's state_dict that a checkpoint holds, {"sha256", "tensors"} of the frozen rest); (all of
    it, None) if the recipe saves everything.

    The rest is hashed once for each model in a process, as gigabytes take seconds. Where parameters are sharded, every
    rank must call this: the rest is gathered, one tensor at a time; the part that is saved is not.

    Raises TrainingError if `saved` names a tensor that the model does not have, if a trained parameter is not saved, or
    if a frozen tensor has changed.
    """
    state = model.state_dict()
    names = recipe.saved(model)
    if names is None:
        return dict(state), None
    names = set(names)
    _require_sensible(recipe, model, state, names)
    frozen = {name: value for name, value in state.items() if name not in names}
    saved = {name: value for name, value in state.items() if name in names}
    return saved, {"sha256": _digest_once(recipe, model, frozen), "tensors": len(frozen)}


def load_state(
    recipe: Stepped, model: torch.nn.Module, content: Mapping[str, Any], name: str, *, averaged: bool = False
) -> None:
    """Load the weights of the checkpoint `content` into `model`; with `averaged` those of the EMA, if it has one.
    `name`: of the checkpoint, for messages.

    Raises UsageError if it was trained on another base than that of the model; RuntimeError, as torch does, if names or
    shapes do not fit.
    """
    weights = (content["ema"] if averaged else None) or content["model"]
    frozen = content.get("frozen")
    if frozen is None:
        model.load_state_dict(weights)
        return
    _, own = split_state(recipe, model)
    if own is None:
        raise RuntimeError(f"it holds {len(weights)} tensors, and refers to {frozen['tensors']} frozen ones")
    if own != frozen:
        raise UsageError(
            f"{name} was trained on another base: the {frozen['tensors']} frozen tensors that it refers to have the "
            f"SHA-256 {frozen['sha256'][:12]}..., the {own['tensors']} of this model have {own['sha256'][:12]}... "
            "(base changed). Restore the base on which it was trained, or start a new run with --resume never."
        )
    wrong = model.load_state_dict(weights, strict=False)
    saved = set(recipe.saved(model) or ())
    missing = [key for key in wrong.missing_keys if key in saved]
    if missing or wrong.unexpected_keys:
        raise RuntimeError(f"missing: {', '.join(missing) or 'none'}; unexpected: {', '.join(wrong.unexpected_keys)}")


def _require_sensible(recipe: Stepped, model: torch.nn.Module, state: State, names: Collection[str]) -> None:
    unknown = sorted(set(names) - state.keys())
    if unknown:
        raise TrainingError(
            f"{recipe.title} saves {unknown[0]}, which its model does not have ({len(unknown)} such names)."
        )
    lost = [name for name, p in model.named_parameters() if p.requires_grad and name not in names]
    if lost:
        raise TrainingError(
            f"{recipe.title} trains {lost[0]} and does not save it ({len(lost)} such parameters): `saved` has to name "
            "it, or `build` has to freeze it."
        )


def _digest_once(recipe: Stepped, model: torch.nn.Module, frozen: State) -> str:
    """The digest of the frozen tensors; the cached one if none of them has changed since it was computed."""
    # What a module adds to its state_dict beside its tensors is made by each call: it cannot be known by its address.
    named = (model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False))
    tensors = {name for name, _ in chain(*named)}
    held = {name: local(value) for name, value in frozen.items()}
    marks = {name: (value.data_ptr(), _version(value)) for name, value in held.items() if name in tensors}
    known = _hashed.get(model)
    if known is not None and known.marks == marks:
        return known.sha256
    digest = frozen_digest(recipe, model, frozen)
    if known is not None and known.sha256 != digest:
        moved = next(name for name in marks if known.marks.get(name) != marks[name])
        raise TrainingError(
            f"{recipe.title}: {moved} changed, and is not saved. A buffer that training updates belongs in `saved`."
        )
    _hashed[model] = _Hashed(marks, digest)
    return digest


def frozen_digest(recipe: Stepped, model: torch.nn.Module, frozen: State) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of tensors, in the order of names.

    Under the policies "bfloat16_base" and "float16_base", frozen parameters are hashed in that dtype whatever theirs
    is: an export builds the model in float32.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    policy = recipe.dtype_policy
    base = getattr(torch, BASE_DTYPES[policy]) if policy in BASE_DTYPES else None
    total = hashlib.sha256()
    for name in sorted(frozen):
        value = complete(frozen[name].detach())
        if base is not None and name in parameters and value.is_floating_point():
            value = value.to(base)
        value = value.cpu().contiguous()
        total.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version
