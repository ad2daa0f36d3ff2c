"""torch.compile without recompilation: every call of a mode (training, validation) has the same shapes."""

from __future__ import annotations

import hashlib
import inspect
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from training.errors import HostError
from training.recipe import Recipe

Function = TypeVar("Function", bound=Callable[..., Any])


class Compiled(torch.nn.Module):
    """`model` through torch.compile; the weights stay those of `model`.

    A batch of fewer than `rows()` samples (the last of an epoch or of the held-out split) is padded with copies of its
    first sample, whose outputs are dropped: compiling again would cost more. So the first dimension of every tensor
    argument and output must be the samples, and no sample may influence another (no batch normalisation).

    `model.varying` (default: none) names other dimensions that differ between calls and are marked dynamic: argument of
    `forward` -> dimensions, each of size 2 or more.
    """

    def __init__(self, model: torch.nn.Module, rows: Callable[[], int], **options: Any):
        super().__init__()
        self.model, self.rows = model, rows
        names = list(inspect.signature(model.forward).parameters)
        varying = getattr(model, "varying", {})
        self._varying = [(names.index(name), dimension) for name, dims in varying.items() for dimension in dims]
        self._run = torch.compile(model, dynamic=False, **options)

    def forward(self, *arguments: Any) -> Any:
        given = len(arguments[0])
        missing = self.rows() - given
        if missing > 0:
            arguments = tuple(_filled_up(a, missing) if isinstance(a, Tensor) else a for a in arguments)
        for at, dimension in self._varying:
            torch._dynamo.mark_dynamic(arguments[at], dimension)
        with _explained():
            out = self._run(*arguments)
        return _first(out, given) if missing > 0 else out


class CompiledFunction:
    """A function of tensors [rows, ...], compiled for `rows()` rows; for another number it runs uncompiled."""

    def __init__(self, function: Callable[..., Any], rows: Callable[[], int], **options: Any):
        self.function, self.rows = function, rows
        self._run = torch.compile(function, dynamic=False, **options)

    def __call__(self, *arguments: Any) -> Any:
        if len(arguments[0]) != self.rows():
            return self.function(*arguments)
        with _explained():
            return self._run(*arguments)


def compiled(
    recipe: Recipe, model: torch.nn.Module, rows: Callable[[], int], say: Callable[[str], None], **options: Any
) -> torch.nn.Module:
    """Apply torch.compile to `model` and to the functions of `recipe.accelerate`; without a C compiler, to nothing.

    `rows`: samples of a full batch. `options`: torch.compile's. The first call of each mode takes a minute or so.
    """
    compiler = next((c for c in (os.environ.get("CC"), "cc", "gcc", "clang") if c and shutil.which(c)), None)
    if compiler is None:
        say("training.compile: no C compiler (cc, gcc, clang) is installed; training without torch.compile.")
        return model
    recipe.accelerate(lambda function: CompiledFunction(function, rows, **options))
    return Compiled(model, rows, **options)


def keep_compiled(folder: Path) -> None:
    """Set the compiler's cache to a folder in `folder`, so that a resumed run need not compile again. Each version of
    torch and each processor has a separate one, as a volume may move to another host. TORCHINDUCTOR_CACHE_DIR takes
    precedence where it is set."""
    there = Path("/proc/cpuinfo")
    lines = there.read_text(encoding="utf-8", errors="replace").splitlines() if there.exists() else []
    processor = [line for line in lines if line.startswith(("model name", "flags", "Features"))][:2]
    place = hashlib.sha256("\n".join([torch.__version__, *processor]).encode()).hexdigest()[:12]
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / place))


class _explained:
    """Context in which a failure of the compiler is raised as HostError with a remedy."""

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:
        if not isinstance(error, RuntimeError):
            return
        from torch._dynamo.exc import ShortenTraceback  # the compiler's own failures; takes a second to import

        if isinstance(error, ShortenTraceback) and "out of memory" not in str(error):
            reason = "\n".join([line for line in str(error).splitlines() if line.strip()][:6])
            raise HostError(
                f"torch.compile does not work on this host:\n{reason}\nTrain without it: --set training.compile=false"
            ) from error


def _filled_up(tensor: Tensor, missing: int) -> Tensor:
    return torch.cat([tensor, tensor[:1].expand(missing, *tensor.shape[1:])])


def _first(out: Any, rows: int) -> Any:
    if isinstance(out, Tensor):
        return out[:rows]
    if isinstance(out, dict):
        return {key: _first(value, rows) for key, value in out.items()}
    parts = [_first(value, rows) for value in out]
    return type(out)(*parts) if hasattr(out, "_fields") else type(out)(parts)
