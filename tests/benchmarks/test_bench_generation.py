"""The implementations that bar 6 compares compute the same logits, from files of the project's export."""

import numpy as np
import pytest

from benchmarks.music import generation
from training.domains.music.midi_generator.generate import torch_step


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return generation.export(tmp_path_factory.mktemp("exported"), generation.TINY)


def test_all_sides_compute_the_same_logits(files):
    model, full, step, int8 = files
    ids = np.random.default_rng(1).integers(0, 384, (1, 12))
    wanted = generation.write(torch_step(model), ids)
    for side in (generation.onnx_step(step), generation.uncached(full)):
        np.testing.assert_allclose(generation.write(side, ids), wanted, atol=1e-4)
    rounded = generation.write(generation.onnx_step(int8), ids)
    assert np.abs(rounded - wanted).max() < 0.2 * np.abs(wanted).max()


def test_rows_are_measured(files, monkeypatch):
    monkeypatch.setattr(generation, "export", lambda *_: files)
    rows = generation.measure(small=True)
    assert [row.bar for row in rows] == ["6a", "6b", "6c", "6d"]
    assert all(row.ours > 0 and row.reference > 0 for row in rows)
    assert rows[-1].wanted == "stated" and "prompt of 16" in rows[-1].note
