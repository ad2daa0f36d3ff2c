"""The loss measures what it says: exact neighbours, right gradients, channels compared where points meet."""

import numpy as np
import pytest
import torch
from torch.nn.functional import smooth_l1_loss

from training.models.spectocloud import loss
from training.models.spectocloud.loss import Cloud


def clouds(n: int = 150, m: int = 150, batch: int = 3, seed: int = 0) -> tuple[Cloud, Cloud]:
    torch.manual_seed(seed)
    return tuple(Cloud(torch.rand(batch, k, 3), torch.rand(batch, k, 4), torch.rand(batch, k, 3)) for k in (n, m))


def brute_force(x: torch.Tensor, y: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Chamfer [B] and nearest index [B, N], float64, every pair."""
    d = np.sqrt(((x.double().numpy()[:, :, None] - y.double().numpy()[:, None]) ** 2).sum(-1))
    return (d.min(2).mean(1) + d.min(1).mean(1)) / 2, d.argmin(2)


SEARCHES = [loss._nearest_by_tree, loss._nearest_in_blocks]


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize(("n", "m"), [(150, 150), (40, 97)])
def test_neighbours_and_distance_are_exact(search, n, m, monkeypatch):
    monkeypatch.setattr(loss, "nearest", search)
    a, b = clouds(n, m)
    want, index = brute_force(a.positions, b.positions)
    assert (search(a.positions, b.positions).numpy() == index).all()
    np.testing.assert_allclose(loss.chamfer(a.positions, b.positions).numpy(), want, rtol=1e-6)


@pytest.mark.parametrize("search", SEARCHES)
def test_nearly_touching_points_are_measured_right(search, monkeypatch):
    """|x|^2 + |y|^2 - 2xy is off by 100 % where points are 1e-4 apart."""
    monkeypatch.setattr(loss, "nearest", search)
    torch.manual_seed(1)
    a = torch.rand(2, 300, 3) * 0.01 + 0.9
    b = a[:, torch.randperm(300)] + torch.randn(2, 300, 3) * 1e-5
    want, _ = brute_force(a, b)
    np.testing.assert_allclose(loss.chamfer(a, b).numpy(), want, rtol=1e-4)


def test_blocks_do_not_change_the_answer(monkeypatch):
    a, b = clouds(150, 97)
    whole = loss._nearest_in_blocks(a.positions, b.positions)
    for pairs in (97, 97 * 7, 97 * 150 * 2):
        monkeypatch.setattr(loss, "PAIRS_AT_ONCE", pairs)
        assert (loss._nearest_in_blocks(a.positions, b.positions) == whole).all()


def test_blocks_never_hold_all_pairs():
    biggest = []
    a, b = torch.rand(32, 1200, 3), torch.rand(32, 1200, 3)

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                biggest.append(out.numel())
            return out

    with Watch():
        loss._nearest_in_blocks(a, b)
    assert max(biggest) <= loss.PAIRS_AT_ONCE < 32 * 1200 * 1200


def test_gradient_is_that_of_the_distance():
    a, b = clouds(20, 25, batch=2)
    x, y = a.positions.double().requires_grad_(), b.positions.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: loss.chamfer(x, y), (x, y))


def test_touching_points_give_no_nan():
    x = torch.rand(1, 10, 3, requires_grad=True)
    loss.chamfer(x, x.detach()).sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("search", SEARCHES)
def test_what_is_not_finite_shows_in_the_loss(search, monkeypatch):
    monkeypatch.setattr(loss, "nearest", search)
    a, b = clouds()
    a.positions[1, 3, 0] = float("nan")
    got = loss.chamfer(a.positions, b.positions)
    assert got.isnan().tolist() == [False, True, False]


def test_channels_are_compared_with_the_nearest_point_not_by_index():
    """T8: a shuffled copy of a cloud is the same cloud; properties count too."""
    _, target = clouds()
    order = torch.randperm(150)
    shuffled = Cloud(*(part[:, order] for part in target))
    assert all(float(term.max()) == 0 for term in loss.unordered(shuffled, target))
    assert all(float(term.min()) > 0.01 for term in loss.matched(shuffled, target))

    a, b = clouds(150, 97)
    _, index = brute_force(a.positions, b.positions)
    at = torch.from_numpy(index)[..., None]
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


def test_estimate_from_every_eighth_point_is_close():
    a, b = clouds(1200, 1200, batch=2)
    whole, part = loss.chamfer(a.positions, b.positions), loss.chamfer_estimate(a.positions, b.positions)
    torch.testing.assert_close(part, whole, rtol=0.05, atol=0)
    torch.testing.assert_close(loss.chamfer_estimate(a.positions, b.positions, stride=1), whole)


def test_lifeline_sees_centres_and_spreads_only():
    a, _ = clouds(160, 160)
    order = torch.cat([k * 20 + torch.randperm(20) for k in range(8)])
    shuffled = Cloud(a.positions[:, order], a.colors, a.properties)
    assert float(loss.lifeline(a, shuffled, 8).max()) < 1e-6
    moved = Cloud(a.positions + torch.tensor([0.0, 0.3, 0.0]), a.colors, a.properties)
    torch.testing.assert_close(loss.lifeline(a, moved, 8), torch.full((3,), 0.1))
