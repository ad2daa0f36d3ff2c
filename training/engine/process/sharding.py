"""Sharded training (`Stepped.parallel` "fsdp"), by torch's `fully_shard` (FSDP2).

The parameters of the modules that a recipe names (`Stepped.blocks`) are divided among the ranks by their first
dimension, frozen and trained ones alike: a rank holds its rows of each, with their gradients and optimizer state. A
block's parameters are gathered before its forward pass and before its backward pass, and freed after each; gradients
are summed over ranks, and a rank keeps those of its rows. Frozen parameters of a block may have another dtype than
trained ones: only the trained ones of a block must have the same. Everything else of a model, buffers too, is
replicated, as under "ddp".

Gathering is a collective, so in training all ranks run the model equally often (see BatchPlan.even), and in an
evaluation one that is done first gathers along with the others (`uneven_passes`).

Tested with processes on a CPU. Not run on GPUs yet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from training.engine.process.heartbeat import beat
from training.errors import TrainingError, UsageError

if TYPE_CHECKING:
    from training.engine.process.distributed import Ranks
    from training.recipe import Stepped


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether `tensor` is torch's DTensor, whose module is imported only where it is needed: that takes seconds."""
    return hasattr(tensor, "full_tensor")


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The rows of `tensor` that this rank holds; all of them if it is not sharded. The memory is that of `tensor`."""
    return tensor.detach().to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def complete(tensor: torch.Tensor) -> torch.Tensor:
    """All rows of `tensor`, gathered if it is sharded: then every rank must call this."""
    return tensor.detach().full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def require_shardable(recipe: Stepped) -> None:
    """Raise UsageError where the settings or the family require what cannot be had with sharded parameters."""
    training, policy = recipe.settings.training, recipe.dtype_policy
    half = policy == "float16_base" or (policy == "autocast" and training.amp and training.amp_dtype == "float16")
    reasons = {
        "a family with its own step (own_step) cannot be sharded": recipe.own_step is not None,
        "training.compile must be false": training.compile,
        # A rank's gradient scaler would see the gradients of that rank's rows alone.
        "it cannot compute in float16, but in bfloat16 or float32": half,
    }
    for reason, applies in reasons.items():
        if applies:
            raise UsageError(f'{recipe.title} is trained with sharded parameters (parallel "fsdp"): {reason}.')


@dataclass(frozen=True)
class Rows:
    """A sharded parameter that is trained, and this rank's rows of it as a plain one, which the optimizer updates: the
    fused optimizers, and lists of sharded and replicated parameters, take plain tensors."""

    parameter: torch.nn.Parameter  # a DTensor
    own: torch.nn.Parameter  # in the memory of `parameter`

    def take_gradient(self) -> torch.Tensor:
        """Give `own` the gradient of its rows, zeros if no batch used the parameter; returns it."""
        gradient = self.parameter.grad
        self.own.grad = torch.zeros_like(self.own) if gradient is None else local(gradient)
        return self.own.grad

    def clear_gradient(self) -> None:
        self.own.grad = self.parameter.grad = None


class Sharding:
    """The sharded parameters of `model`, which is changed in place and moved to the device of `ranks`."""

    def __init__(self, recipe: Stepped, model: torch.nn.Module, ranks: Ranks):
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self.model, self.ranks, self.blocks = model, ranks, list(recipe.blocks(model))
        _require_separate(recipe.title, model, self.blocks)
        self._mesh = init_device_mesh(ranks.device.type, (ranks.world,))
        for block in self.blocks:  # one after the other, so that the device never holds the complete model
            ranks.broadcast(_tensors(block.to(ranks.device)))
            fully_shard(block, mesh=self._mesh, reshard_after_forward=True)
            # The sum over ranks: the loss is divided by the counts of all ranks already.
            block.set_gradient_divide_factor(1.0)
            block.set_force_sum_reduction_for_comms(True)
            block.set_reduce_scatter_unused_params(True)
        replicated = {parameter for parameter in model.parameters() if not is_sharded(parameter)}
        for parameter in replicated:
            parameter.data = parameter.data.to(ranks.device)
        # This shards nothing more, and moves the buffers. The blocks of one root gather ahead of the computation.
        fully_shard(model, mesh=self._mesh, ignored_params=replicated)
        self._fix_order_of_backward()
        ranks.broadcast(_tensors(model))
        trained = [p for p in model.parameters() if is_sharded(p) and p.requires_grad]
        self.rows = [Rows(parameter, torch.nn.Parameter(local(parameter))) for parameter in trained]
        self._of_own = {rows.own: rows.parameter for rows in self.rows}

    def _fix_order_of_backward(self) -> None:
        """A block that is gathered in the backward pass gathers the one before it ahead. By default torch takes what
        was before it in all forward passes since the last backward pass. Those of an evaluation are among them, and
        ranks may have run differently many: one would gather the last block once more, and wait for the others."""
        first = self.blocks[:1]  # gathers itself ahead, which does nothing: for an empty list torch's default holds
        for before, block in zip([*first, *self.blocks[:-1]], self.blocks, strict=True):
            block.set_modules_to_backward_prefetch([before])

    def parameter_groups(self, groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """AdamW groups of the model's parameters, with this rank's rows in place of sharded ones."""
        own = {rows.parameter: rows.own for rows in self.rows}
        return [{**group, "params": [own.get(p, p) for p in group["params"]]} for group in groups]

    # -- checkpoints, which hold complete tensors ------------------------------------------------------------------

    def gathered(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """`tensors` with complete ones, on the CPU, in place of sharded ones. On ranks other than 0, which save
        nothing, they are only this rank's rows. Every rank must call this."""
        return {name: self._gathered(value) if is_sharded(value) else value for name, value in tensors.items()}

    def gathered_optimizer(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The state_dict of `optimizer`; as `gathered`."""
        content = optimizer.state_dict()
        for index, parameter in self._by_index(optimizer).items():
            if index in content["state"]:
                state = content["state"][index]
                content["state"][index] = {
                    key: self._gathered(self._sharded(value, parameter)) if value.ndim else value
                    for key, value in state.items()
                }
        return content

    def scattered(self, checkpoint: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The content of a checkpoint with this rank's rows in place of complete tensors. Tensors that do not fit the
        model stay as they are, for `load_state_dict` to report them."""
        named = {name: value for name, value in self.model.state_dict().items() if is_sharded(value)}
        parts = {
            part: {name: self._scattered(value, named.get(name)) for name, value in checkpoint[part].items()}
            for part in ("model", "ema")
            if checkpoint[part]
        }
        state = dict(checkpoint["optimizer"]["state"])
        for index, parameter in self._by_index(optimizer).items():
            if index in state:  # copied, as rows are views of the complete tensor, which would stay in memory
                state[index] = {k: local(self._scattered(v, parameter)).clone() for k, v in state[index].items()}
        return {**checkpoint, **parts, "optimizer": {**checkpoint["optimizer"], "state": state}}

    def _by_index(self, optimizer: torch.optim.Optimizer) -> dict[int, torch.nn.Parameter]:
        """Place in the optimizer -> the sharded parameter whose rows are there."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        return {index: self._of_own[p] for index, p in enumerate(parameters) if p in self._of_own}

    def _gathered(self, value: torch.Tensor) -> torch.Tensor:
        everything = complete(value)
        return everything.cpu() if self.ranks.is_first else local(value)

    def _sharded(self, own: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        from torch.distributed.tensor import DTensor

        places = like.placements  # type: ignore[attr-defined]
        return DTensor.from_local(own, self._mesh, places, run_check=False, shape=like.shape, stride=like.stride())

    def _scattered(self, value: torch.Tensor, like: torch.Tensor | None) -> torch.Tensor:
        from torch.distributed.tensor import distribute_tensor

        if like is None or value.shape != like.shape:
            return value
        return distribute_tensor(value, self._mesh, like.placements, src_data_rank=None)  # type: ignore[attr-defined]

    # -- evaluations -----------------------------------------------------------------------------------------------

    @contextmanager
    def uneven_passes(self) -> Iterator[None]:
        """Within it the ranks may run the model differently often, without gradients. On leaving it, a rank gathers
        every block for as long as another still runs the model. Raises TrainingError if the blocks are not called in
        their order."""
        due = 0

        def called(place: int) -> None:
            nonlocal due
            if place != due:
                raise TrainingError(
                    f"Block {place} of the model was called, and it was the turn of block {due}: a forward pass must "
                    "call all modules of `blocks` once, in their order."
                )
            if place == 0:
                self.ranks.any(True)  # announces a pass to those that are done
            due = (place + 1) % len(self.blocks)

        handles = [
            block.register_forward_pre_hook(lambda *_, place=place: called(place), prepend=True)
            for place, block in enumerate(self.blocks)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        while self.ranks.any(False):
            for block in self.blocks:
                block.unshard()
                block.reshard()
            beat()


def _tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a state_dict that are not sharded."""
    return {k: v for k, v in module.state_dict().items() if isinstance(v, torch.Tensor) and not is_sharded(v)}


def _require_separate(title: str, model: torch.nn.Module, blocks: Sequence[torch.nn.Module]) -> None:
    """Raise UsageError if there are no blocks, or if a parameter of one is also somewhere else in the model."""
    if not blocks:
        raise UsageError(f'{title} has parallel "fsdp", and names no module to shard: its recipe needs `blocks`.')
    inside = Counter(p for block in blocks for p in block.parameters())
    uses = Counter(p for block in blocks for _, p in block.named_parameters(remove_duplicate=False))
    everywhere = list(model.named_parameters(remove_duplicate=False))
    total = Counter(p for _, p in everywhere)
    for name, parameter in everywhere:
        if inside[parameter] > 1 or (inside[parameter] and uses[parameter] != total[parameter]):
            raise UsageError(
                f"{title}: {name} is in a module of `blocks` and in another part of the model, too. With parallel "
                '"fsdp" a parameter must be in one block or in none.'
            )
