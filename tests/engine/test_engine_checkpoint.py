"""A checkpoint is intact or absent, whatever interrupts a save."""

import functools
import json
import os
import random
import shutil
from pathlib import Path

import pytest
import torch

from tests.engine import toy
from training.engine.checkpoints import checkpoint_file, checkpoint_folder, index
from training.engine.checkpoints.checkpoint_folder import CheckpointFolder
from training.engine.checkpoints.index import BEFORE_LAST, BEST, FORMAT, INDEX, LAST, epoch_name
from training.engine.step.ema import EMA
from training.errors import HostError, TrainingError, UsageError


def state(number):
    return {"format": FORMAT, "family": "toy", "model": {"w": torch.full((500,), float(number))}}


def put(folder, number, names=(), value=None):
    entry = {"step": number, "epoch": number, "value": value, "run_id": "r"}
    return CheckpointFolder(folder).save(state(number), entry, names)


def number_in(path):
    return int(checkpoint_file.read(path)["model"]["w"][0])


PHASES = ["torch.save", "os.fsync", "Path.replace", "os.link"]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("call", [1, 2, 3, 4, 5])
def test_a_process_killed_inside_a_save_leaves_verified_checkpoints(tmp_path, phase, call):
    """Before and after each write, fsync, rename and link of a save: the newest and the best are intact, old or new."""
    put(tmp_path, 1, [BEST], 0.5)
    put(tmp_path, 2, [], 0.6)
    for moment in ("before", "after"):
        shutil.copytree(tmp_path, copy := tmp_path.with_name(f"{tmp_path.name}-{moment}"))
        killed(copy, 3, [BEST, epoch_name(3)], 0.4, phase, call, moment)
        assert number_in(CheckpointFolder(copy).latest()) in (2, 3)
        assert number_in(CheckpointFolder(copy).best()) in (1, 3)
        assert CheckpointFolder(copy).best().name == BEST
        CheckpointFolder(copy).sweep()
        put(copy, 4)
        assert number_in(CheckpointFolder(copy).latest()) == 4
        assert {path.suffix for path in copy.iterdir()} == {".pt", ".json"}


def die_at(phase, call, moment):
    """End the process, as SIGKILL would, before or after the `call`-th call of the function `phase`."""
    where, name = phase.split(".")
    owner = {"torch": torch, "os": os, "Path": Path}[where]
    real, left = getattr(owner, name), [call]

    def mortal(*arguments, **options):
        left[0] -= 1
        if left[0] == 0 and moment == "before":
            os._exit(9)
        result = real(*arguments, **options)
        if left[0] == 0:
            os._exit(9)
        return result

    setattr(owner, name, mortal)


def killed(folder, number, names, value, *where):
    """Save `number` in a child process that is killed at `where` (phase, call, moment)."""
    child = os.fork()
    if child == 0:
        die_at(*where)
        put(folder, number, names, value)
        os._exit(0)
    os.waitpid(child, 0)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_second_kill_after_a_first_leaves_verified_checkpoints(tmp_path, call, moment):
    """An unlisted last.pt of a killed save must not replace the verified checkpoint before it."""
    put(tmp_path, 1)
    put(tmp_path, 2)
    killed(tmp_path, 3, [], None, "Path.replace", 2, "after")  # last.pt is 3, and not listed
    assert number_in(CheckpointFolder(tmp_path).latest()) == 2
    CheckpointFolder(tmp_path).sweep()
    killed(tmp_path, 4, [], None, "Path.replace", call, moment)
    assert number_in(CheckpointFolder(tmp_path).latest()) in (2, 4)


def test_names_that_a_killed_save_did_not_link_are_linked_at_the_next_start(tmp_path):
    """So the best checkpoint is kept although the process was killed between saving it and linking best.pt."""
    put(tmp_path, 1, [BEST], 0.5)
    killed(tmp_path, 2, [BEST, epoch_name(2)], 0.4, "Path.replace", 3, "after")  # listed as last
    CheckpointFolder(tmp_path).sweep()
    for number in (3, 4, 5):
        put(tmp_path, number, [], 0.9)
    assert number_in(CheckpointFolder(tmp_path).best()) == 2
    assert number_in(tmp_path / epoch_name(2)) == 2


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove"])
def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path, harm):
    """After a flipped bit, a truncation or a deletion the checkpoint before is used; reading the file is refused."""
    put(tmp_path, 1)
    put(tmp_path, 2)
    good = (tmp_path / "last.pt").read_bytes()
    spots = random.Random(1)
    for _ in range(20):
        data = bytearray(good)
        if harm == "flip":
            data[spots.randrange(len(data))] ^= 1 << spots.randrange(8)
        elif harm == "truncate":
            del data[spots.randrange(len(data)) :]
        (tmp_path / "last.pt").unlink()
        if harm != "remove":
            (tmp_path / "last.pt").write_bytes(data)
        assert number_in(CheckpointFolder(tmp_path).latest()) == 1
        with pytest.raises(UsageError, match=r"before_last\.pt"):
            checkpoint_file.read(tmp_path / "last.pt")
        (tmp_path / "last.pt").write_bytes(good)
    assert number_in(CheckpointFolder(tmp_path).latest()) == 2


def test_a_run_that_was_rolled_back_resumes_from_the_rollback(tmp_path):
    """A rollback saves an earlier step than the checkpoint before it; a resume must not undo it."""
    put(tmp_path, 5, [BEST, epoch_name(5)], 0.5)
    put(tmp_path, 9)
    put(tmp_path, 5.5)
    assert CheckpointFolder(tmp_path).latest() == tmp_path / LAST
    (tmp_path / LAST).write_bytes(b"")
    assert number_in(CheckpointFolder(tmp_path).latest()) == 9
    (tmp_path / BEFORE_LAST).write_bytes(b"")
    assert number_in(CheckpointFolder(tmp_path).latest()) == 5


def test_save_times_increase_although_the_clock_is_set_back(tmp_path, monkeypatch):
    times = []
    for now in (1000.0, 500.0, 500.0):
        monkeypatch.setattr(checkpoint_folder.time, "time", lambda now=now: now)
        put(tmp_path, 1)
        times.append(CheckpointFolder(tmp_path).listed()[LAST].saved)
    assert times == sorted(set(times)) and times[0] == 1000


def test_a_damaged_best_checkpoint_is_replaced_by_the_next_best(tmp_path):
    put(tmp_path, 1, [epoch_name(1)], 0.5)
    put(tmp_path, 2, [epoch_name(2)], 0.3)
    put(tmp_path, 3, [BEST], 0.1)
    put(tmp_path, 4, [epoch_name(4)], 0.4)
    put(tmp_path, 5, [], 0.9)
    assert number_in(CheckpointFolder(tmp_path).best()) == 3
    (tmp_path / BEST).write_bytes(b"")
    assert number_in(CheckpointFolder(tmp_path).best()) == 2


def test_a_file_that_the_index_does_not_list_is_ignored(tmp_path):
    put(tmp_path, 1)
    torch.save(state(9), tmp_path / "checkpoint_epoch_9.pt")
    assert number_in(CheckpointFolder(tmp_path).latest()) == 1
    with pytest.raises(UsageError, match="cut short"):
        checkpoint_file.read(tmp_path / "checkpoint_epoch_9.pt")


def test_a_checkpoint_carried_elsewhere_can_be_read(tmp_path):
    shutil.copy(put(tmp_path / "a", 1), tmp_path / "carried.pt")
    assert number_in(tmp_path / "carried.pt") == 1


def test_code_in_a_checkpoint_file_is_never_run(tmp_path):
    """A pickle that would run code is refused."""

    class Planted:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"format": 1, "model": Planted()}, tmp_path / "planted.pt")
    with pytest.raises(UsageError, match="not a readable checkpoint"):
        checkpoint_file.read(tmp_path / "planted.pt")
    assert not (tmp_path / "ran").exists()


def test_retention_keeps_the_newest_and_never_touches_best_and_last(tmp_path):
    put(tmp_path, 1, [BEST, epoch_name(1)], 0.1)
    for number in range(2, 12):
        put(tmp_path, number, [epoch_name(number)], 0.5)
        CheckpointFolder(tmp_path).apply_retention(2)
        assert number_in(tmp_path / BEST) == 1 and number_in(tmp_path / LAST) == number
    epochs = sorted(path.name for path in tmp_path.glob("checkpoint_epoch_*"))
    assert epochs == ["checkpoint_epoch_10.pt", "checkpoint_epoch_11.pt"]
    assert set(CheckpointFolder(tmp_path).listed()) == {path.name for path in tmp_path.glob("*.pt")}


def test_a_run_keeps_the_epochs_it_was_configured_to_keep(tmp_path):
    toy.run(tmp_path, training={"epochs": 7, "save_every": 2, "keep": 2})
    names = {path.name for path in (tmp_path / "checkpoints/toy").glob("*.pt")}
    assert names == {"best.pt", "last.pt", "before_last.pt", "checkpoint_epoch_4.pt", "checkpoint_epoch_6.pt"}
    kept = checkpoint_file.read(tmp_path / "checkpoints/toy/checkpoint_epoch_4.pt")
    assert kept["progress"]["epoch"] == 4


def test_a_file_system_without_hard_links_gets_copies(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    put(tmp_path, 1, [BEST], 0.1)
    put(tmp_path, 2)
    assert number_in(tmp_path / BEST) == 1 == number_in(tmp_path / BEFORE_LAST)
    assert checkpoint_file.listed_entry(tmp_path / BEST)


def test_a_full_disk_leaves_the_old_checkpoint_and_no_temporary_file(tmp_path):
    """Exit 6: /dev/full stands for a full disk."""
    put(tmp_path, 1)
    (tmp_path / f".saving-{os.getpid()}").symlink_to("/dev/full")
    with pytest.raises(HostError, match=r"No space left on device.*the newest of step 1, are untouched") as caught:
        put(tmp_path, 2)
    assert caught.value.exit_code == 6
    assert number_in(CheckpointFolder(tmp_path).latest()) == 1
    assert not list(tmp_path.glob(".saving*"))


def test_the_error_for_a_missing_checkpoint_lists_similar_ones(tmp_path):
    """Exit 2."""
    put(tmp_path / "checkpoints" / "toy", 1)
    with pytest.raises(UsageError, match=r"toy/last\.pt") as caught:
        checkpoint_file.read(tmp_path / "checkpoints" / "toi" / "last.pt")
    assert caught.value.exit_code == 2
    with pytest.raises(UsageError, match="train first"):
        checkpoint_file.read(tmp_path / "nowhere" / "last.pt")


def test_a_broken_index_is_reported(tmp_path):
    put(tmp_path, 1)
    (tmp_path / INDEX).write_text("{")
    with pytest.raises(UsageError, match=r"index\.json cannot be read"):
        CheckpointFolder(tmp_path).latest()


def test_the_index_records_step_epoch_and_value_of_each_file(tmp_path):
    toy.run(tmp_path)
    files = json.loads((tmp_path / "checkpoints/toy/index.json").read_text())["files"]
    assert files["last.pt"]["step"] == 18 and files["last.pt"]["epoch"] == 3
    assert files["best.pt"]["value"] == pytest.approx(
        checkpoint_file.read(tmp_path / "checkpoints/toy/best.pt")["metrics"]["val_loss"]
    )


def test_a_checkpoint_holds_every_key_and_its_provenance(tmp_path):
    """All that a receipt and a resume need."""
    trained = toy.run(tmp_path)
    saved = checkpoint_file.read(trained.best)
    assert set(saved) == {
        "format", "family", "settings", "model", "ema", "constants", "optimizer", "scaler", "progress",
        "early_stopping",
        "metrics", "provenance",
    }  # fmt: skip
    origin = saved["provenance"]
    assert {
        "run_id",
        "data_digest",
        "settings_digest",
        "code_version",
        "seed",
        "synthetic",
        "libraries",
        "hardware",
    } < set(origin)
    assert origin["seconds"] > 0 and origin["synthetic"] is False and origin["hardware"]["processes"] == 1
    assert toy.ToySettings.model_validate(saved["settings"]) == toy.recipe().settings
    assert saved["constants"]["scale"].tolist() == [0.5] * 8


def test_save_minutes_saves_in_the_middle_of_an_epoch(tmp_path, monkeypatch):
    """As last.pt; the checkpoints of an epoch are written at its end only."""
    steps = []
    real = CheckpointFolder.save

    def noted(folder, content, entry, names):
        steps.append((entry["step"], list(names)))
        return real(folder, content, entry, names)

    monkeypatch.setattr(CheckpointFolder, "save", noted)
    toy.run(tmp_path, training={"epochs": 1, "save_minutes": 1e-9})
    assert steps == [(0, []), (1, []), (2, []), (3, []), (4, []), (5, []), (6, ["best.pt"])]


# -- averaged weights ----------------------------------------------------------------------------------------------


def test_averaged_weights_follow_the_formula_and_the_model_keeps_its_own():
    model = torch.nn.Linear(3, 2)
    start = model.weight.detach().clone()
    average = EMA(model, 0.5)
    expected = start.clone()
    for step in range(4):
        with torch.no_grad():
            model.weight += 1.0
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    own = model.weight.detach().clone()
    with average.applied():
        torch.testing.assert_close(model.weight.detach(), expected)
    assert torch.equal(model.weight, own)
    assert average.state().keys() == model.state_dict().keys()


def test_averaged_weights_are_what_is_evaluated_and_saved(tmp_path):
    trained = toy.run(tmp_path, training={"ema_decay": 0.98, "epochs": 2})
    saved = checkpoint_file.read(trained.last)
    recipe = toy.recipe()
    dataset = recipe.dataset(toy.rows(9, 1000), training=False)
    batch = dataset.collate([dataset.item(0, index) for index in range(9)])

    def loss(weights):
        model = toy.ToyModel(recipe.settings.model, saved["constants"]["scale"].numpy()).eval()
        model.load_state_dict(weights)
        total, count = recipe.validate(model, batch)["val_loss"]
        return total.item() / count

    assert loss(saved["ema"]) == pytest.approx(saved["metrics"]["val_loss"], rel=1e-5)
    assert abs(loss(saved["model"]) - saved["metrics"]["val_loss"]) > 1e-3


def test_a_run_without_a_finite_validation_loss_fails(tmp_path):
    """Exit 5."""

    class Blind(toy.ToyRecipe):
        def validate(self, model, batch):
            total, count = super().validate(model, batch)["val_loss"]
            return {"val_loss": (total * float("nan"), count)}

    with pytest.raises(TrainingError, match="No evaluation gave a finite val_loss"):
        toy.run(tmp_path, Blind, training={"epochs": 1})


def test_compilation_does_not_change_parameter_names_in_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    kinds = set()

    class Noting(toy.ToyRecipe):
        def losses(self, model, batch, progress):
            kinds.add(type(model).__name__)
            return super().losses(model, batch, progress)

    compiled = toy.run(tmp_path / "compiled", Noting, training={"compile": True, "epochs": 1, "ema_decay": 0.5})
    assert kinds == {"Compiled"}
    plain = toy.run(tmp_path / "plain", training={"epochs": 1, "ema_decay": 0.5})
    for part in ("model", "ema"):
        one, other = checkpoint_file.read(compiled.last)[part], checkpoint_file.read(plain.last)[part]
        assert one.keys() == other.keys() and not any("_orig_mod" in name for name in one)
        for name in one:
            torch.testing.assert_close(one[name], other[name])


def test_a_missing_c_compiler_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr("training.engine.step.compiled.shutil.which", lambda name: None)
    trained = toy.run(tmp_path, training={"compile": True, "epochs": 1})
    assert "no C compiler" in (trained.run / "log.txt").read_text()


def test_a_new_name_is_on_the_disk_before_it_is_listed(tmp_path, monkeypatch):
    """Without the folder's fsync a power cut can leave an index that lists a file which is not there."""
    seen = []
    real = checkpoint_folder.sync

    def watched(path):
        seen.append((path, LAST in CheckpointFolder(tmp_path).listed()))
        real(path)

    monkeypatch.setattr(checkpoint_folder, "sync", watched)
    monkeypatch.setattr(index, "sync", watched)
    entry = {"step": 1, "epoch": 0, "value": None, "run_id": "r"}
    CheckpointFolder(tmp_path).save({"format": FORMAT}, entry)
    assert seen[0] == (tmp_path, False)  # the folder is synced after the rename, while nothing is listed yet
    assert seen[-1] == (tmp_path, True)  # and again after the index was renamed
