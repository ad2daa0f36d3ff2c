"""Averages over the steps since the last log line, throughput, time left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

from training.engine.step.step_context import StepResult
from training.units import duration


class Meter:
    """Averages over steps since `reset`: each term's total over its count, so that a smaller last batch weighs less."""

    def __init__(self, flops_per_sample: float | None, peak: float | None = None):
        """`flops_per_sample`: of a training step, if known. `peak`: TFLOP/s of all devices together."""
        self.flops_per_sample, self.peak = flops_per_sample, peak
        self.began: tuple[float, int] | None = None  # when the second step of this process began, and its number
        self.reset()

    def reset(self) -> None:
        """Begin the averages of the next log line."""
        self.totals: dict[str, float] = {}
        self.counts: dict[str, float] = {}
        self.objective = self.norm = 0.0
        self.steps = self.samples = 0
        self.waited = self.paused = 0.0
        self.since = time.perf_counter()

    def add(self, result: StepResult, totals: dict[str, float], objective: float, norm: float) -> None:
        """Add one finite step: its totals by term, objective and gradient norm."""
        for name, count in zip(result.names, result.counts, strict=True):
            self.totals[name] = self.totals.get(name, 0.0) + totals[name]
            self.counts[name] = self.counts.get(name, 0.0) + count
        self.objective += objective
        self.norm += norm
        self.steps += 1

    def stepped(self, step: int, samples: Sequence[int], waited: float) -> None:
        """Count one step that was launched; `waited`: seconds for which it waited for its batches."""
        self.samples += len(samples)
        self.waited += waited
        if self.began is None:  # the first step compiles and warms up, and is not measured
            self.began = (time.perf_counter(), step)

    @contextmanager
    def pause(self) -> Any:
        """Exclude an evaluation or a save from the throughput."""
        before = time.perf_counter()
        try:
            yield
        finally:
            self.paused += time.perf_counter() - before

    def values(self, step: int, total: int, rate: float) -> dict[str, float]:
        """The record for metrics.jsonl, without losses if no step was finite. `rate`: the learning rate."""
        seconds = max(1e-9, time.perf_counter() - self.since - self.paused)
        values: dict[str, float] = {}
        if self.steps:
            values["loss"] = self.objective / self.steps
            values |= {name: total_ / self.counts[name] for name, total_ in self.totals.items() if self.counts[name]}
            values["grad_norm"] = self.norm / self.steps
        values |= {"lr": rate, "samples_per_second": self.samples / seconds, "input_wait": self.waited / seconds}
        if self.flops_per_sample:
            values["tflops"] = self.flops_per_sample * self.samples / seconds / 1e12
            if self.peak:
                values["mfu"] = values["tflops"] / self.peak
        if self.began and step > self.began[1]:
            values["seconds_left"] = (total - step) * (time.perf_counter() - self.began[0]) / (step - self.began[1])
        return values


def line(step: int, total: int, epoch: int, epochs: int, values: dict[str, float], names: Sequence[str]) -> str:
    """The log line of a step."""
    terms = [f"{name} {values[name]:.4g}" for name in names if name in values and name != "loss" and len(names) > 1]
    parts = [f"step {step}/{total}", f"epoch {epoch}/{epochs}"]
    if "loss" in values:
        parts.append(f"loss {values['loss']:.4f}" + (f" ({', '.join(terms)})" if terms else ""))
        parts.append(f"grad {values['grad_norm']:.3g}")
    parts += [f"lr {values['lr']:.2e}", f"{values['samples_per_second']:,.1f} samples/s"]
    if "tflops" in values:
        share = f" ({values['mfu']:.1%} of peak)" if "mfu" in values else ""
        parts.append(f"{values['tflops']:.2f} TFLOP/s{share}")
    if "seconds_left" in values:
        parts.append(f"{duration(values['seconds_left'])} left")
    return "  ".join(parts)
