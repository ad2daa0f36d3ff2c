"""Evaluation per kind of recording: the model is the same in all rows, the baseline is not."""

from __future__ import annotations

from benchmarks.music import by_folder
from tests.domains.music.corpora import EMOTIONS, make_corpus
from training.cli import main


def test_each_folder_is_compared_with_baselines_fitted_on_all_songs_and_on_its_own(tmp_path, capsys):
    out, roots = tmp_path / "out", make_corpus(tmp_path / "music", 12)
    data = ["--audio-root", str(roots / "audio"), "--midi-root", str(roots / "midi"), "--out", str(out)]
    assert main(["prepare", *data, "--val-split", "0.5"]) == 0
    assert main(["train", "spectocloud", *data, "--preset", "debug", "--device", "cpu"]) == 0
    capsys.readouterr()
    found = by_folder.judged(out)
    assert set(found) == {(folder, known) for folder in EMOTIONS for known in ("all", f"{folder}/")}
    assert sum(found[folder, "all"][0] for folder in EMOTIONS) == 6
    for folder in EMOTIONS:
        all_, own = (found[folder, known][1]["pos_loss"] for known in ("all", f"{folder}/"))
        assert all_["model"] == own["model"]
        assert all_["baselines"]["mean_cloud"]["value"] != own["baselines"]["mean_cloud"]["value"]
