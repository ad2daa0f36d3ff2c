"""The loss: channels are compared at nearest points, sub-frames by centre and spread."""

import torch
from torch.nn.functional import smooth_l1_loss

from training.domains.music.spectocloud import loss
from training.domains.music.spectocloud.loss import Cloud


def clouds(n: int = 150, m: int = 150, batch: int = 3, seed: int = 0) -> tuple[Cloud, Cloud]:
    torch.manual_seed(seed)
    return tuple(Cloud(torch.rand(batch, k, 3), torch.rand(batch, k, 4), torch.rand(batch, k, 3)) for k in (n, m))


def test_channels_are_compared_with_the_nearest_point_not_by_index():
    """A shuffled copy of a cloud is the same cloud, including its properties."""
    _, target = clouds()
    order = torch.randperm(150)
    shuffled = Cloud(*(part[:, order] for part in target))
    assert all(float(term.max()) == 0 for term in loss.unordered(shuffled, target))
    assert all(float(term.min()) > 0.01 for term in loss.matched(shuffled, target))

    a, b = clouds(150, 97)
    at = torch.cdist(a.positions, b.positions).argmin(2, keepdim=True)
    terms = loss.unordered(a, b)
    color, properties = (values.take_along_dim(at, 1) for values in (b.colors, b.properties))
    torch.testing.assert_close(terms.color, (a.colors - color).square().mean((1, 2)))
    want = smooth_l1_loss(a.properties, properties, reduction="none").mean((1, 2))
    torch.testing.assert_close(terms.properties, want)


def test_index_matched_terms_match_by_index():
    a, b = clouds()
    terms = loss.matched(a, b)
    torch.testing.assert_close(terms.position, (a.positions - b.positions).norm(dim=-1).mean(1))
    torch.testing.assert_close(terms.color, (a.colors - b.colors).square().mean((1, 2)))


def test_lifeline_depends_on_centres_and_spreads_only():
    a, _ = clouds(160, 160)
    order = torch.cat([k * 20 + torch.randperm(20) for k in range(8)])
    shuffled = Cloud(a.positions[:, order], a.colors, a.properties)
    assert float(loss.lifeline(a, shuffled, 8).max()) < 1e-6
    moved = Cloud(a.positions + torch.tensor([0.0, 0.3, 0.0]), a.colors, a.properties)
    torch.testing.assert_close(loss.lifeline(a, moved, 8), torch.full((3,), 0.1))
