"""Peak FLOP/s of GPUs, for model FLOP utilisation (MFU)."""

from __future__ import annotations

import re

import torch

from training.engine.step.precision import Precision

#: Dense TFLOP/s with float32 accumulation, from NVIDIA's data sheets: a pattern of the name that the driver reports
#: (without "NVIDIA ", "GeForce ", "Tesla "), then bfloat16 and float16, TF32, float32. Laptop GPUs and MIG slices are
#: other devices, and match nothing.
PEAKS: tuple[tuple[str, float, float, float], ...] = (
    (r"B200", 2250, 1125, 75),
    (r"H200( NVL)?|H100 80GB HBM3|GH200.*", 989, 494, 67),
    (r"H100 NVL", 835, 417, 60),
    (r"H100 PCIe", 756, 378, 51),
    (r"A100.*", 312, 156, 19.5),
    (r"A40", 150, 75, 37.4),
    (r"A30", 165, 82, 10.3),
    (r"A10", 125, 62.5, 31.2),
    (r"L40S", 362, 183, 91.6),
    (r"L40", 181, 90.5, 90.5),
    (r"L4", 121, 60, 30.3),
    (r"RTX 6000 Ada Generation", 364, 182, 91.1),
    (r"RTX A6000", 155, 77.4, 38.7),
    (r"RTX A5000", 111, 55.6, 27.8),
    (r"RTX 5090", 209.5, 104.8, 104.8),
    (r"RTX 5080", 112.6, 56.3, 56.3),
    (r"RTX 4090", 165.2, 82.6, 82.6),
    (r"RTX 4080", 97.5, 48.7, 48.7),
    (r"RTX 4080 SUPER", 104.4, 52.2, 52.2),
    (r"RTX 4070 Ti", 80.2, 40.1, 40.1),
    (r"RTX 3090", 71, 35.6, 35.6),
    (r"RTX 3090 Ti", 80, 40, 40),
    (r"RTX 3080", 59.5, 29.8, 29.8),
    (r"V100.*", 125, 15.7, 15.7),
    (r"T4", 65, 8.1, 8.1),
)


def peak(name: str, dtype: torch.dtype | None) -> float | None:
    """Peak TFLOP/s of the GPU called `name` when it computes in `dtype` (None: float32); None if the GPU is not
    listed."""
    plain = re.sub(r"^(NVIDIA |GeForce |Tesla |Quadro )*", "", name)
    for pattern, half, tf32, single in PEAKS:
        if re.fullmatch(pattern, plain) and "MIG" not in plain:
            if dtype in (torch.bfloat16, torch.float16):
                return half
            return tf32 if torch.get_float32_matmul_precision() != "highest" else single
    return None


def device_peak(device: torch.device, precision: Precision) -> float | None:
    """`peak` of the device and dtype of a run; None on a CPU."""
    return peak(torch.cuda.get_device_name(device), precision.dtype) if device.type == "cuda" else None
