"""The packages of the extra `market` leave torch and its CUDA libraries alone."""

from __future__ import annotations

import re
from importlib import metadata

from training.workspace import PROJECT

LOCK = PROJECT / "requirements/market.lock"


def test_no_package_of_the_extra_requires_torch_or_a_cuda_library():
    """The lock leaves nvidia-* out, but an installer that resolves a requirement would bring it back."""
    names = re.findall(r"^([a-z0-9-]+)==", LOCK.read_text(), re.M)
    assert {"xgboost-cpu", "lightgbm", "catboost"} <= set(names)
    required = {(name, line) for name in names for line in metadata.requires(name) or () if "extra ==" not in line}
    assert not [pair for pair in required if re.match(r"(torch|triton|nvidia-|cuda-)", pair[1])]
    assert "xgboost" not in names, "it requires nvidia-nccl-cu12, which replaces torch's NCCL"
