"""Toys with sharded parameters, to be run by toy_ranks.py, and what each rank holds of them."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import torch

from tests.engine import toy
from training.engine.checkpoints import partial
from training.engine.loop.run import Run
from training.engine.process.sharding import is_sharded, local
from training.recipe import Loss


class OnRanks(toy.ToyRecipe):
    """Sharded; rank 1 builds other weights than rank 0, whose weights count."""

    parallel = "fsdp"
    freed: ClassVar[list[bool]] = []  # whether the first block was freed after its forward pass

    def build(self, constants: dict[str, Any]) -> toy.ToyModel:
        model = super().build(constants)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += int(os.environ.get("RANK", 0))
        return model

    def losses(self, model: torch.nn.Module, batch: Any, progress: Any) -> dict[str, Loss]:
        losses = super().losses(model, batch, progress)
        self.freed.append(is_sharded(model.layers[0].weight))
        return losses


class Sharded(OnRanks):
    """All of it is trained, and in one of the blocks."""

    def blocks(self, model: toy.ToyModel) -> list[torch.nn.Module]:
        return [model.layers[0], model.layers[3]]


class Adapted(toy.ToyRecipe):
    """A frozen bfloat16 weight with a trained float32 bias in one module, and a second module that is trained. Rows are
    appraised by as many passes as their number says, at times none."""

    dtype_policy = "bfloat16_base"

    def build(self, constants: dict[str, Any]) -> toy.ToyModel:
        model = super().build(constants)
        model.layers[0].weight.requires_grad_(False)
        return model

    def saved(self, model: torch.nn.Module) -> list[str]:
        return [name for name in model.state_dict() if name not in ("layers.0.weight", "scale")]

    @torch.inference_mode()
    def appraise(self, model: torch.nn.Module, rows: Any, seconds: float) -> dict[str, tuple[torch.Tensor, float]]:
        total, passes = torch.zeros(()), 0
        for row in rows:
            for number in range(row.values["number"] % 4):
                total += model(torch.full((1, 8), float(number))).float().sum()
                passes += 1
        return {"level": (total, float(passes))}


class ShardedAdapted(OnRanks, Adapted):
    """The first module is a block; the second is in none, so it is replicated."""

    def blocks(self, model: toy.ToyModel) -> list[torch.nn.Module]:
        return [model.layers[0]]


class Misordered(ShardedAdapted):
    """All ranks run it once in `appraise`, so that all of them notice."""

    def appraise(self, model, rows, seconds):
        return {"level": (model(torch.ones(1, 8)).sum(), 1.0)}

    def blocks(self, model: toy.ToyModel) -> list[torch.nn.Module]:
        return [model.layers[3], model.layers[0]]


HUNGRY = toy.hungry(2, 1, Sharded)


class Held:
    """What this process holds of the newest run: elements of each parameter and of its optimizer state, values, and how
    often the frozen tensors were hashed. `on_device`: steps are decided on the device, as on a GPU."""

    on_device = False

    def __init__(self) -> None:
        prepare, digest = Run.prepare, partial.frozen_digest
        self.digests = 0

        def watched(run: Run) -> None:
            prepare(run)
            run.step_context.decides_on_host = not self.on_device
            self.state = run.state

        def counted(*arguments: Any) -> str:
            self.digests += 1
            return digest(*arguments)

        Run.prepare, partial.frozen_digest = watched, counted  # type: ignore[method-assign]

    def clear(self, on_device: bool) -> None:
        """Before a run."""
        self.on_device, self.digests = on_device, 0
        OnRanks.freed.clear()

    def plain(self) -> dict[str, Any]:
        state = self.state
        parameters = dict(state.model.named_parameters())
        moments = [value for one in state.optimizer.state.values() for value in one.values() if value.ndim]
        return {
            "own": {name: local(p).numel() for name, p in parameters.items()},
            "all": {name: p.numel() for name, p in parameters.items()},
            "moments": sum(moment.numel() for moment in moments),
            "replicated": {name: p.tolist() for name, p in parameters.items() if not is_sharded(p)},
            "dtypes": {name: str(p.dtype) for name, p in parameters.items()},
            "freed": OnRanks.freed,
            "digests": self.digests,
        }
