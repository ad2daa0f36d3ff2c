"""Every implementation finds the nearest point with its exact distance and gradient."""

import itertools
import threading
import tracemalloc

import numpy as np
import pytest
import torch

from training.domains.music.spectocloud import chamfer, chamfer_cpu
from training.domains.music.spectocloud.chamfer import both_ways, nearest, search_in_blocks

SEARCHES = [chamfer_cpu.search, search_in_blocks]


def points(*sizes: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """Two uniform clouds [3, n, 3] (or as many as there are sizes)."""
    torch.manual_seed(seed)
    return [torch.rand(3, n, 3, dtype=dtype) for n in sizes]


def every_pair(x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    """Distances [B, N, M], float64, of every pair."""
    return np.sqrt(((x.double().numpy()[:, :, None] - y.double().numpy()[:, None]) ** 2).sum(-1))


def by_broadcast(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A simple implementation of the Chamfer distance."""
    d = torch.linalg.vector_norm(x[:, :, None] - y[:, None], dim=-1)
    return (d.min(2).values.mean(1) + d.min(1).values.mean(1)) / 2


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize(("n", "m"), [(150, 150), (40, 97), (1, 1), (1, 66), (129, 2), (64, 64), (65, 63)])
def test_the_selected_point_is_the_nearest(search, n, m):
    x, y = points(n, m)
    assert (search(x, y).numpy() == every_pair(x, y).argmin(2)).all()


@pytest.mark.parametrize(("n", "m"), [(150, 150), (40, 97)])
def test_distances_are_exact(n, m):
    x, y = points(n, m)
    pairs = every_pair(x, y)
    there, back = both_ways(x, y)
    np.testing.assert_allclose(there.distance.numpy(), pairs.min(2), rtol=3e-7)
    np.testing.assert_allclose(back.distance.numpy(), pairs.min(1), rtol=3e-7)
    want = (pairs.min(2).mean(1) + pairs.min(1).mean(1)) / 2
    np.testing.assert_allclose(chamfer.chamfer(x, y).numpy(), want, rtol=1e-6)


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("apart", [1e-3, 1e-4, 1e-5, 1e-6])
def test_distances_of_nearly_touching_points_are_accurate(search, apart):
    """|x|^2 + |y|^2 - 2xy has an error of 7 % for points 1e-3 apart, and of 100 % from 1e-4 on."""
    torch.manual_seed(1)
    x = torch.rand(2, 300, 3) * 0.01 + 0.9
    y = x[:, torch.randperm(300)] + torch.randn(2, 300, 3) * apart
    pairs, index = every_pair(x, y), search(x, y)
    found = torch.linalg.vector_norm(x - chamfer.take(y, index), dim=-1)
    np.testing.assert_allclose(found.numpy(), pairs.min(2), rtol=1e-6)


@pytest.mark.parametrize("search", SEARCHES)
def test_the_search_is_exact_far_from_the_origin(search):
    x, y = (t * 64 + 1e6 for t in points(100, 120))  # float32 has steps of 1/16 there
    chosen = np.take_along_axis(every_pair(x, y), search(x, y).numpy()[..., None], 2)[..., 0]
    np.testing.assert_array_equal(chosen, every_pair(x, y).min(2))


@pytest.mark.parametrize("search", SEARCHES)
def test_the_first_of_equally_near_points_is_selected(search):
    x, _ = points(70, 1)
    assert (search(x, x.repeat(1, 5, 1)) == torch.arange(70)).all()
    same = torch.full((1, 90, 3), 0.25)
    assert (search(x[:1], same) == 0).all()


@pytest.mark.parametrize("search", SEARCHES)
def test_a_result_does_not_depend_on_the_rest_of_the_batch(search):
    x, y = points(150, 97)
    complete = search(x, y)
    assert all((search(x[b : b + 1], y[b : b + 1]) == complete[b]).all() for b in range(3))


def test_the_number_of_threads_does_not_change_the_result(monkeypatch):
    x, y = points(150, 97)
    complete = chamfer_cpu.search(x, y)
    monkeypatch.setattr(chamfer_cpu, "PAIRS_A_THREAD", 64 * 97)
    seen, kernel = set(), chamfer_cpu._search

    def watched(*arguments):
        seen.add(arguments[-2:])
        assert threading.current_thread() is not threading.main_thread()
        kernel(*arguments)

    monkeypatch.setattr(chamfer_cpu, "_search", watched)
    for threads in (2, 5):
        seen.clear()
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert (chamfer_cpu.search(x, y) == complete).all()
        ends = [0, *(last for _, last in sorted(seen))]
        assert sorted(seen) == list(itertools.pairwise(ends)) and ends[-1] == 9 and len(seen) == threads


def test_the_block_size_does_not_change_the_result(monkeypatch):
    x, y = points(150, 97)
    complete = search_in_blocks(x, y)
    for pairs in (97, 97 * 7, 97 * 150 * 2):
        monkeypatch.setattr(chamfer, "PAIRS_AT_ONCE", pairs)
        assert (search_in_blocks(x, y) == complete).all()


def test_the_kernel_never_holds_all_pairs():
    """46 million distances would be 369 MB."""
    x, y = torch.rand(32, 1200, 3), torch.rand(32, 1200, 3)
    chamfer_cpu.search(x, y)
    tracemalloc.start()  # numpy's arrays are traced
    chamfer_cpu.search(x, y)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 1e6 < peak < 5e6


def test_the_blocked_search_never_holds_all_pairs():
    biggest = []
    x, y = torch.rand(32, 1200, 3), torch.rand(32, 1200, 3)

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                biggest.append(out.numel())
            return out

    with Watch():
        search_in_blocks(x, y)
    assert max(biggest) <= chamfer.PAIRS_AT_ONCE < 32 * 1200 * 1200


def test_gradients_are_those_of_the_distance():
    for n, m in ((20, 25), (20, 20)):
        x, y = (t.requires_grad_() for t in points(n, m, dtype=torch.float64))
        assert torch.autograd.gradcheck(chamfer.chamfer, (x, y))
        ours, theirs = (torch.autograd.grad(way(x, y).sum(), (x, y)) for way in (chamfer.chamfer, by_broadcast))
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-15)


def test_gradients_of_points_that_share_a_neighbour_add_up():
    x, y = points(50, 2, dtype=torch.float64)
    y.requires_grad_()
    (ours,), (theirs,) = (
        torch.autograd.grad(total, y) for total in (nearest(x, y).distance.sum(), torch.cdist(x, y).min(2).values.sum())
    )
    torch.testing.assert_close(ours, theirs)


def test_touching_points_have_gradient_zero():
    x = torch.rand(1, 10, 3, requires_grad=True)
    chamfer.chamfer(x, x.detach()).sum().backward()
    assert (x.grad == 0).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("way", [lambda x, y: (x, y), lambda x, y: (y, x)])
def test_a_value_that_is_not_finite_affects_its_own_cloud_only(bad, way):
    x, y = points(150, 150)
    clean = chamfer.chamfer(x, y)
    x[1, 3, 0] = bad
    got = chamfer.chamfer(*way(x, y))
    assert got.isfinite().tolist() == [True, False, True]
    assert (got[[0, 2]] == clean[[0, 2]]).all()


def test_a_point_that_is_not_finite_is_never_the_nearest():
    x, y = points(150, 150)
    y[:, 5, 1] = float("nan")
    others = torch.cat([y[:, :5], y[:, 6:]], 1)
    assert (chamfer.take(y, nearest(x, y).index) == chamfer.take(others, nearest(x, others).index)).all()


def test_empty_clouds():
    x, y = points(0, 4)
    assert nearest(x, y).distance.shape == (3, 0)
    assert chamfer.chamfer(y[:0], y[:0]).shape == (0,)
    with pytest.raises(ValueError, match="empty cloud"):
        nearest(y, x)


@pytest.mark.parametrize(("x", "y"), [((3, 4, 2), (3, 5, 2)), ((3, 4, 3), (2, 5, 3)), ((4, 3), (5, 3))])
def test_clouds_of_incompatible_shapes_are_refused(x, y):
    with pytest.raises(ValueError, match="clouds are"):
        nearest(torch.zeros(x), torch.zeros(y))


def test_half_precision_is_widened():
    x, y = points(60, 60)
    half, wide = nearest(x.bfloat16(), y.bfloat16()), nearest(x.bfloat16().float(), y.bfloat16().float())
    assert half.distance.dtype == torch.float32
    assert all((a == b).all() for a, b in zip(half, wide, strict=True))
    with torch.autocast("cpu", torch.bfloat16):
        inside = chamfer.chamfer(x, y)
    assert (inside == chamfer.chamfer(x, y)).all()


def test_estimate_from_every_eighth_point_is_close():
    x, y = points(1200, 1200)
    complete, part = chamfer.chamfer(x, y), chamfer.chamfer(x, y, stride=8)
    torch.testing.assert_close(part, complete, rtol=0.05, atol=0)


def test_the_operator_can_be_compiled():
    """Schema, autograd and fake tensors match the implementation; there is no graph break around it."""
    x, y = (t.requires_grad_() for t in points(7, 9))
    torch.library.opcheck(torch.ops.athanor.nearest.default, (x, y))
    x, y = (t.detach() for t in (x, y))
    torch.library.opcheck(torch.ops.athanor.nearest_backward.default, (torch.ones(3, 7), x, y, *nearest(x, y)))
    explained = torch._dynamo.explain(lambda x, y: chamfer.chamfer(x * 2, y).sum())(*points(7, 7))
    assert explained.graph_count == 1 and not explained.break_reasons


@pytest.mark.filterwarnings("ignore")
def test_the_compiled_distance_is_the_same():
    x, y = points(30, 30)
    x.requires_grad_()
    compiled = torch.compile(chamfer.chamfer, fullgraph=True, backend="aot_eager")
    ours, theirs = ((way(x, y), torch.autograd.grad(way(x, y).sum(), x)[0]) for way in (compiled, chamfer.chamfer))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
