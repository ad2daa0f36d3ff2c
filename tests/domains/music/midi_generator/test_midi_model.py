"""The transformer: positions, emotion, packed songs, and the key-value cache."""

from __future__ import annotations

import pytest
import torch

from training.domains.music.emotion import BASES, vector
from training.domains.music.midi_generator.attention import EMOTION_TOKENS, Masks
from training.domains.music.midi_generator.config import Model
from training.domains.music.midi_generator.graphs import full_graph
from training.domains.music.midi_generator.model import FullGraph, MidiGenerator

SMALL = {"context": 32, "width": 32, "layers": 2, "heads": 2, "emotion_width": 16}


def model(**changes) -> MidiGenerator:
    return MidiGenerator(Model(**{**SMALL, **changes})).eval()


def example(batch: int = 2, length: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    emotion = torch.zeros(batch, 64)
    emotion[:, :3] = torch.rand(batch, 3)
    return torch.randint(0, 388, (batch, length)), emotion


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_the_order_of_earlier_tokens_matters():
    """Without positions one layer of attention sees a bag of tokens, and the last logits would not move."""
    ids, emotion = example(1)
    one_layer = model(layers=1)
    swapped = ids[:, [3, 1, 2, 0, *range(4, 12)]]
    assert not close(one_layer(ids, emotion)[:, -1], one_layer(swapped, emotion)[:, -1])


@torch.no_grad()
def test_positions_are_relative():
    """Only distances between positions matter: shifting all of them changes nothing."""
    x = torch.randn(1, 32, 32)
    net = model(layers=1)
    attention = net.blocks[0].attention
    here = attention(x, net.cos[:32], net.sin[:32], Masks(), None)[0]
    later = MidiGenerator(Model(**{**SMALL, "context": 64}))
    assert close(here, attention(x, later.cos[20:52], later.sin[20:52], Masks(), None)[0])


@torch.no_grad()
def test_a_token_does_not_depend_on_later_ones():
    ids, emotion = example()
    net = model()
    before = net(ids, emotion)
    ids[:, 7] = (ids[:, 7] + 1) % 388
    after = net(ids, emotion)
    assert close(before[:, :7], after[:, :7])
    assert not close(before[:, 7], after[:, 7])


@torch.no_grad()
def test_the_emotion_changes_the_logits():
    ids, emotion = example()
    net = model()
    changed = emotion.clone()
    changed[:, 0] = -changed[:, 0]
    assert (net(ids, emotion) - net(ids, changed)).abs().max() > 0.01


@torch.no_grad()
def test_attention_to_the_emotion_varies():
    """With one emotion token every weight would be 1. Here they differ between the emotion's tokens, and from one music
    token to the next."""
    ids, emotion = example()
    net = model()
    context = net.emotion(emotion)
    assert context.shape[1] == EMOTION_TOKENS == 8
    given = []
    net.blocks[0].cross.register_forward_pre_hook(lambda _, inputs: given.append(inputs[:2]))
    net(ids, emotion)
    weights = net.blocks[0].cross.weights(*given[0])
    assert weights.shape == (2, 2, 12, 8)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 2, 12))
    assert weights.std(-1).min() > 1e-3
    assert weights.std(2).mean() > 1e-3


@torch.no_grad()
def test_an_untrained_model_distinguishes_the_six_emotions():
    """A good part of the variance of the emotion tokens comes from the emotion; near emotions differ, too."""
    torch.manual_seed(0)
    vectors = torch.zeros(6, 64)
    vectors[:, :3] = torch.tensor([vector(name) for name in BASES])
    tokens = model(emotion_width=64).emotion(vectors)
    assert tokens.var(0).mean() / tokens.pow(2).mean() > 0.2
    alike = torch.cosine_similarity(tokens.flatten(1)[:, None], tokens.flatten(1), dim=-1)
    assert alike.fill_diagonal_(0).max() < 0.8


@torch.no_grad()
def test_an_emotion_with_a_little_noise_is_still_nearest_to_itself():
    """Noise as large as that of the augmentation (0.05)."""
    torch.manual_seed(0)
    vectors = torch.zeros(6, 64)
    vectors[:, :3] = torch.tensor([vector(name) for name in BASES])
    noisy = vectors.clone()
    noisy[:, :3] += 0.05 * torch.randn(6, 3)
    net = model(emotion_width=64)
    alike = torch.cosine_similarity(net.emotion(noisy).flatten(1)[:, None], net.emotion(vectors).flatten(1), dim=-1)
    assert alike.argmax(1).tolist() == list(range(6))
    assert alike.diagonal().mean() > 0.8


def test_layers_0_2_4_and_6_attend_to_the_emotion_and_the_full_model_has_15_to_25_million_parameters():
    net = MidiGenerator(Model())
    assert [i for i, block in enumerate(net.blocks) if block.cross is not None] == [0, 2, 4, 6]
    assert 15e6 < sum(p.numel() for p in net.parameters()) < 25e6


@torch.no_grad()
def test_zeros_mean_no_emotion_and_differ_from_a_faint_one():
    ids, _ = example(1)
    net = model()
    without = net(ids, torch.zeros(1, 64))
    faint = torch.zeros(1, 64)
    faint[:, 2] = 1e-4
    assert not close(without, net(ids, faint))
    net.emotion.untold.add_(1.0 * torch.randn_like(net.emotion.untold))
    assert not close(without, net(ids, torch.zeros(1, 64)))


@torch.no_grad()
def test_packed_songs_give_the_logits_of_separate_songs():
    ids, emotion = example(2, 20)
    net = model()
    documents = (torch.arange(20) >= 9).long().expand(2, -1)
    both = torch.stack([emotion, emotion.flip(0) * 0.5], 1)
    packed = net(ids, both, documents)
    assert close(packed[:, :9], net(ids[:, :9], both[:, 0]))
    assert close(packed[:, 9:], net(ids[:, 9:], both[:, 1]))


@pytest.mark.parametrize("chunks", [[1] * 12, [5, 1, 6], [12]])
@torch.no_grad()
def test_steps_give_the_logits_of_the_complete_sequence(chunks: list[int]):
    """For several songs in a batch, too."""
    ids, emotion = example(3)
    net = model()
    past, pieces = net.empty_past(3), []
    for part in ids.split(chunks, dim=1):
        logits, past = net.step(part, emotion, past)
        pieces.append(logits)
    assert close(torch.cat(pieces, 1), net(ids, emotion))
    assert past[0].shape == (3, 2, 12, 16)


@torch.no_grad()
def test_the_exported_module_computes_the_same_as_the_model():
    ids, emotion = example()
    net = model()
    assert close(FullGraph(net)(ids, emotion), net(ids, emotion))


def rows(net) -> list[torch.Tensor]:
    """What every id is embedded as, and what its logit is made with."""
    folded = net.folded()
    return [folded.embedding.weight.detach(), (folded.head or folded.embedding).weight.detach()]


@pytest.mark.parametrize("tied", [True, False])
def test_octaves_share_what_is_learnt(tied: bool):
    """A gradient on one C changes the rows of all Cs, and no other row."""
    net = model(tied_head=tied).train()
    before = rows(net)
    net(torch.tensor([[60]]), torch.zeros(1, 64))[..., 60].sum().backward()
    with torch.no_grad():
        for weight in net.parameters():
            if weight.grad is not None:
                weight -= 0.1 * weight.grad
        for old, new in zip(before, rows(net), strict=True):
            found = (new - old).abs().sum(1) > 0
            assert found[[0, 12, 48, 60, 120]].all() and not found[[1, 59, 61]].any() and not found[128:].any()


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_a_folded_model_computes_the_same_from_one_matrix(tied: bool):
    net = model(tied_head=tied)
    ids, emotion = example()
    folded = net.folded()
    assert torch.equal(folded(ids, emotion), net(ids, emotion))
    assert not any("classes" in name for name, _ in folded.named_parameters())
    assert any("classes" in name for name, _ in net.named_parameters())  # the original model keeps them


@torch.no_grad()
def test_the_largest_context_fits():
    net = model()
    ids, emotion = example(1, 32)
    assert net(ids, emotion).shape == (1, 32, 388)


def test_every_parameter_gets_a_gradient():
    net = model().train()
    ids, emotion = example(2, 20)
    both = torch.stack([emotion, torch.zeros_like(emotion)], 1)
    documents = (torch.arange(20) >= 9).long().expand(2, -1)
    net(ids, both, documents).logsumexp(-1).sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_an_untrained_model_predicts_about_uniformly():
    ids, emotion = example(4, 32)
    net = MidiGenerator(Model())
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(net(ids, emotion).flatten(0, 1), ids.flatten())
    assert 5.5 < float(loss) < 7.5  # ln 388 = 5.96


def test_bfloat16_is_used_and_close():
    """Under autocast the packed path computes in bfloat16, masks included."""
    ids, emotion = example(2, 20)
    both = emotion[:, None]
    documents = torch.zeros(2, 20, dtype=torch.long)
    net = model()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = net(ids, both, documents)
    assert logits.dtype == torch.bfloat16
    with torch.no_grad():
        exact = net(ids, both, documents)
    assert (logits.float() - exact).abs().max() < 0.05 * exact.abs().max()


def test_a_graph_is_in_eval_mode(settings):
    graph = full_graph(model().train(), settings().export, settings().generation)
    assert not any(module.training for module in graph.module.modules())
