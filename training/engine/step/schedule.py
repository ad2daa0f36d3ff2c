"""The learning rate as a pure function of the step and of the number of steps of the run."""

from __future__ import annotations

import math

from training.settings import Scheduler


def configured_warmup(total: int, settings: Scheduler) -> int:
    """Warm-up steps as configured: `warmup_ratio` of `total` steps, rounded up as Hugging Face's Trainer does, or else
    `warmup_steps`."""
    return settings.warmup_steps if settings.warmup_ratio is None else math.ceil(total * settings.warmup_ratio)


def warmup(total: int, settings: Scheduler) -> int:
    """Warm-up steps: as configured, but at most half the run, so that a short run reaches its full rate."""
    return min(configured_warmup(total, settings), total // 2)


def factor(step: int, total: int, settings: Scheduler) -> float:
    """The learning rate of step `step` (0 is the first) of `total`, as a factor on `optim.lr`.

    Linear warm-up, then from 1 down to `min_lr_ratio` at the last step: cosine (Loshchilov & Hutter 2017), linear,
    constant (stays at 1), or warmup-stable-decay (Hu et al. 2024: stays at 1, then linearly down in the last
    `decay_fraction`).
    """
    rising = warmup(total, settings)
    if step < rising:
        return (step + 1) / rising
    floor = settings.min_lr_ratio
    progress = min(1.0, (step - rising) / max(1, total - 1 - rising))
    if settings.name == "cosine":
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
    if settings.name == "linear":
        return floor + (1 - floor) * (1 - progress)
    if settings.name == "wsd":
        falling = max(1, min(total - rising, round(total * settings.decay_fraction)))
        return floor + (1 - floor) * min(1.0, (total - 1 - step) / falling)
    return 1.0
