"""Generation: samples music token by token, from the model or an exported file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from training.domains.music.midi import tokens
from training.domains.music.midi.grammar import Grammar

if TYPE_CHECKING:
    from training.domains.music.midi_generator.config import Generation
    from training.domains.music.midi_generator.model import MidiGenerator

#: (input_ids i64 [N, T], emotion f32 [N, 64], state) -> (logits f32 [N, T, 388], state for the next call). The first
#: call's state is None.
Step = Callable[[np.ndarray, np.ndarray, Any], tuple[np.ndarray, Any]]



class Uniform(Protocol):
    """A source of random numbers."""

    def random(self) -> float:
        """The next number, uniform in [0, 1)."""


#: The most ids that a piece may still need to end: BAR TEMPO TEMPO POSITION INSTRUMENT NOTE VELOCITY DURATION EOS.
CLOSING = 9
#: Ranges of ids that lead to the end, the most direct first.
DIRECT = ((tokens.EOS, tokens.BAR), (tokens.POSITION, tokens.DURATION), (tokens.NOTE, tokens.VELOCITY))


def torch_step(model: MidiGenerator) -> Step:
    """The model with a key-value cache, on its device."""
    model = model.folded()  # once, instead of for every token
    device = model.cos.device

    @torch.inference_mode()
    def step(input_ids: np.ndarray, emotion: np.ndarray, past: Any) -> tuple[np.ndarray, Any]:
        if past is None:
            past = model.empty_past(len(input_ids))
        logits, present = model.step(torch.from_numpy(input_ids).to(device), torch.from_numpy(emotion).to(device), past)
        return logits.float().cpu().numpy(), present

    return step


def generate(
    step: Step,
    emotions: np.ndarray,
    settings: Generation,
    context: int,
    seed: int,
    prompt: np.ndarray | None = None,
    forbidden: list[float] | None = None,
    randoms: Sequence[Uniform] | None = None,
) -> list[np.ndarray]:
    """A piece for each of `emotions` f32 [N, 64]: ids from BOS to EOS, uint16, at most settings.max_tokens long.

    Every piece obeys the vocabulary's grammar; a piece that reaches the limit is ended there. All start with `prompt`
    (ids from BOS on, without EOS). The same seed gives the same pieces, and a piece does not depend on the number of
    pieces in the batch (but for rounding in the model). `context` is the largest number of ids that `step` can cache;
    when it is reached, the cache is built again from the last half.

    `randoms`: one source of uniform numbers for each piece, instead of those that `seed` gives.

    To `forbidden` is appended, for every token of every piece, the probability that the model gave to illegal tokens.
    """
    start = np.array([tokens.BOS] if prompt is None else prompt, np.int64)
    written = np.tile(start, (len(emotions), 1))
    grammar = Grammar(len(emotions), unisons=False, empty_bars=settings.max_empty_bars)
    for column in written.T:
        grammar.advance(column)
    if randoms is None:
        randoms = [np.random.default_rng((seed, index)) for index in range(len(emotions))]
    guided = settings.guidance != 1.0
    # Classifier-free guidance runs every piece twice: with its emotion, and with zeros (no emotion).
    given = np.concatenate((emotions, np.zeros_like(emotions))) if guided else np.asarray(emotions)
    given = np.ascontiguousarray(given, np.float32)
    fresh, state, cached = written[:, -context:], None, 0
    while not grammar.finished.all():
        if cached + fresh.shape[1] > context:
            fresh, state, cached = written[:, -max(1, context // 2) :], None, 0
        logits, state = step(np.concatenate((fresh, fresh)) if guided else fresh, given, state)
        cached += fresh.shape[1]
        logits = logits[:, -1].astype(np.float64)
        if guided:
            conditional, unconditional = np.split(logits, 2)
            logits = unconditional + settings.guidance * (conditional - unconditional)
        allowed = grammar.mask()
        if forbidden is not None:
            running = ~grammar.finished
            probability = np.exp(logits[running] - logits[running].max(axis=1, keepdims=True))
            forbidden += ((probability * ~allowed[running]).sum(axis=1) / probability.sum(axis=1)).tolist()
        if written.shape[1] >= settings.max_tokens - CLOSING:
            allowed = _towards_the_end(allowed)
        else:
            allowed[(written == tokens.BAR).sum(axis=1) < settings.min_bars, tokens.EOS] = False
        logits = np.where(allowed, logits, -np.inf)
        fresh = np.array([[draw(*row, settings)] for row in zip(logits, randoms, strict=True)], np.int64)
        grammar.advance(fresh[:, 0])
        written = np.concatenate((written, fresh), axis=1)
    lengths = (written == tokens.EOS).argmax(axis=1) + 1
    return [row[:length].astype(np.uint16) for row, length in zip(written, lengths, strict=True)]


def _towards_the_end(allowed: np.ndarray) -> np.ndarray:
    """Of the allowed ids, bool [N, 388], only those that lead most directly to EOS."""
    out = allowed.copy()
    for row in out:
        for low, high in DIRECT:
            if row[low:high].any():
                row[:low] = row[high:] = False
                break
    return out


def draw(logits: np.ndarray, random: Uniform, settings: Generation) -> int:
    """An id from logits f64 [388] (-inf: forbidden) by temperature, top-k, then top-p (Holtzman et al. 2020)."""
    if settings.temperature == 0:
        return int(logits.argmax())
    order = np.argsort(-logits, kind="stable")
    if settings.top_k:
        order = order[: settings.top_k]
    scaled = (logits[order] - logits[order[0]]) / settings.temperature
    probability = np.exp(scaled)
    probability /= probability.sum()
    # The most probable ids, up to and including the one that reaches p.
    kept = int(np.searchsorted(np.cumsum(probability), settings.top_p)) + 1
    total = np.cumsum(probability[:kept])
    return int(order[min(int(np.searchsorted(total, random.random() * total[-1], side="right")), len(total) - 1)])
