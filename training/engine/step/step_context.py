"""One optimizer step over one global batch: sum counts over ranks, accumulate gradients, sum them, clip, update."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from training.engine.loading.batches import MicroBatch, mixed
from training.engine.loading.transfer import PendingValues, on_host
from training.engine.process.distributed import Ranks
from training.engine.process.sharding import Sharding
from training.engine.step.precision import Precision
from training.errors import TrainingError
from training.recipe import Batch, Loss, Recipe, TrainingProgress

_ALIGN = 16  # elements: each gradient starts at an aligned address, for vector instructions


def seed_torch(device: torch.device, *numbers: int) -> None:
    """Seed torch on the CPU and on `device` from `numbers`. (torch.manual_seed takes 0.1 ms; this takes 2 us.)"""
    seed = mixed(*numbers)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


class Gradients:
    """The gradients of all parameters, to be cleared, summed over ranks, measured and scaled together.

    With one rank they are the tensors that autograd allocates. With several (`flat`) they are views of one flat tensor
    for each dtype, so that one collective sums them. A parameter that no batch uses has a gradient of zeros, so that it
    is the same on all ranks. Gradients of sharded parameters are those of this rank's rows; they are summed already.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], flat: bool, sharding: Sharding | None = None):
        every = dict.fromkeys(parameters)
        self.sharding = sharding
        self.rows = [rows for rows in sharding.rows if rows.own in every] if sharding else []
        own = {rows.own for rows in self.rows}
        self.parameters = [parameter for parameter in every if parameter not in own]  # replicated ones
        self.flats: list[torch.Tensor] = []
        self.views: list[torch.Tensor] = []
        if flat:
            self._lay_flat()
        self.clear()

    def _lay_flat(self) -> None:
        sizes = [-(-parameter.numel() // _ALIGN) * _ALIGN for parameter in self.parameters]
        lengths: dict[torch.dtype, int] = {}
        for parameter, size in zip(self.parameters, sizes, strict=True):
            lengths[parameter.dtype] = lengths.get(parameter.dtype, 0) + size
        flats = {
            dtype: torch.zeros(length, dtype=dtype, device=self.parameters[0].device)
            for dtype, length in lengths.items()
        }
        used = dict.fromkeys(flats, 0)
        for parameter, size in zip(self.parameters, sizes, strict=True):
            at = used[parameter.dtype]
            self.views.append(flats[parameter.dtype][at : at + parameter.numel()].view_as(parameter))
            used[parameter.dtype] += size
        self.flats = list(flats.values())

    def clear(self) -> None:
        """Set all gradients to None, or to zero where they are views of flat tensors."""
        for flat in self.flats:
            flat.zero_()
        for parameter, view in zip(self.parameters, self.views or [None] * len(self.parameters), strict=True):
            parameter.grad = view
        for rows in self.rows:
            rows.clear_gradient()

    def replicated(self) -> list[torch.Tensor]:
        """The gradients of replicated parameters in as few tensors as there are: the flat ones, or one for each
        parameter."""
        if self.flats:
            return self.flats
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in self.parameters]  # type: ignore[misc]

    def norm(self) -> torch.Tensor:
        """Euclidean norm over all gradients, []. Where parameters are sharded, every rank must call this."""
        norms = _norms(self.replicated())
        if self.sharding:
            norms.append(self._norm_of_rows(self.sharding.ranks))
        if len(norms) == 1:
            return norms[0]
        if len({norm.dtype for norm in norms}) > 1:
            norms = [norm.double() for norm in norms]
        return torch.linalg.vector_norm(torch.stack(norms))

    def _norm_of_rows(self, ranks: Ranks) -> torch.Tensor:
        """The norm over the gradients of sharded parameters, all ranks together."""
        square = torch.zeros((), dtype=torch.float64, device=ranks.device)
        for norm in _norms([rows.take_gradient() for rows in self.rows]):
            square += norm.double() ** 2
        ranks.all_reduce([square])
        return square.sqrt().float()

    def scale(self, factor: float | torch.Tensor) -> None:
        """Multiply all gradients by `factor`, in place."""
        torch._foreach_mul_([*self.replicated(), *(rows.own.grad for rows in self.rows)], factor)


def _norms(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    return list(torch._foreach_norm(tensors)) if tensors else []  # which torch refuses


@dataclass
class StepResult:
    """What a step computed. `read` waits until the GPU has finished this step."""

    step: int
    names: Sequence[str]  # loss terms
    counts: Sequence[float]  # of the global batch, per term
    values: PendingValues  # [terms + 2] totals of the global batch; the objective; the gradient norm before clipping
    samples: Sequence[int]  # ids of the global batch
    rescaled: bool = False  # float16: the gradients overflowed and the loss scale was lowered, which is normal at times

    def read(self) -> tuple[dict[str, float], float, float]:
        """(totals by name, objective, gradient norm)."""
        *totals, objective, norm = self.values.tolist()
        return dict(zip(self.names, totals, strict=True)), objective, norm


class OutOfMemory(Exception):
    """Out of memory on some rank, before any weight changed: the step can be repeated with smaller micro-batches."""

    def __init__(self, step: int, reason: str):
        super().__init__(reason)
        self.step, self.reason = step, reason


def out_of_memory_reason(error: RuntimeError, sharded: bool) -> str:
    """The first line of an error that says that memory ran out: torch has an error class for that of a GPU, and only a
    message for that of the host. Raises other errors again, and TrainingError with sharded parameters: the other ranks
    wait for this one in the middle of the model, so that the step cannot be repeated."""
    if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
        raise error
    reason = str(error).splitlines()[0]
    if sharded:
        raise TrainingError(
            f"Memory ran out ({reason}). With sharded parameters micro-batches are not halved during a run: use a "
            "smaller data.batch_size with as much more training.grad_accum_steps, or more GPUs."
        ) from error
    return reason


class OwnStep(Protocol):
    """A recipe that replaces the engine's step defines `own_step(self, context, batches, counts, progress)`.

    It may update the weights several times (`context.backward`, then `context.update()`), the same number of times on
    every rank, whatever the number of `batches`, which may be 0. `counts` are those of the global batch, over all
    ranks. It returns the loss terms under the names of `counts`: name -> (sum over the elements of this rank, count
    over all ranks).
    """

    def __call__(
        self, context: StepContext, batches: Sequence[Batch], counts: Mapping[str, float], progress: TrainingProgress
    ) -> Mapping[str, tuple[torch.Tensor, float]]: ...


class StepContext:
    """Model, optimizer, precision and ranks of a step, and the operations of which a step consists."""

    def __init__(
        self,
        recipe: Recipe,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        ranks: Ranks,
        names: Sequence[str],
        sharding: Sharding | None = None,
    ):
        self.recipe, self.model, self.optimizer = recipe, model, optimizer
        self.precision, self.ranks, self.names = precision, ranks, tuple(names)
        parameters = (p for group in optimizer.param_groups for p in group["params"])
        self.gradients = Gradients(parameters, ranks.world > 1, sharding)
        self.sharded = sharding is not None
        self.clip = recipe.settings.optim.grad_clip
        self.device = ranks.device
        # Whether the host reads the norm to decide if a step is applied, which is quicker on a CPU. On a GPU it would
        # have to wait for the device; there the fused optimizer itself skips a step that is not finite.
        on_cpu = self.device.type == "cpu"
        self.decides_on_host = on_cpu or precision.scaler is not None or not optimizer.defaults["fused"]
        self._names = frozenset(self.names)
        self._norm = torch.zeros((), device=self.device)
        self._rescaled = False

    def agree(self, counts: Mapping[str, float], extra: Sequence[float]) -> tuple[dict[str, float], list[float]]:
        """Counts and further values summed over ranks, in one collective: all ranks then take the same decisions."""
        summed = self.ranks.total([*(counts[name] for name in self.names), *map(float, extra)])
        known = len(self.names)
        return dict(zip(self.names, summed[:known], strict=True)), summed[known:]

    def local_counts(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Recipe.counts summed over this rank's micro-batches."""
        summed = dict.fromkeys(self.names, 0.0)
        for batch in batches:
            counts = self.recipe.counts(on_host(batch))
            self._check_names("counts", counts)
            for name, count in counts.items():
                summed[name] += count
        return summed

    def objective(self, losses: Mapping[str, Loss], counts: Mapping[str, float]) -> torch.Tensor | None:
        """Sum of coefficient * total / global count over terms, []; None where all coefficients or counts are 0."""
        self._check_names("losses", losses)
        terms = [
            loss.total * (loss.coefficient / counts[name])
            for name, loss in losses.items()
            if loss.coefficient and counts[name]
        ]
        return sum(terms[1:], terms[0]) if terms else None

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of `loss`. Divide it by counts over all ranks: ranks are summed, not averaged."""
        if loss.requires_grad:
            self.precision.backward(loss)

    def update(self, report: torch.Tensor | None = None) -> torch.Tensor:
        """Sum gradients (and `report`, in place) over ranks, clip, step, clear. Returns the gradient norm before
        clipping.

        Where the norm, or the objective at `report`'s end, is not finite, neither weights nor optimizer state change.
        """
        self.ranks.all_reduce([*self.gradients.flats, *([report] if report is not None else [])])
        if self.precision.scaler is not None:
            self.precision.scaler.unscale_(self.optimizer)
        self._norm = norm = self.gradients.norm()
        if self.decides_on_host:
            length = norm.item()
            self._step_if(math.isfinite(length if report is None else length + report[-1].item()), length)
        else:
            self._step_on_device(~torch.isfinite(norm if report is None else norm + report[-1]), norm)
        self.gradients.clear()
        return norm

    def _step_if(self, finite: bool, norm: float) -> None:
        if finite and self.clip and norm > self.clip:
            self.gradients.scale(self.clip / norm)
        scaler, self._rescaled = self.precision.scaler, False
        if scaler is None:
            if finite:
                self.optimizer.step()
            return
        if finite:
            scaler.step(self.optimizer)
        before = scaler.get_scale()
        scaler.update()
        self._rescaled = 1 <= scaler.get_scale() < before  # with a scale below 1, float16's range is not the cause

    def _step_on_device(self, bad: torch.Tensor, norm: torch.Tensor) -> None:
        """Step without a wait for the device: where `found_inf` is 1, the fused kernel changes nothing."""
        if self.clip:
            self.gradients.scale((self.clip / norm).clamp(max=1.0))
        self.optimizer.grad_scale, self.optimizer.found_inf = None, bad.float()  # type: ignore[attr-defined]
        self.optimizer.step()

    def step(
        self, step: int, seed: int, micro_batches: Sequence[MicroBatch], batches: Sequence[Batch],
        counts: Mapping[str, float], progress: TrainingProgress, samples: Sequence[int],
    ) -> StepResult:  # fmt: skip
        """One step of the run on this rank's micro-batches; `counts`: of the global batch, over all ranks. Raises
        OutOfMemory, on all ranks if on one."""
        own = self.recipe.own_step
        report = torch.zeros(len(self.names) + 1, dtype=torch.float64, device=self.device)  # totals, then the objective
        if own is not None:
            seed_torch(self.device, seed, step, self.ranks.rank)
            terms = own(self, batches, counts, progress)
            self._check_names("own_step", terms)
            report[:-1] = torch.stack([terms[name][0].detach().double().to(self.device) for name in self.names])
            counts = {name: float(terms[name][1]) for name in self.names}
            self.ranks.all_reduce([report])
            report[-1] = sum(report[i] / counts[name] for i, name in enumerate(self.names) if counts[name])
        else:
            reason = ""
            try:
                for micro_batch, batch in zip(micro_batches, batches, strict=True):
                    seed_torch(self.device, seed, step, micro_batch.number)
                    report += self._accumulate(batch, counts, progress, 0.0 if micro_batch.padding else 1.0)
            except RuntimeError as error:
                reason = out_of_memory_reason(error, self.sharded)
            if self.ranks.any(bool(reason)):
                self.gradients.clear()
                raise OutOfMemory(step, reason or "on another rank")
            self.update(report)
        values = PendingValues(report, self._norm.detach())
        return StepResult(step, self.names, [counts[n] for n in self.names], values, samples, self._rescaled)

    def _accumulate(
        self, batch: Batch, counts: Mapping[str, float], progress: TrainingProgress, weight: float
    ) -> torch.Tensor:
        """Add the gradients of one micro-batch, times `weight`: 1, or 0 for padding. Returns [terms + 1]: its totals,
        then its part of the objective; zeros for padding."""
        with self.precision.autocast():
            losses = self.recipe.losses(self.model, batch, progress)
        objective = self.objective(losses, counts)
        if objective is not None:
            self.backward(objective if weight else objective * weight)
        totals = [losses[name].total.detach() for name in self.names]
        totals.append(objective.detach() if objective is not None else torch.zeros_like(totals[0]))
        return torch.stack(totals) if weight else torch.zeros_like(torch.stack(totals))

    def _check_names(self, where: str, named: Mapping[str, object]) -> None:
        if named.keys() != self._names:
            raise TrainingError(
                f"{type(self.recipe).__name__}.{where} gave the terms {sorted(named)}, and counts gave "
                f"{sorted(self.names)}: both must give the same terms for every batch."
            )
