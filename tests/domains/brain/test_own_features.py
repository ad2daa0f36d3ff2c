"""The user's own features: files, times, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.domains.brain import test_autoencoder, test_decoding
from tests.domains.brain.conftest import SETTINGS, VOLUMES, job_of, options_of
from training.data.summary import summary_of
from training.domains.brain import places
from training.domains.brain.autoencoder.recipe import AutoencoderRecipe
from training.domains.brain.decoding.recipe import DecodingRecipe
from training.domains.brain.encoding.recipe import EncodingRecipe
from training.domains.brain.features.bank import Bank, joined
from training.domains.brain.prepare import prepare
from training.domains.brain.rows import STIMULUS_PATH
from training.domains.brain.stimulus import bins, own
from training.domains.brain.stimulus.bins import Stimulus
from training.domains.brain.stimulus.own import Own
from training.errors import DataError
from training.recipe import TrainingProgress


def read(path):
    return own.bands_of(path, own.decode(path))


def test_each_format_gives_the_same_bands(tmp_path):
    values, times = np.arange(12.0).reshape(6, 2) / 7, np.arange(6) * 0.5
    np.save(tmp_path / "depth.npy", values)
    np.savez(tmp_path / "more.npz", **{"Layer 3": values, "faces": values[:, 0]}, times=times)
    lines = [f"{at};{a!r};{b!r}" for at, (a, b) in zip(times.tolist(), values.tolist(), strict=True)]
    (tmp_path / "table.csv").write_text("\ufeffTime;a;b\n" + "\n".join(lines) + "\n")
    (tmp_path / "plain.tsv").write_text("\n".join(f"{a!r}\t{b!r}" for a, b in values.tolist()))
    found = {band.band: band for path in own.files_of(tmp_path) for band in read(path)}
    assert set(found) == {"depth", "layer_3", "faces", "table", "plain"}
    for name, band in found.items():
        expected = values[:, :1] if name == "faces" else values
        assert band.values == pytest.approx(expected, abs=1e-6), name
        assert (band.times is None) == (name in ("depth", "plain")), name
        assert band.times is None or band.times.tolist() == times.tolist()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "time,x\n0,1\n1,no\n", "line 3, column x: 'no' is no number"),
        ("a.csv", "time,x\n0,1\n1,2,3\n", "line 3 has 3 cells, the first line 2"),
        ("a.csv", "time,x\n0,1\n2,1\n1,1\n", "go back at row 3"),
        ("a.tsv", "x\ty\n1\t2\nnan\t3\n", "row 2, column 1 is NaN or infinite"),
        ("a.npy", np.array([{"a": 1}], object), "without pickle"),
        ("a.npy", np.zeros((2, 3, 4)), "has the shape 2x3x4: it should be rows x columns"),
        ("a.npy", np.array(["x", "y"]), "numbers are needed"),
        ("a.npy", b"\x00\x01", "cannot be read by numpy"),
        ("a.mat", b"", "is no table of features"),
    ],
)
def test_a_file_that_is_no_table_is_refused_with_its_place(tmp_path, name, content, message):
    path = tmp_path / name
    if isinstance(content, np.ndarray):
        np.save(path, content, allow_pickle=True)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match=message):
        own.decode(path)


def test_times_become_the_means_of_volumes_and_gaps_are_interpolated(tmp_path):
    times = np.array([0.0, 0.4, 0.9, 1.1, 4.5])
    band = Own(tmp_path / "a.csv", "a", np.array([[1.0], [2], [3], [10], [44]], np.float32), times)
    out = band.binned(4, 1.0, 0.0, 0, "1")[:, 0]
    assert out.tolist() == pytest.approx([2, 10, 10 + 34 * 1.4 / 3.4, 10 + 34 * 2.4 / 3.4])
    assert band.binned(3, 1.0, 1.0, 0, "2")[0, 0] == pytest.approx(10)
    with pytest.raises(DataError, match=r"times from 0 to 4.5 s, and run 2 shows 2 to 12 s"):
        band.binned(10, 1.0, 2.0, 0, "2")


def test_rows_without_times_are_the_volumes_of_the_runs(tmp_path):
    band = Own(tmp_path / "a.npy", "a", np.arange(10, dtype=np.float32)[:, None], None)
    band.check_rows({"1": (9, 10)})
    band.check_rows({"1": (4, 5), "2": (6, 6)})
    assert band.binned(6, 1.5, 90.0, 4, "2")[:, 0].tolist() == [4, 5, 6, 7, 8, 9]
    with pytest.raises(DataError, match=r"a has 10 rows without times, and run 1 has 4, run 2 has 7 volumes"):
        band.check_rows({"1": (4, 4), "2": (7, 7)})


def test_a_name_that_the_film_has_is_refused(tmp_path):
    values = np.zeros((2, 1), np.float32)
    with pytest.raises(DataError, match="a band of the film is called words too"):
        own.check_names([Own(tmp_path / "words.npy", "words", values, None)])
    with pytest.raises(DataError, match=r"a.npy and .*a.csv both have a band a"):
        own.check_names([Own(tmp_path / name, "a", values, None) for name in ("a.npy", "a.csv")])


def test_a_wide_band_becomes_components_of_its_training_rows():
    random = np.random.default_rng(0)
    wide = (random.standard_normal((200, 3)) @ random.standard_normal((3, 300))).astype(np.float32)
    bank = Bank.fitted([Stimulus(1.5, 0.0, {"net": wide, "motion": wide[:, :2]})], [np.arange(150)])
    assert bank.bands == ("motion", "net") and bank.widths == {"motion": 2, "net": 3}
    features = joined(bank(Stimulus(1.5, 0.0, {"net": wide, "motion": wide[:, :2]})))
    assert features[:150].std(0) == pytest.approx(1, abs=1e-3)
    again = Bank.of(bank.arrays())
    assert again.bands == bank.bands and np.array_equal(again.projection["net"], bank.projection["net"])


def test_own_features_are_a_band_of_the_stimulus(laboratory, prepared, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "cache").symlink_to(prepared[0].workspace.cache)
    values = np.random.default_rng(0).standard_normal((VOLUMES, 5)).astype(np.float32)
    np.save(tmp_path / "my net.npy", values)
    job, _ = job_of(tmp_path, **options_of(laboratory), features=tmp_path / "my net.npy")
    prepare(job)
    assert summary_of(job.workspace)["bands"] == ["motion", "my_net", "pixels", "sound", "words"]
    assert any("features my_net (my net.npy): 5 columns" in note for note in summary_of(job.workspace)["notes"])
    stimulus = bins.of(bins.decode(places.stimulus_path(job.workspace, "1")))
    assert np.array_equal(stimulus.bands["my_net"], values)
    options = {name: value for name, value in options_of(laboratory).items() if name == "fmri"}
    prepare(job_of(tmp_path, **options, features=tmp_path / "my net.npy")[0])  # without a film
    assert summary_of(job.workspace)["bands"] == ["my_net"]
    np.save(tmp_path / "short.npy", values[:-9])
    with pytest.raises(DataError, match=r"short.npy: short has 291 rows without times, and run 1 has 300"):
        prepare(job_of(tmp_path, **options, features=tmp_path / "short.npy")[0])


@pytest.mark.parametrize(
    "recipe",
    [EncodingRecipe(SETTINGS), AutoencoderRecipe(test_autoencoder.SETTINGS), DecodingRecipe(test_decoding.SETTINGS)],
    ids=lambda recipe: recipe.family,
)
def test_every_family_trains_on_an_own_band_and_names_it_in_its_files(splits, recipe):
    net = np.random.default_rng(0).standard_normal((VOLUMES, 4)).astype(np.float32)
    rows = [
        replace(row, records={**row.records, STIMULUS_PATH: {**dict(row.records[STIMULUS_PATH]), "net": net}})
        for row in splits["train"]
    ]  # fmt: skip
    model = recipe.build(recipe.fit_constants(rows))
    assert model.features.bands == ("pixels", "motion", "sound", "words", "net")
    dataset = recipe.dataset(rows, training=True)
    losses = recipe.losses(model, dataset.collate([dataset.item(0, 0)]), TrainingProgress(0, 1))
    assert all(torch.isfinite(loss.total) for loss in losses.values())
    named = {spec.name: spec for graph in recipe.graphs(model) for spec in (*graph.inputs, *graph.outputs)}
    assert "net" in named["net"].meaning and named["net"].shape == ("time", 4)
    graph = recipe.graphs(model)[0]
    assert all(np.isfinite(np.asarray(part)).all() for part in graph.example({"time": 3}, 0))
