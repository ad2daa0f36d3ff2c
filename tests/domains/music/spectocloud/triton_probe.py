"""Can the installed Triton's interpreter run a loop with the installed numpy? Run by test_chamfer_triton.py.

Prints "runs", or "refused: ..." for the one known fault: the interpreter of Triton 3.6 turns an array of one element
into a loop's bound, which numpy refuses from 2.4 on. Any other error ends this script with a traceback."""

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
    print(f"refused: Triton {triton.__version__} interprets no loop with numpy {numpy.__version__}: {error.__cause__}")
else:
    assert counted.item() == 3
    print("runs")
