"""The loss measures what it says: channels compared where points meet, sub-frames by centre and spread."""

import torch
from torch.nn.functional import smooth_l1_loss

from training.models.spectocloud import loss
from training.models.spectocloud.loss import Cloud
from training.music.clouds.anchors import PARAMETERS


def clouds(n: int = 150, m: int = 150, batch: int = 3, seed: int = 0) -> tuple[Cloud, Cloud]:
    torch.manual_seed(seed)
    return tuple(Cloud(torch.rand(batch, k, 3), torch.rand(batch, k, 4), torch.rand(batch, k, 3)) for k in (n, m))


def test_channels_are_compared_with_the_nearest_point_not_by_index():
    """T8: a shuffled copy of a cloud is the same cloud; properties count too."""
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


def test_lifeline_sees_centres_and_spreads_only():
    a, _ = clouds(160, 160)
    order = torch.cat([k * 20 + torch.randperm(20) for k in range(8)])
    shuffled = Cloud(a.positions[:, order], a.colors, a.properties)
    assert float(loss.lifeline(a, shuffled, 8).max()) < 1e-6
    moved = Cloud(a.positions + torch.tensor([0.0, 0.3, 0.0]), a.colors, a.properties)
    torch.testing.assert_close(loss.lifeline(a, moved, 8), torch.full((3,), 0.1))


def test_parameters_weigh_what_they_move_and_silence_weighs_nothing():
    target = torch.rand(2, 8, 5)
    sounding = torch.ones(2, 8)
    sounding[1, 4:] = 0
    for column, name in enumerate(PARAMETERS):
        predicted = target.clone()
        predicted[..., column] += 0.1
        predicted[1, 4:] += 5.0
        want = torch.full((2,), 0.1 * loss.PARAMETER_WEIGHTS[name])
        torch.testing.assert_close(loss.parameters(predicted, target, sounding), want)
    silent = loss.parameters(target + 1, target, torch.zeros(2, 8))
    torch.testing.assert_close(silent, torch.zeros(2))


def test_the_roll_is_right_when_what_sounds_is_certain():
    target = (torch.rand(2, 8, 84) < 0.1).float()
    sure = loss.roll(20 * (2 * target - 1), target)
    unsure = loss.roll(torch.zeros(2, 8, 84), target)
    assert float(sure.max()) < 1e-6
    torch.testing.assert_close(unsure, torch.full((2,), 2.0).log())
