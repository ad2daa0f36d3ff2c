"""Packed songs separated by segments, as with the flash kernel on a GPU. No GPU is needed: plain attention, song by
song, replaces the kernel."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from training.domains.music.midi_generator import attention
from training.domains.music.midi_generator import model as midi_model
from training.domains.music.midi_generator.config import Model
from training.domains.music.midi_generator.model import MidiGenerator

#: Three windows with 2, 4 and 1 songs; the batch has room for 4 in each.
DOCUMENTS = torch.stack([(torch.arange(32) > 20).long(), torch.arange(32) // 8, torch.zeros(32).long()])


def song_by_song(q, k, v, begins, longest, *, causal):
    """A simple implementation of attention.flash."""
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q, k, v))
    queries, keys = (b.tolist() for b in begins)
    assert max(b - a for a, b in itertools.pairwise(queries)) <= longest[0]
    assert max(b - a for a, b in itertools.pairwise(keys)) <= longest[1]
    parts = [
        F.scaled_dot_product_attention(q[a:b].transpose(0, 1), k[c:d].transpose(0, 1), v[c:d].transpose(0, 1),
                                       is_causal=causal).transpose(0, 1)
        for (a, b), (c, d) in zip(itertools.pairwise(queries), itertools.pairwise(keys), strict=True) if b > a
    ]  # fmt: skip
    return torch.cat(parts)


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randint(0, 388, (3, 32)), torch.rand(3, 4, 64), DOCUMENTS


def net() -> MidiGenerator:
    torch.manual_seed(0)
    return MidiGenerator(Model(context=32, width=32, layers=3, heads=2, emotion_width=16))


def with_gradients(model: MidiGenerator) -> list[torch.Tensor]:
    logits = model(*batch())
    logits.logsumexp(-1).sum().backward()
    return [logits.detach(), *(p.grad for p in model.parameters())]


@pytest.fixture
def segmented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(midi_model, "has_flash", lambda *_: True)
    monkeypatch.setattr(attention, "flash", song_by_song)


def test_segments_and_masks_give_the_same_logits_and_gradients(request: pytest.FixtureRequest):
    by_masks = with_gradients(net())
    request.getfixturevalue("segmented")
    by_segments = with_gradients(net())
    for a, b in zip(by_masks, by_segments, strict=True):
        assert torch.allclose(a, b, atol=1e-5 * float(a.abs().max()), rtol=0)


def test_segments_begin_where_songs_do_and_absent_songs_are_empty():
    found = attention.segments(DOCUMENTS, 4)
    assert found.tokens.tolist() == [0, 21, 32, 32, 32, 40, 48, 56, 64, 96, 96, 96, 96]
    assert found.emotion.tolist() == list(range(0, 8 * 13, 8))
    assert found.tokens.dtype == found.emotion.dtype == torch.int32  # as the kernel requires
    assert found.longest == 32


def test_on_a_cpu_and_in_full_precision_masks_are_used(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attention, "flash_gpu", lambda _: True)
    assert not attention.has_flash(torch.device("cpu"), 64)
    with torch.autocast("cpu", torch.bfloat16):
        assert not attention.has_flash(torch.device("cpu"), 64)
    assert not attention.has_flash(torch.device("cuda"), 64)  # no autocast: the kernel supports half precision only


def test_the_kernel_is_called_inside_one_compiled_graph(monkeypatch: pytest.MonkeyPatch):
    """The real torch operator, up to its kernel, which a CPU does not have: no graph break before or after it."""
    monkeypatch.setattr(midi_model, "has_flash", lambda *_: True)
    calls = []

    def backend(graph: torch.fx.GraphModule, _inputs):
        calls.append(sum("varlen" in str(node.target) for node in graph.graph.nodes))
        return lambda *_: (torch.zeros(3, 32, 388),)

    with torch.autocast("cpu", torch.bfloat16):
        torch.compile(net(), backend=backend, fullgraph=True)(*batch())
    assert calls == [5]  # three layers, of which the first and the last also attend to the emotion


def test_flash_gpu_is_marked_as_a_constant_exactly_as_torch_marks_it():
    """It is marked by hand to avoid importing the compiler in runs that do not use it."""

    def plain(index: int) -> bool:
        return True

    assert vars(attention.flash_gpu) == vars(torch.compiler.assume_constant_result(plain))
