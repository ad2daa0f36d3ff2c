"""Formats of durations, sizes and rates."""

import subprocess
import sys

import pytest

from training.units import duration, rate, size


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00:00"), (61, "0:01:01"), (3723, "1:02:03"), (360000, "100:00:00")]
)
def test_a_duration_has_hours_minutes_and_seconds(seconds, text):
    assert duration(seconds) == text


def test_an_endless_duration_is_no_limit():
    assert duration(float("inf")) == "no limit"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 kB"), (4123, "4.12 kB"), (123_456, "123 kB"), (21_300_000, "21.3 MB"), (1.5e9, "1.5 GB"),
        (1_234e9, "1,234 GB"),
    ],
)  # fmt: skip
def test_a_size_has_three_digits_and_never_an_exponent(count, text):
    assert size(count) == text


def test_a_rate_below_one_step_per_second_is_shown_as_seconds_per_step():
    assert (rate(0.12), rate(2.1)) == ("8.33 steps/s", "2.1 s a step")


def test_supervisor_units_and_host_import_only_the_standard_library():
    """They run before an environment with other packages exists."""
    code = (
        "import sys; before = set(sys.modules); import training.units, training.host, training.runner.supervisor\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - set(sys.stdlib_module_names) - {'training'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
