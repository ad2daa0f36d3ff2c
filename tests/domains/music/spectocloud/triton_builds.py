"""Compiles the Triton kernels to machine code for several GPUs, without one (run by test_chamfer_triton.py)."""

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from training.domains.music.spectocloud import chamfer_triton as kernels

TARGETS = (80, 89, 90)  # A100; RTX 40; H100
TILE = {"ROWS": kernels.ROWS, "COLUMNS": kernels.COLUMNS}
ARGUMENTS = {
    kernels._search: "x y distance index n m",
    kernels._differentiate: "slope x y distance index of_x n m",
    kernels._collect: "of_x index of_y n m",
}

for capability in TARGETS:
    for kernel, names in ARGUMENTS.items():
        tile = {name: size for name, size in TILE.items() if name in kernel.arg_names}
        types = {name: "i32" if name in "nm" else "*i64" if name == "index" else "*fp32" for name in names.split()}
        source = ASTSource(kernel, types | dict.fromkeys(tile, "constexpr"), tile)
        built = triton.compile(source, target=GPUTarget("cuda", capability, 32))
        assert built.asm["cubin"], (capability, kernel.__name__)
print("all built")
