"""The sums of a validation: the correlation of each column, whatever its scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.domains.brain.moments import correlations_of, sums_of


def means(predicted: torch.Tensor, measured: torch.Tensor, weight: torch.Tensor) -> dict[str, np.ndarray]:
    return {name: (total / count).numpy() for name, (total, count) in sums_of(predicted, measured, weight).items()}


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_correlations_do_not_depend_on_the_scale(scale):
    predicted, measured = torch.randn(2, 3, 2, 40, 5, generator=torch.Generator().manual_seed(0))
    measured = measured + 20  # as raw BOLD is far from 0
    weight = torch.ones(3, 2, 40)
    weight[0, 1] = 0  # a subject who is absent from a window
    found = correlations_of(means(scale * predicted, scale * measured, weight)).reshape(2, 5)
    for subject in range(2):
        some = [number for number in range(3) if weight[number, subject].any()]
        p, y = (of[some, subject].reshape(-1, 5).double().numpy() for of in (predicted, measured))
        expected = [np.corrcoef(p[:, column], y[:, column])[0, 1] for column in range(5)]
        assert found[subject] == pytest.approx(expected, abs=1e-3)


def test_a_constant_column_has_no_correlation_whatever_its_rounding():
    measured = torch.randn(1, 1, 60, 3, generator=torch.Generator().manual_seed(0))
    constant = torch.full_like(measured, 812.3)
    for pair in ((constant, measured), (measured, constant)):
        assert not correlations_of(means(*pair, torch.ones(1, 1, 60))).any()
