"""The programming interface and scripts/train.py: what is typed works, every key acts, and what cannot be is refused.

`python -m pytest tests/test_training.py::TestLossFunctions` and `::TestTrainer` run the parts.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from torch.utils.data import Dataset

from giblet.data.dataset import SherlockDataset
from giblet.models.autoencoder import create_autoencoder
from giblet.training import (
    CombinedAutoEncoderLoss,
    FMRIMatchingLoss,
    ReconstructionLoss,
    Trainer,
    TrainingConfig,
    cleanup_distributed,
    setup_distributed,
)
from tests.domains.brain import guide_code
from training.domains.brain.demo.making import write_world
from training.domains.brain.demo.world import simulate
from training.errors import DataError, UsageError

PROJECT = Path(__file__).resolve().parents[1]
NOISE = torch.randn(40, 18, generator=torch.Generator().manual_seed(0))
KEYS = tuple(one.name for one in dataclasses.fields(TrainingConfig))
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def script():
    spec = importlib.util.spec_from_file_location("train_script", PROJECT / "scripts" / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestLossFunctions:
    video, audio, text, fmri = torch.split(NOISE, [6, 4, 3, 5], 1)

    def test_reconstruction_is_the_weighted_sum_of_mean_squared_errors(self):
        loss, parts = ReconstructionLoss(video_weight=2.0, audio_weight=3.0, text_weight=0.0)(
            self.video + 1, self.video, self.audio + 2, self.audio, self.text + 9, self.text
        )
        assert float(loss) == pytest.approx(2 * 1 + 3 * 4)
        assert {name: float(part) for name, part in parts.items()} == pytest.approx(
            {"video_loss": 1, "audio_loss": 4, "text_loss": 81, "reconstruction_loss": 14}
        )

    @pytest.mark.parametrize(("kind", "expected"), [("mse", 4), ("mae", 2), ("correlation", 0)])
    def test_fmri_matching_of_a_shifted_prediction(self, kind, expected):
        assert float(FMRIMatchingLoss(loss_type=kind)(self.fmri + 2, self.fmri)) == pytest.approx(expected, abs=1e-5)

    def test_the_correlation_is_over_volumes_so_that_a_constant_has_none(self):
        raw = self.fmri + 1_000 * torch.arange(1, 6)
        constant = raw.mean(0, keepdim=True).expand_as(raw)
        assert float(FMRIMatchingLoss("correlation")(constant, raw)) == pytest.approx(1, abs=1e-3)
        with pytest.raises(UsageError, match="two volumes"):
            FMRIMatchingLoss("correlation")(raw[:1], raw[:1])

    def test_the_combined_loss_weighs_both(self):
        outputs = {"video_recon": self.video + 1, "audio_recon": self.audio, "text_recon": self.text,
                   "predicted_fmri": self.fmri + 3}  # fmt: skip
        loss = CombinedAutoEncoderLoss(reconstruction_weight=0.5, fmri_weight=2.0)
        total, parts = loss(outputs, self.video, self.audio, self.text, self.fmri)
        assert float(total) == pytest.approx(0.5 * 1 + 2 * 9) and float(parts["total_loss"]) == float(total)
        without, parts = loss(outputs, self.video, self.audio, self.text)
        assert float(without) == pytest.approx(0.5) and "fmri_loss" not in parts

    def test_an_unknown_loss_is_refused(self):
        with pytest.raises(UsageError, match="mse, mae, correlation"):
            FMRIMatchingLoss("cosine")


class Volumes(Dataset):
    """Volumes whose BOLD is a linear function of the video."""

    def __init__(self, number: int, seed: int = 0):
        self.video = torch.randn(number, 4, generator=torch.Generator().manual_seed(seed))
        self.map = torch.randn(4, 5, generator=torch.Generator().manual_seed(9))

    def __len__(self):
        return len(self.video)

    def __getitem__(self, index):
        video = self.video[index]
        return {"video": video, "audio": video[:2], "text": video[2:], "fmri": video @ self.map, "tr_index": index}


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.out = nn.Linear(4, 13)

    def forward(self, video, audio, text):
        parts = torch.split(self.out(video), [4, 2, 2, 5], 1)
        return dict(zip(("video_recon", "audio_recon", "text_recon", "predicted_fmri"), parts, strict=True))


def config(folder: Path, **changes) -> TrainingConfig:
    base = {"num_epochs": 3, "batch_size": 8, "num_workers": 0, "warmup_epochs": 0, "learning_rate": 0.05,
            "checkpoint_dir": str(folder / "checkpoints"), "log_dir": str(folder / "logs")}  # fmt: skip
    return TrainingConfig(**{**base, "save_every": 1, **changes})


def train(folder: Path, **changes) -> tuple[Own, dict]:
    model = Own()
    return model, Trainer(model, Volumes(24), Volumes(10, seed=1), config(folder, **changes)).train()


#: Key -> another value. Each changes the weights, the evaluations or the files of a small run.
ACTING = {
    "learning_rate": 0.01, "batch_size": 4, "num_epochs": 2, "weight_decay": 0.5, "reconstruction_weight": 3.0,
    "fmri_weight": 3.0, "video_weight": 3.0, "audio_weight": 3.0, "text_weight": 3.0, "fmri_loss_type": "mae",
    "scheduler_type": "none", "warmup_epochs": 2, "min_lr": 0.04, "gradient_clip_val": 0.01, "save_every": 2,
    "validate_every": 2, "early_stopping_patience": 1,
}  # fmt: skip


class TestTrainer:
    def test_a_module_and_a_data_set_of_ones_own_are_trained(self, tmp_path):
        model, history = train(tmp_path)
        losses = [one["loss"] for one in history["train_history"]]
        assert len(losses) == 3 and losses[-1] < 0.8 * losses[0]
        assert history["best_val_loss"] == min(one["val_loss"] for one in history["val_history"]) < losses[0]
        names = {path.name for path in (tmp_path / "checkpoints").glob("*.pt")}
        assert {"checkpoint_epoch_1.pt", "checkpoint_epoch_2.pt", "best_checkpoint.pt", "final_checkpoint.pt"} <= names
        trained = torch.load(tmp_path / "checkpoints" / "best_checkpoint.pt", weights_only=True)
        assert torch.equal(trained["model"]["out.weight"], model.out.weight)
        assert {"optimizer", "scaler", "settings", "metrics", "progress"} <= trained.keys()
        (log,) = (tmp_path / "logs").glob("*/log.txt")
        assert "step 9/9" in log.read_text()

    def test_a_module_is_in_the_mode_of_what_is_done_with_it(self, tmp_path):
        """Dropout acts in steps and not in evaluations, and the trained model is ready for use."""
        modes = set()

        class Watched(Own):
            def forward(self, *parts):
                modes.add((torch.is_grad_enabled(), self.training))
                return super().forward(*parts)

        model = Watched()
        Trainer(model, Volumes(24), Volumes(10, seed=1), config(tmp_path, num_epochs=2)).train()
        assert modes == {(True, True), (False, False)} and not model.training

    def test_a_checkpoint_continues_to_the_same_weights(self, tmp_path):
        complete, _ = train(tmp_path / "complete")
        copy = tmp_path / "epoch_1.pt"
        copy.write_bytes((tmp_path / "complete" / "checkpoints" / "checkpoint_epoch_1.pt").read_bytes())
        resumed, _ = train(tmp_path / "resumed", resume_from=str(copy))
        assert torch.equal(resumed.out.weight, complete.out.weight)

    @pytest.fixture(scope="class")
    def before(self, tmp_path_factory):
        return self.outcome(tmp_path_factory.mktemp("before"))

    def outcome(self, folder, **changes):
        # a large delta: nothing counts as an improvement, so that patience acts
        model, history = train(folder, **{"early_stopping_delta": 1e3, **changes})
        files = sorted(path.name for path in (folder / "checkpoints").glob("*.pt"))
        return model.out.weight.detach().numpy().tobytes(), len(history["val_history"]), files

    @pytest.mark.parametrize("key", ACTING)
    def test_every_key_acts(self, tmp_path, before, key):
        assert self.outcome(tmp_path, **{key: ACTING[key]}) != before

    def test_an_improvement_below_the_delta_is_none(self, tmp_path):
        _, history = train(tmp_path, early_stopping_patience=1, early_stopping_delta=1e3)
        _, other = train(tmp_path / "other", early_stopping_patience=1, early_stopping_delta=0.0)
        assert len(history["val_history"]) < len(other["val_history"])

    def test_keys_of_the_engine_reach_it(self):
        settings = TrainingConfig(num_workers=3, use_mixed_precision=True).settings("cuda", windows=True)
        assert settings["data"]["num_workers"] == 3 and settings["training"]["amp"]
        assert not TrainingConfig(use_mixed_precision=False).settings("cuda", windows=True)["training"]["amp"]
        assert TrainingConfig(batch_size=256).settings("cpu", windows=True)["data"]["batch_size"] == 4

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"scheduler_type": "step"}, "Use cosine or none"),
            ({"scheduler_type": "linear"}, "cosine, step, none"),
            ({"pin_memory": False}, "pins batches"),
            ({"min_lr": 1.0}, "above learning_rate"),
            ({"num_epochs": 0}, "at least 1"),
            ({"batch_size": 1.5}, "should be int"),
            ({"use_mixed_precision": 1}, "should be bool"),
            ({"fmri_loss_type": "cosine"}, "mse, mae, correlation"),
        ],
    )
    def test_what_cannot_be_is_refused(self, changes, message):
        with pytest.raises(UsageError, match=message):
            TrainingConfig(**changes)

    def test_every_key_is_proved_in_this_file(self):
        proved = {*ACTING, "early_stopping_delta", "num_workers", "use_mixed_precision", "pin_memory",
                  "checkpoint_dir", "log_dir", "resume_from"}  # fmt: skip
        assert proved == set(KEYS)


class TestProcesses:
    def test_a_rank_of_torchrun_comes_before_a_local_one(self, monkeypatch):
        for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("RANK", "9")
        monkeypatch.setenv("WORLD_SIZE", "16")
        setup_distributed(rank=1, world_size=16)
        import os

        assert (os.environ["RANK"], os.environ["LOCAL_RANK"], os.environ["MASTER_ADDR"]) == ("9", "1", "localhost")
        cleanup_distributed()
        assert os.environ["RANK"] == "9" and "MASTER_ADDR" not in os.environ
        with pytest.raises(UsageError, match="16 processes were started"):
            setup_distributed(rank=1, world_size=8)

    def test_a_trainer_of_other_processes_than_were_started_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        with pytest.raises(UsageError, match="torchrun --nproc_per_node=8"):
            Trainer(Own(), Volumes(4), Volumes(4), config(tmp_path), distributed=True, world_size=8)


@pytest.fixture(scope="module")
def sherlock(tmp_path_factory) -> Path:
    """A folder as that of the Sherlock data, of a simulated film and three subjects."""
    folder = tmp_path_factory.mktemp("sherlock") / "data"
    world = simulate(260, 3, 5, side=7)
    write_world(folder, world)
    (folder / "film.mp4").rename(folder / "stimuli_Sherlock.mp4")
    (folder / "words.tsv").rename(folder / "annotations.tsv")
    (folder / "bold").rename(folder / "sherlock_nii")
    (folder / "mask.nii.gz").unlink()
    SherlockDataset(folder)  # prepared, for the tests that read it as it is
    return folder


@pytest.fixture
def typing(sherlock, tmp_path, monkeypatch) -> Path:
    """The current folder, with data/ and scripts/ in it."""
    shutil.copytree(sherlock, tmp_path / "data", ignore=shutil.ignore_patterns("prepared"))
    (tmp_path / "scripts").symlink_to(PROJECT / "scripts")
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestSherlock:
    def test_items_are_volumes_of_the_split(self, sherlock):
        train_set, val_set = (SherlockDataset(sherlock, split=split) for split in ("train", "val"))
        item = train_set[0]
        assert item["video"].shape == (2304,) and item["audio"].shape == (32,) and item["video"].min() >= 0
        assert item["fmri"].shape == (len(train_set.rows.voxels),) and item["subject_id"] == 1
        every = np.stack([train_set[number]["fmri"] for number in range(len(train_set) // 3)])
        assert abs(every.mean()) < 0.05 and every.std() == pytest.approx(1, abs=0.05)
        volumes = {(one["subject_id"], one["tr_index"]) for one in (val_set[n] for n in range(len(val_set)))}
        assert len(volumes) == len(val_set) and {subject for subject, _ in volumes} == {1, 2, 3}
        assert not volumes & {
            (one["subject_id"], one["tr_index"]) for one in (train_set[n] for n in range(len(train_set)))
        }

    def test_subjects_response_and_mode_act(self, sherlock):
        two = SherlockDataset(sherlock, subjects=[1, 3], preprocess=False)
        every = SherlockDataset(sherlock, preprocess=False)
        assert {two[number]["subject_id"] for number in range(len(two))} == {1, 2} and len(two) * 3 == len(every) * 2
        plain = SherlockDataset(sherlock, apply_hrf=False, preprocess=False)
        assert not torch.allclose(plain[30]["video"], every[30]["video"])
        mean = SherlockDataset(sherlock, mode="cross_subject", preprocess=False)
        assert len(mean) * 3 == len(every) and mean[0]["subject_id"] == 0
        at = [one["fmri"] for one in (every[n] for n in range(len(every))) if one["tr_index"] == mean[0]["tr_index"]]
        assert torch.allclose(mean[0]["fmri"], torch.stack(at).mean(0), atol=1e-5)

    def test_the_test_split_and_folders_without_data_are_refused(self, sherlock, tmp_path):
        with pytest.raises(UsageError, match="sealed"):
            SherlockDataset(sherlock, split="test")
        with pytest.raises(DataError, match=r"no folder with \.nii"):
            SherlockDataset(tmp_path)
        with pytest.raises(UsageError, match="the data have 01, 02, 03"):
            SherlockDataset(sherlock, subjects=[7], preprocess=False)

    @pytest.mark.parametrize(
        "named", [{"video_height": 90}, {"audio_mels": 128}, {"video_features": 1024}, {"use_encodec": True},
                  {"audio_frames_per_tr": 65}, {"text_features": 256}, {"audio_features": 256}, {"video_width": 160}]
    )  # fmt: skip
    def test_arguments_without_a_counterpart_are_refused_by_name(self, named):
        with pytest.raises(UsageError, match=next(iter(named))):
            create_autoencoder(**named)

    def test_the_script_trains_in_two_processes_and_in_one(self, typing, capsys):
        own = yaml.safe_load((PROJECT / "examples" / "train_config.yaml").read_text())
        own |= {"num_epochs": 2, "num_workers": 0, "save_every": 1}
        own["model"] = {"bottleneck_dim": 6, "decoder_hidden_dim": 8, "decoder_dropout": 0.0}
        (typing / "examples").mkdir()
        (typing / "examples" / "train_config.yaml").write_text(yaml.safe_dump(own))
        command = "torchrun --nproc_per_node=2 scripts/train.py --config examples/train_config.yaml --distributed"
        words = shlex.split(command.replace("torchrun", str(Path(sys.executable).with_name("torchrun"))))
        done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, **ONE_THREAD})
        assert done.returncode == 0, done.stderr
        assert "float32 on CPU x 2" in done.stdout and done.stdout.count("Best validation loss: ") == 1
        assert "step 1/" in done.stdout
        folder = typing / own["checkpoint_dir"]
        names = {"best_checkpoint.pt", "final_checkpoint.pt", "checkpoint_epoch_1.pt", "checkpoint_epoch_2.pt"}
        assert names <= {one.name for one in folder.glob("*.pt")}
        assert script().run(["--config", "examples/train_config.yaml", "--distributed"]) == 0
        assert "is one process" in capsys.readouterr().out and "WORLD_SIZE" not in os.environ

    def test_what_the_guide_shows_runs_as_it_is_typed(self, typing, capsys):
        """The blocks of code, one after the other, with the names that those before them leave."""
        known: dict[str, object] = {"local_rank": 0, "world_size": 1}
        exec(guide_code.QUICK_START, known)
        assert known["history"].keys() == {"best_val_loss", "train_history", "val_history"}
        assert len(known["history"]["val_history"]) > 1 and known["model"].get_parameter_count()["total"] > 0
        folder = typing / "checkpoints"
        assert {"best_checkpoint.pt", "final_checkpoint.pt"} <= {one.name for one in folder.glob("*.pt")}
        early = shutil.copy(folder / "checkpoint_epoch_5.pt", folder / "checkpoint_epoch_50.pt")  # it stops before 50
        step = torch.load(early, weights_only=True)["progress"]["step"]
        exec(guide_code.RESUME, known)
        assert f"resumed at step {step} of" in capsys.readouterr().out
        exec(guide_code.TRAINER, known)
        assert "Best validation loss: " in capsys.readouterr().out
        before = dict(os.environ)
        exec(guide_code.BY_HAND, known)
        assert dict(os.environ) == before
        exec(guide_code.LOSSES, known | {name: torch.randn(4, 3) for name in guide_code.LOSSES_TAKE})
        exec(guide_code.PREPARING, known)
        assert re.fullmatch(r"Train: [1-9]\d*, Val: [1-9]\d*", capsys.readouterr().out.splitlines()[-1])

    def test_the_model_has_its_weights_after_training(self, sherlock, tmp_path):
        model = create_autoencoder(bottleneck_dim=4, decoder_hidden_dim=8, n_voxels=None)
        with pytest.raises(UsageError, match="no weights yet"):
            model.get_parameter_count()
        sets = [SherlockDataset(sherlock, split=split, preprocess=False) for split in ("train", "val")]
        done = Trainer(model, *sets, config(tmp_path, num_epochs=1, batch_size=128)).train()
        counts = model.get_parameter_count()
        assert counts["total"] == counts["encoder"] + counts["decoder"] and counts["decoder"] > 0
        assert done["best_val_loss"] <= done["val_history"][0]["val_loss"]

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda a, b: (create_autoencoder(n_voxels=85_810), a, b), "n_voxels=85810, and the data have"),
            (lambda a, b: (create_autoencoder(), b, a), "of the split val"),
            (lambda a, b: (create_autoencoder(), Volumes(3), b), "needs SherlockDatasets"),
        ],
    )
    def test_models_and_data_that_do_not_fit_are_refused(self, sherlock, tmp_path, make, message):
        sets = [SherlockDataset(sherlock, split=split, preprocess=False) for split in ("train", "val")]
        with pytest.raises(UsageError, match=message):
            Trainer(*make(*sets), config(tmp_path))


class TestConfiguration:
    def test_the_configuration_of_the_guide_is_read_as_it_is(self, tmp_path):
        path = tmp_path / "train_config.yaml"
        path.write_text(guide_code.CONFIGURATION)
        found, sections = script().sections_of(path)
        assert found == TrainingConfig() and not any(sections.values())

    def test_the_example_names_every_key_and_is_valid(self):
        path = PROJECT / "examples" / "train_config.yaml"
        found, sections = script().sections_of(path)
        assert found == TrainingConfig(checkpoint_dir="checkpoints/sherlock")
        assert set(KEYS) <= yaml.safe_load(path.read_text()).keys() and set(sections) == {
            "data",
            "model",
            "distributed",
        }

    @pytest.mark.parametrize(
        ("text", "message"),
        [("learning_rat: 1", "did you mean `learning_rate`"), ("data:\n  data_dirr: x", "did you mean `data_dir`"),
         ("model: 3", "`model` should hold keys"), ("num_epochs: many", "num_epochs should be int")],
    )  # fmt: skip
    def test_faulty_files_are_refused_with_the_key(self, tmp_path, text, message):
        path = tmp_path / "c.yaml"
        path.write_text(text)
        with pytest.raises(UsageError, match=message):
            script().sections_of(path)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-v"]))
