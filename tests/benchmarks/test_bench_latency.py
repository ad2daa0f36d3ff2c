"""Bar 7 is measured on files of the project's export, and the bound sessions compute the same as plain ones."""

import numpy as np

from benchmarks.music import latency
from training.export import proof


def test_a_call_goes_from_the_waveform_to_the_cloud(tmp_path):
    frontend, model, _ = latency.export("demo", tmp_path / "files", latency.TINY)
    host = latency.Host(frontend, model)
    host.call()
    heard = proof.session(frontend)({"waveform": latency.sound()})
    given = {name: value.numpy() for name, value in host.given.items()}
    want = proof.session(model)(heard | given)
    assert np.std(heard["spectrogram"]) > 0.1
    for name, value in host.cloud.items():
        np.testing.assert_allclose(value.numpy(), want[name], atol=1e-5)
    row = latency.timed("7z", "tiny", host, calls=20, warm_up=1)
    assert 0 < row.spread["least"] <= row.spread["p50"] <= row.spread["p99"] == row.ours <= row.spread["most"]
    assert row.met == (row.ours <= latency.BUDGET)
