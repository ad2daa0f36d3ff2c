"""Checks of the Triton kernels. test_chamfer_triton.py runs them in a separate process, because Triton reads
TRITON_INTERPRET when it is imported: it is set on a CPU; on a GPU the compiled kernels run."""

import torch

from training.domains.music.spectocloud import chamfer_triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def points(n: int, m: int, dtype: torch.dtype, apart: float | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(n * m)
    x, y = torch.rand(2, n, 3, dtype=dtype), torch.rand(2, m, 3, dtype=dtype)
    if apart:
        y[:, :n] = x[:, torch.randperm(n)][:, :m] + apart * torch.randn(2, n, 3, dtype=dtype)[:, :m]
    return x.to(DEVICE), y.to(DEVICE)


def reference(x: torch.Tensor, y: torch.Tensor, slope: torch.Tensor) -> list[torch.Tensor]:
    """Distance, index, gradients of x and y: float64, every pair."""
    x, y = (t.double().requires_grad_() for t in (x, y))
    pairs = torch.linalg.vector_norm(x[:, :, None] - y[:, None], dim=-1)
    distance, index = pairs.min(2)
    return [distance.detach(), index, *torch.autograd.grad((distance * slope.double()).sum(), (x, y))]


for n, m, dtype, apart in (
    (1, 1, torch.float32, None),
    (33, 64, torch.float32, None),
    (70, 130, torch.float64, None),
    (40, 40, torch.float32, 1e-4),
    (40, 40, torch.float32, 1e-6),
):
    x, y = points(n, m, dtype, apart)
    slope = torch.rand(x.shape[:2], dtype=dtype, device=DEVICE)
    distance, index = chamfer_triton.forward(x, y)
    found = [distance, index, *chamfer_triton.backward(slope, x, y, distance, index)]
    wanted = reference(x, y, slope)
    close = 1e-12 if dtype == torch.float64 else 1e-6
    assert (index == wanted[1]).all(), (n, m, "index")
    for name, ours, theirs in zip(("distance", "", "of x", "of y"), found, wanted, strict=True):
        # The gradient of nearly touching points is a quotient of small numbers.
        wide = close if name == "distance" else 100 * close
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=wide, atol=0 if name == "distance" else wide)

x, _ = points(chamfer_triton.COLUMNS, 1, torch.float32)  # so that equal points are in the same lane
twice = x.repeat(1, 3, 1)
distance, index = chamfer_triton.forward(x, twice)
assert (index == torch.arange(x.shape[1], device=DEVICE)).all() and (distance == 0).all(), (
    "the first of equally near points"
)
slope = torch.ones_like(distance)
assert all((part == 0).all() for part in chamfer_triton.backward(slope, x, twice, distance, index)), "touching points"

x, y = points(50, 70, torch.float32)
x[0, 3, 1], y[1, 5, 2] = float("nan"), float("inf")
distance, index = chamfer_triton.forward(x, y)
assert distance.isfinite().sum().item() == 99 and not distance[0, 3].isfinite(), "a query point that is not finite"
assert (index[1] != 5).all() and index.max() < 70, "a candidate that is not finite is never the nearest"

x, y = points(45, 300, torch.float32)
slope = torch.rand(x.shape[:2], device=DEVICE)
batched = chamfer_triton.forward(y, x)
alone = [chamfer_triton.forward(y[b : b + 1], x[b : b + 1]) for b in range(2)]
assert all((torch.cat(parts) == part).all() for parts, part in zip(zip(*alone, strict=True), batched, strict=True))
slope = torch.rand(y.shape[:2], device=DEVICE)
first, again = (chamfer_triton.backward(slope, y, x, *batched) for _ in range(2))
assert all((a == b).all() for a, b in zip(first, again, strict=True)), "the same order of additions in every run"
print("all cases hold on", DEVICE)
