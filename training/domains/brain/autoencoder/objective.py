"""The terms of the autoencoder's loss. Each is 1 for predicting the training mean (mae: 0.8)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch

from training.domains.brain.autoencoder.settings import LEAST_VOLUMES, Objective
from training.domains.brain.moments import squared_errors

_EPS = 1e-6


def coefficients(settings: Objective, modalities: Collection[str]) -> dict[str, float]:
    """Term -> its coefficient: fmri_weight, and reconstruction_weight times the weights of the modalities that there
    are, divided by their number."""
    out = {"fmri": settings.fmri_weight}
    for modality in modalities:
        share = settings.reconstruction_weight / len(modalities)
        out[modality] = share * getattr(settings, f"{modality}_weight")
    return out


def fmri_count(kind: str, present: torch.Tensor, voxels: int) -> float:
    """The elements of the BOLD term: voxels and volumes, or voxels and windows of a subject for the correlation."""
    if kind == "correlation":
        return float((present.sum(-1) >= LEAST_VOLUMES).sum()) * voxels
    return float(present.sum()) * voxels


def fmri_total(kind: str, predicted: torch.Tensor, measured: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """The sum of the BOLD term over its elements. `predicted`, `measured`: [B, S, T, V]; `present`: [B, S, T]."""
    predicted, measured, weight = predicted.float(), measured.float(), present[..., None]
    if kind == "mse":
        return squared_errors(predicted, measured, present).sum()
    if kind == "mae":
        return ((predicted - measured).abs() * weight).sum()
    return ((1 - correlation(predicted, measured, weight)) * _long(present)[..., None]).sum()


def correlation(predicted: torch.Tensor, measured: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Pearson correlation of each voxel over the time of a window: [B, S, V]; 0 for a constant. `weight`: [B, S, T,
    1]."""
    count = weight.sum(2, keepdim=True).clamp(min=1)
    p = (predicted - (predicted * weight).sum(2, keepdim=True) / count) * weight
    y = (measured - (measured * weight).sum(2, keepdim=True) / count) * weight
    size = torch.sqrt((p * p).sum(2) * (y * y).sum(2) + _EPS**2)
    return (p * y).sum(2) / size


def _long(present: torch.Tensor) -> torch.Tensor:
    return (present.sum(-1) >= LEAST_VOLUMES).float()


def shares(terms: Mapping[str, torch.Tensor], bottleneck: torch.Tensor) -> dict[str, float]:
    """Term -> its share of the gradient at the bottleneck, by Euclidean norm. `terms`: scalars that depend on it, with
    their coefficients and counts."""
    norms = {}
    for name, term in terms.items():
        gradient = None
        if term.requires_grad:
            (gradient,) = torch.autograd.grad(term, bottleneck, retain_graph=True, allow_unused=True)
        norms[name] = 0.0 if gradient is None else float(gradient.norm())
    total = sum(norms.values()) or 1.0
    return {name: norm / total for name, norm in norms.items()}
