"""Probes, for test_chamfer_triton.py, whether the interpreter of the installed Triton can run a loop with the installed
numpy.

Prints "runs", or "refused: ..." for the one known fault: the interpreter of Triton 3.6 converts an array of one element
to a loop bound, which numpy 2.4 and later refuse. Any other error ends this script with a traceback."""

import numpy
import torch
import triton
import triton.language as tl
from triton.runtime.errors import InterpreterError


@triton.jit
def _count(counted, n):
    total = 0
    for _ in range(0, n, 1):
        total += 1
    tl.store(counted, total)


counted = torch.zeros(1, dtype=torch.int32)
try:
    _count[(1,)](counted, 3)
except InterpreterError as error:
    if not isinstance(error.__cause__, TypeError) or "0-dimensional" not in str(error):
        raise
    print(f"refused: Triton {triton.__version__} cannot run a loop with numpy {numpy.__version__}: {error.__cause__}")
else:
    assert counted.item() == 3
    print("runs")
