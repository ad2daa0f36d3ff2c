"""Generated pieces obey the grammar, end, are the same for the same seed, and are generated in batches."""

from __future__ import annotations

import numpy as np
import pytest

from training.domains.music.midi import tokens
from training.domains.music.midi.grammar import legal
from training.domains.music.midi_generator.config import Generation, Model
from training.domains.music.midi_generator.generate import draw, generate, torch_step
from training.domains.music.midi_generator.model import MidiGenerator

FREE = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "guidance": 1.0, "max_tokens": 120, "min_bars": 0}


@pytest.fixture
def model() -> MidiGenerator:
    return MidiGenerator(Model(context=32, width=32, layers=2, heads=2, emotion_width=16)).eval()


def emotions(count: int) -> np.ndarray:
    out = np.zeros((count, 64), np.float32)
    out[:, :3] = np.random.default_rng(0).uniform(0.1, 1, (count, 3))
    return out


def write(model, count: int = 3, seed: int = 7, **changes) -> list[np.ndarray]:
    return generate(torch_step(model), emotions(count), Generation(**{**FREE, **changes}), 32, seed)


@pytest.mark.parametrize("guidance", [1.0, 1.3])
@pytest.mark.parametrize("limit", [16, 17, 18, 19, 20, 21, 22, 23, 24, 120])
def test_every_piece_is_legal_and_ends_within_its_limit(model, guidance, limit):
    """In a batch, and for any logits: a piece never ends within a note."""
    for seed in range(3):
        pieces = write(model, 4, seed, guidance=guidance, max_tokens=limit)
        assert len(pieces) == 4
        for ids in pieces:
            assert ids.dtype == np.uint16 and len(ids) <= limit
            assert legal(ids)
            assert np.array_equal(tokens.encode(tokens.decode(ids)), ids)


def test_no_more_empty_bars_than_allowed(model):
    for most in (0, 2):
        for ids in write(model, 8, max_empty_bars=most, max_tokens=200):
            empty = 0
            for token in ids:
                empty = empty + 1 if token == tokens.BAR else 0 if token < tokens.VELOCITY else empty
                assert empty <= most + 1


def test_no_piece_ends_before_min_bars(model):
    def hasty(ids, emotion, state):
        logits, state = torch_step(model)(ids, emotion, state)
        logits[..., tokens.EOS] = 50
        return logits, state

    for bars in (1, 5):
        settings = Generation(**{**FREE, "min_bars": bars, "max_tokens": 5000})
        for ids in generate(hasty, emotions(4), settings, 32, 2):
            assert (ids == tokens.BAR).sum() >= bars and legal(ids)
    short = Generation(**{**FREE, "min_bars": 1000, "max_tokens": 40})
    assert all(len(ids) <= 40 and legal(ids) for ids in generate(hasty, emotions(4), short, 32, 2))


def test_a_piece_ends_even_if_the_model_predicts_only_bars():
    def only_bars(ids, emotion, state):
        logits = np.full((*ids.shape, 388), -50.0, np.float32)
        logits[..., tokens.BAR] = 50
        logits[..., tokens.EOS] = -5000
        return logits, None

    (ids,) = generate(only_bars, emotions(1), Generation(**FREE), 1000, 0)
    assert ids[-1] == tokens.EOS and len(ids) <= 120 and legal(ids)


def test_pieces_depend_on_the_seed_alone(model):
    first, again, other = write(model), write(model), write(model, seed=8)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_piece_does_not_depend_on_its_neighbours(model):
    """It is the same in a batch as alone, also after other pieces of the batch have ended."""
    together, alone = write(model, 4), write(model, 1)
    assert len({len(ids) for ids in together}) > 1
    assert np.array_equal(together[0], alone[0])


def test_the_key_value_cache_gives_the_same_pieces_as_recomputation(model):
    def uncached(ids, emotion, before):
        everything = ids if before is None else np.concatenate((before, ids), axis=1)
        logits, _ = torch_step(model)(everything, emotion, None)
        return logits[:, -ids.shape[1] :], everything

    settings = Generation(**{**FREE, "max_tokens": 30})
    cached = generate(torch_step(model), emotions(2), settings, 32, 3)
    plain = generate(uncached, emotions(2), settings, 32, 3)
    assert all(np.array_equal(a, b) for a, b in zip(cached, plain, strict=True))


def test_a_piece_may_be_longer_than_the_context(model):
    """The cache never exceeds the context: when it is full, it is built again from the last half."""
    longest = 0

    def watched(ids, emotion, state):
        nonlocal longest
        logits, state = torch_step(model)(ids, emotion, state)
        longest = max(longest, state[0].shape[2])
        logits[..., tokens.EOS] = -20
        return logits, state

    settings = Generation(**{**FREE, "max_tokens": 200})
    pieces = generate(watched, emotions(6), settings, 32, 1)
    assert min(map(len, pieces)) > 150
    assert longest == 32
    assert all(map(legal, pieces))


def test_guidance_strengthens_the_effect_of_the_emotion():
    """logits = unconditional + g (conditional - unconditional): the emotion raises the logit of velocity 10 by 4, times
    the guidance."""
    seen = []

    def step(ids, emotion, state):
        logits = np.zeros((*ids.shape, 388), np.float32)
        logits[..., tokens.VELOCITY + 10] = 4.0 * (emotion[:, :1] > 0)
        seen.append(emotion)
        return logits, None

    def share(guidance: float) -> float:
        settings = Generation(**{**FREE, "guidance": guidance, "max_tokens": 400})
        ids = np.concatenate(generate(step, emotions(4), settings, 1000, 0))
        velocity = ids[(ids >= tokens.VELOCITY) & (ids < tokens.POSITION)]
        return float((velocity == tokens.VELOCITY + 10).mean())

    plain, guided, without = share(1.0), share(2.0), share(0.0)
    assert without < 0.15 < plain < 0.85 < guided
    assert {len(emotion) for emotion in seen} == {4, 8}


def test_a_prompt_is_continued(model):
    prompt = write(model, 1, max_tokens=40)[0][:-1]
    pieces = generate(torch_step(model), emotions(2), Generation(**FREE), 32, 5, prompt)
    assert all(np.array_equal(ids[: len(prompt)], prompt) and legal(ids) for ids in pieces)


def drawn(logits: np.ndarray, **changes) -> np.ndarray:
    random = np.random.default_rng(0)
    settings = Generation(**{**FREE, **changes})
    return np.array([draw(logits, random, settings) for _ in range(4000)])


def test_temperature_top_k_and_top_p():
    logits = np.full(388, -np.inf)
    logits[10:14] = np.log([0.5, 0.3, 0.15, 0.05])
    shares = np.bincount(drawn(logits), minlength=388)[10:14] / 4000
    assert np.allclose(shares, [0.5, 0.3, 0.15, 0.05], atol=0.03)
    assert set(drawn(logits, temperature=0.0)) == {10}
    assert set(drawn(logits, top_k=2)) == {10, 11}
    assert set(drawn(logits, top_p=0.79)) == {10, 11}
    assert set(drawn(logits, top_p=0.81)) == {10, 11, 12}
    cold = np.bincount(drawn(logits, temperature=0.5), minlength=388)[10] / 4000
    assert abs(cold - 0.25 / (0.25 + 0.09 + 0.0225 + 0.0025)) < 0.03
