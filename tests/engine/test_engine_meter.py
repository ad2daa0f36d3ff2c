"""Log lines have the model FLOP utilisation where the peak of the device is known."""

from __future__ import annotations

import pytest
import torch

from training.engine.loop.meter import Meter, line
from training.engine.step.peak_flops import peak


@pytest.mark.parametrize(
    ("name", "dtype", "wanted"),
    [
        ("NVIDIA GeForce RTX 4090", torch.bfloat16, 165.2),
        ("NVIDIA GeForce RTX 4090", None, 82.6),
        ("NVIDIA GeForce RTX 3090 Ti", torch.float16, 80),
        ("NVIDIA H100 80GB HBM3", torch.bfloat16, 989),
        ("NVIDIA A100-SXM4-80GB", torch.bfloat16, 312),
        ("NVIDIA A100 80GB PCIe", None, 19.5),
        ("Tesla T4", torch.float16, 65),
        ("NVIDIA L4", torch.bfloat16, 121),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", torch.bfloat16, None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", torch.bfloat16, None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", torch.bfloat16, None),
        ("AMD Instinct MI300X", torch.bfloat16, None),
    ],
)
def test_the_peak_of_a_gpu_is_looked_up_by_its_exact_name(name: str, dtype: torch.dtype | None, wanted):
    assert torch.get_float32_matmul_precision() == "highest"
    assert peak(name, dtype) == wanted


def test_the_tf32_peak_applies_where_tf32_is_enabled():
    torch.set_float32_matmul_precision("high")
    try:
        assert peak("NVIDIA A100-SXM4-80GB", None) == 156
    finally:
        torch.set_float32_matmul_precision("highest")


def output(meter: Meter, monkeypatch: pytest.MonkeyPatch) -> str:
    """The log line after 20 samples in 2 seconds."""
    monkeypatch.setattr("time.perf_counter", lambda: meter.since + 2.0)
    meter.stepped(1, range(20), 0.0)
    return line(1, 10, 1, 1, meter.values(1, 10, 1e-3), ["loss"])


def test_the_share_of_the_peak_is_on_the_log_line(monkeypatch: pytest.MonkeyPatch):
    """5 TFLOP a sample at 10 samples a second, of a peak of 200 TFLOP/s of two devices."""
    assert "50.00 TFLOP/s (25.0% of peak)" in output(Meter(5e12, 2 * 100), monkeypatch)


def test_an_unknown_device_is_logged_without_a_share_of_the_peak(monkeypatch: pytest.MonkeyPatch):
    text = output(Meter(5e12), monkeypatch)
    assert "50.00 TFLOP/s  " in text + "  " and "peak" not in text
