"""The limit of a job: hours, or money at a price per hour."""

from __future__ import annotations

import math

import pytest

from training.budget import limit as limits
from training.budget.limit import Limit, Used, limit_of, price_of, read_prices
from training.cli import main
from training.errors import UsageError


def test_the_stricter_of_hours_and_money_counts():
    assert Limit(hours=2, money=1, price=1).seconds(Used({})) == 3600
    assert Limit(hours=0.5, money=1, price=1).seconds(Used({})) == 1800
    assert Limit().seconds(Used({None: 9e9})) == math.inf


def test_what_an_earlier_host_cost_is_subtracted_from_the_money():
    """1 USD went at 2 USD/h; the third that is left of 1.50 lasts half an hour at 1 USD/h."""
    used = Used({2.0: 1800})
    assert Limit(money=1.5, price=1.0).seconds(used) == pytest.approx(1800 + 1800)


def test_the_limit_in_seconds_stays_the_same_while_it_is_used_up():
    """It is recorded and compared: noise in the last digit would be a larger limit."""
    limit = Limit(money=1.1, price=0.37)
    assert {limit.seconds(Used({0.37: 0.1 * n, None: 0.7})) for n in range(100)} == {1.1 / 0.37 * 3600}


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "x", "1e9", ""])
@pytest.mark.parametrize("flag", ["--max-hours", "--budget-usd", "--price-per-hour"])
def test_nonsense_values_are_refused(flag, value, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["doctor", f"{flag}={value}"])
    assert caught.value.code == 2
    assert flag in capsys.readouterr().err


def test_a_budget_without_a_price_is_refused_naming_file_and_flag(no_gpu, tmp_path, capsys):
    assert main(["doctor", "--out", str(tmp_path), "--budget-usd", "1"]) == 2
    expected = capsys.readouterr().err
    assert "prices.yaml" in expected and "--price-per-hour" in expected


def test_hours_alone_need_no_price(no_gpu):
    assert limit_of(1.0, None, None) == Limit(1.0, None, None)


def test_an_unknown_gpu_is_named_with_the_line_to_add(monkeypatch):
    monkeypatch.setattr(limits, "gpus", lambda: ["NVIDIA Quantum 1"])
    with pytest.raises(UsageError, match=r"prices.yaml has no price for NVIDIA Quantum 1.*`Quantum 1: 1.00`"):
        limit_of(None, 1.0, None)


def test_every_gpu_that_is_rented_is_paid_for(monkeypatch):
    monkeypatch.setattr(limits, "gpus", lambda: ["NVIDIA GeForce RTX 4090"] * 3)
    each = read_prices(limits.PRICES)["RTX 4090"]
    assert limit_of(None, 1.0, None).price == pytest.approx(3 * each)
    assert limit_of(None, 1.0, 0.5).price == 0.5


def test_the_price_of_other_hosts_is_not_guessed(monkeypatch):
    monkeypatch.setattr(limits, "gpus", lambda: ["NVIDIA L4"])
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="of all hosts together"):
        limit_of(None, 1.0, None)


@pytest.mark.parametrize(
    ("gpu", "entry"),
    [
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA A100 80GB PCIe", "A100 80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100 40GB"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("Tesla T4", "T4"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_prices_are_found_by_the_gpu_names_that_nvidia_smi_reports(gpu, entry):
    prices = read_prices(limits.PRICES)
    assert price_of(gpu, prices) == (prices[entry] if entry else None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prices:\n  RTX 4090: cheap\n", r":2: `prices.RTX 4090`"),
        ("prices:\n  RTX 4090: 0\n", r":2: `prices.RTX 4090`"),
        ("prices:\n  RTX 4090: .nan\n", r":2: `prices.RTX 4090`"),
        ("prices:\n  L4: 1\n  L4: 2\n", r":3: `prices.L4` is set twice"),
        ("price:\n  L4: 1\n", r":1: `price` is not a setting. Did you mean `prices`"),
        ("", r"`prices` is missing"),
        ("prices: [", r"is not valid YAML"),
    ],
)
def test_mistakes_in_the_price_table_are_reported_with_line_and_key(tmp_path, text, expected):
    (tmp_path / "prices.yaml").write_text(text)
    with pytest.raises(UsageError, match=expected):
        read_prices(tmp_path / "prices.yaml")


def test_gpus_come_from_nvidia_smi_and_none_is_no_error(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\n[ "$1" = --query-gpu=name ] && printf "NVIDIA L4\\nNVIDIA L4\\n"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert limits.gpus() == ["NVIDIA L4", "NVIDIA L4"]
    tool.write_text("#!/bin/sh\necho broken driver; exit 9\n")
    assert limits.gpus() == []
    tool.unlink()
    assert limits.gpus() == []
