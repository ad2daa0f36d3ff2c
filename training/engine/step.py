"""One optimizer step over one global batch: counts of all ranks, micro-batches, gradients of all ranks, clip, step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from training.engine.batches import Chunk, mixed
from training.engine.distributed import Ranks
from training.engine.precision import Precision
from training.errors import TrainingError
from training.recipe import Batch, Loss, Moment, Recipe

_ALIGN = 16  # elements: every gradient starts where vector instructions like it


def seed_torch(device: torch.device, *numbers: int) -> None:
    """Make what torch draws next a function of `numbers` alone. (torch.manual_seed takes 0.1 ms; this takes 2 us.)"""
    seed = mixed(*numbers)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


class Gradients:
    """All gradients, as views into one flat tensor a dtype: zeroed, summed over ranks, measured and scaled at once.

    A parameter that a batch does not reach has a gradient of zero (so that all ranks agree on it).
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter]):
        by_dtype: dict[torch.dtype, list[torch.nn.Parameter]] = {}
        for parameter in parameters:
            by_dtype.setdefault(parameter.dtype, []).append(parameter)
        self.flats: list[torch.Tensor] = []
        self.views: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
        for dtype, group in by_dtype.items():
            sizes = [-(-parameter.numel() // _ALIGN) * _ALIGN for parameter in group]
            flat = torch.zeros(sum(sizes), dtype=dtype, device=group[0].device)
            for parameter, piece in zip(group, flat.split(sizes), strict=True):
                self.views.append((parameter, piece[: parameter.numel()].view_as(parameter)))
            self.flats.append(flat)
        self.clear()

    def clear(self) -> None:
        """All zero, and attached to their parameters."""
        for flat in self.flats:
            flat.zero_()
        for parameter, view in self.views:
            if parameter.grad is not view:
                parameter.grad = view

    def norm(self) -> torch.Tensor:
        """Euclidean norm over all of them, fp32 or better."""
        norms = [
            torch.linalg.vector_norm(flat, dtype=torch.promote_types(flat.dtype, torch.float32)) for flat in self.flats
        ]
        return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack([n.double() for n in norms]))

    def clip(self, norm: torch.Tensor, largest: float) -> None:
        """Scale down to `largest` where `norm` exceeds it. A non-finite norm leaves NaN everywhere: the step is skipped."""
        scale = (largest / (norm + 1e-6)).clamp(max=1.0)
        for flat in self.flats:
            flat.mul_(scale.to(flat.dtype))


@dataclass
class Outcome:
    """What a step gave, still on the device: reading it waits for the GPU."""

    step: int
    names: Sequence[str]  # loss terms
    counts: Sequence[float]  # of the global batch, per term
    values: torch.Tensor  # [terms + 2] totals of the global batch; the objective; the gradient norm before clipping
    samples: Sequence[int]  # ids of the global batch
    rescaled: bool = False  # float16: not finite, and the scaler has lowered its factor; expected now and then

    def read(self) -> tuple[dict[str, float], float, float]:
        """(totals by name, objective, gradient norm)."""
        *totals, objective, norm = self.values.tolist()
        return dict(zip(self.names, totals, strict=True)), objective, norm


class OwnStep(Protocol):
    """A recipe whose step is its own defines `own_step(self, workshop, batches, counts, moment)`.

    It may update several times (`workshop.backward`, then `workshop.update()`: the same number of times on every rank,
    whatever the number of `batches`, which may be 0). `counts` are those of the global batch, all ranks together. It returns
    its terms, under the names of `counts`: name -> (sum over elements of this rank, count over all ranks).
    """

    def __call__(
        self, workshop: Workshop, batches: Sequence[Batch], counts: Mapping[str, float], moment: Moment
    ) -> Mapping[str, tuple[torch.Tensor, float]]: ...


class Workshop:
    """The tools of a step: what the engine's own uses, and an OwnStep is given."""

    def __init__(
        self,
        recipe: Recipe,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        ranks: Ranks,
        names: Sequence[str],
    ):
        self.recipe, self.model, self.optimizer = recipe, model, optimizer
        self.precision, self.ranks, self.names = precision, ranks, tuple(names)
        self.gradients = Gradients(p for group in optimizer.param_groups for p in group["params"])
        self.clip = recipe.settings.optim.grad_clip
        self.device = ranks.device
        self.fused = bool(getattr(optimizer, "_step_supports_amp_scaling", False))
        self._norm = torch.zeros((), device=self.device)
        self._rescaled = False

    def agree(self, counts: Mapping[str, float], flags: Sequence[bool]) -> tuple[dict[str, float], list[bool]]:
        """Counts summed over ranks, and each flag, if any rank raised it: the one collective in which ranks agree."""
        summed = self.ranks.total([*(counts[name] for name in self.names), *map(float, flags)])
        known = len(self.names)
        return dict(zip(self.names, summed[:known], strict=True)), [flag > 0 for flag in summed[known:]]

    def local_counts(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Recipe.counts summed over this rank's micro-batches."""
        summed = dict.fromkeys(self.names, 0.0)
        for batch in batches:
            counts = self.recipe.counts(batch)
            self._check_names("counts", counts)
            for name, count in counts.items():
                summed[name] += count
        return summed

    def objective(self, losses: Mapping[str, Loss], counts: Mapping[str, float]) -> torch.Tensor | None:
        """sum of coefficient * total / global count; None where nothing in it is learnt from."""
        self._check_names("losses", losses)
        terms = [
            loss.total * (loss.coefficient / counts[name])
            for name, loss in losses.items()
            if loss.coefficient and counts[name]
        ]
        return sum(terms[1:], terms[0]) if terms else None

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of `loss`. Divide it by counts over all ranks first: ranks are summed, never averaged."""
        if loss.requires_grad:
            self.precision.backward(loss)

    def update(self, report: torch.Tensor | None = None) -> torch.Tensor:
        """Sum gradients (and `report`, in place) over ranks, clip, step, clear. Returns the gradient norm before clipping.

        Where the norm (or `report`) is not finite, neither weights nor optimizer state change.
        """
        self.ranks.sum_([*self.gradients.flats, *([report] if report is not None else [])])
        scaler = self.precision.scaler
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        norm = self.gradients.norm()
        finite = torch.isfinite(norm)
        if report is not None:
            finite &= torch.isfinite(report).all()
        if self.clip:
            self.gradients.clip(norm, self.clip)
        self._rescaled = False
        if scaler is not None:
            if finite.item():
                scaler.step(self.optimizer)
            before = scaler.get_scale()
            scaler.update()
            self._rescaled = 1 <= scaler.get_scale() < before  # below 1 it is no matter of range any more
        elif self.fused:  # decided on the device: a GPU is not waited for
            self.optimizer.grad_scale, self.optimizer.found_inf = None, (~finite).float()  # type: ignore[attr-defined]
            self.optimizer.step()
        elif finite.item():
            self.optimizer.step()
        self.gradients.clear()
        self._norm = norm
        return norm

    def step(
        self, step: int, seed: int, chunks: Sequence[Chunk], batches: Sequence[Batch], counts: Mapping[str, float],
        moment: Moment, samples: Sequence[int],
    ) -> Outcome:  # fmt: skip
        """One step of the run on this rank's micro-batches; `counts` are the global batch's."""
        own = self.recipe.own_step
        report = torch.zeros(len(self.names) + 1, dtype=torch.float64, device=self.device)  # totals, objective
        if own is not None:
            seed_torch(self.device, seed, step, self.ranks.rank)
            terms = own(self, batches, counts, moment)
            self._check_names("own_step", terms)
            report[:-1] = torch.stack([terms[name][0].detach().double().to(self.device) for name in self.names])
            counts = {name: float(terms[name][1]) for name in self.names}
            self.ranks.sum_([report])
            report[-1] = sum(report[i] / counts[name] for i, name in enumerate(self.names) if counts[name])
        else:
            for chunk, batch in zip(chunks, batches, strict=True):
                seed_torch(self.device, seed, step, chunk.number)
                with self.precision.autocast():
                    losses = self.recipe.losses(self.model, batch, moment)
                objective = self.objective(losses, counts)
                if objective is not None:
                    self.backward(objective)
                totals = [losses[name].total.detach() for name in self.names]
                totals.append(objective.detach() if objective is not None else torch.zeros_like(totals[0]))
                report += torch.stack(totals)
            self.update(report)
        values = torch.cat([report, self._norm.detach().double().reshape(1)])
        return Outcome(step, self.names, [counts[n] for n in self.names], values, samples, self._rescaled)

    def _check_names(self, where: str, named: Mapping[str, object]) -> None:
        if named.keys() != set(self.names):
            raise TrainingError(
                f"{type(self.recipe).__name__}.{where} gave the terms {sorted(named)}, and counts gave {sorted(self.names)}: "
                "every batch must give the same terms."
            )
