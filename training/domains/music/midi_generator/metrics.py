"""Metrics of next-token prediction: cross-entropy, accuracy and perplexity, over all tokens and for each kind."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.domains.music.midi import tokens
from training.domains.music.midi_generator.data import IGNORED

#: The kinds that a model has to predict, in the order of the vocabulary (PAD and BOS are never targets).
KINDS = ("note", "velocity", "position", "duration", "instrument", "tempo", "eos", "bar")
#: id -> index in KINDS; -1 for PAD and BOS
KIND_OF = np.array([KINDS.index(kind) if kind in KINDS else -1 for kind in map(str.lower, tokens.kinds())])
LARGEST = 700.0  # e^709 is the largest that a double can represent


def training_loss(logits: Tensor, targets: Tensor, smoothing: float, tempo: float = 1.0) -> tuple[Tensor, Tensor]:
    """logits [B, S, 388], targets i64 [B, S] -> (smoothed cross-entropy in nats, correct predictions), summed.

    The cross-entropy of TEMPO tokens has the weight `tempo`.
    """
    flat, targets = logits.float().flatten(0, 1), targets.flatten()
    how = "sum" if tempo == 1 else "none"  # without weights, no loss per token is stored
    loss = F.cross_entropy(flat, targets, ignore_index=IGNORED, reduction=how, label_smoothing=smoothing)
    if tempo != 1:
        weighted = (targets >= tokens.TEMPO) & (targets < tokens.PAD)
        loss = torch.where(weighted, tempo * loss, loss).sum()
    return loss, (flat.detach().argmax(-1) == targets).sum()


def token_sums(logits: Tensor, targets: Tensor) -> dict[str, tuple[Tensor, float]]:
    """Metric -> (sum, number of tokens): val_loss in nats, accuracy, both also as <kind>_loss and <kind>_accuracy, and
    bits_per_note: the bits needed to encode all tokens, over the number of notes."""
    targets = targets.flatten()
    rows = logits.float().flatten(0, 1)
    losses = F.cross_entropy(rows, targets, ignore_index=IGNORED, reduction="none").double()  # 0 where ignored
    right = (rows.argmax(-1) == targets).double()
    real = targets != IGNORED
    kind = torch.from_numpy(KIND_OF).to(targets.device)[targets * real]
    of_kind = (kind == torch.arange(len(KINDS), device=kind.device)[:, None]) & real  # [kinds, tokens]
    # One copy to the host for all counts, so that a GPU is synchronised once.
    every, *numbers = map(float, torch.cat([real.sum()[None], of_kind.sum(1)]).tolist())
    out = {"val_loss": (losses.sum(), every), "accuracy": (right.sum(), every)}
    for name, own, number in zip(KINDS, of_kind, numbers, strict=True):
        out[f"{name}_loss"] = (torch.where(own, losses, 0.0).sum(), number)
        out[f"{name}_accuracy"] = (torch.where(own, right, 0.0).sum(), number)
    out["bits_per_note"] = (losses.sum() / math.log(2), out["note_loss"][1])
    return out


def song_sums(losses: np.ndarray, targets: np.ndarray, songs: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Nats of each token, the tokens, and the song of each, all [n] -> the sums of `token_sums` other than accuracy, by
    song: metric -> f64 [count, 2]."""
    kind = KIND_OF[targets]

    def total(chosen: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(songs[chosen], None if values is None else values[chosen], count).astype(np.float64)

    every = np.ones(len(songs), bool)
    out = {"val_loss": np.stack([total(every, losses), total(every)], 1)}
    for k, name in enumerate(KINDS):
        out[f"{name}_loss"] = np.stack([total(kind == k, losses), total(kind == k)], 1)
    out["bits_per_note"] = np.stack([out["val_loss"][:, 0] / math.log(2), out["note_loss"][:, 1]], 1)
    return out


def with_perplexities(means: Mapping[str, float]) -> dict[str, float]:
    """Adds perplexity and <kind>_perplexity = e^loss; a kind that the held-out songs never use is left out. Metrics
    over all tokens come first."""
    out = {name: float(value) for name, value in means.items() if math.isfinite(value)}
    for name in list(out):
        if name.endswith("_loss"):
            kind = name.removesuffix("loss").removeprefix("val_")
            out[f"{kind}perplexity"] = math.exp(min(out[name], LARGEST))
    first = [name for name in ("val_loss", "perplexity", "accuracy", "bits_per_note") if name in out]
    return {name: out[name] for name in (*first, *(rest for rest in out if rest not in first))}


def grade(logits: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """logits f32 [B, S, 388], targets i64 [B, S] -> loss and perplexity; in numpy, to grade files without torch."""
    real = targets != IGNORED
    rows, wanted = logits[real].astype(np.float64), targets[real]
    rows -= rows.max(axis=-1, keepdims=True)
    loss = float((np.log(np.exp(rows).sum(-1)) - rows[np.arange(len(wanted)), wanted]).mean())
    return {"loss": loss, "perplexity": math.exp(min(loss, LARGEST))}
