"""Models whose weights are mostly frozen: a checkpoint holds the trained ones and a digest of the rest."""

import time

import numpy as np
import pytest
import torch

from tests.engine import toy
from training.engine.checkpoints import partial
from training.engine.checkpoints.checkpoint_file import read
from training.engine.checkpoints.partial import frozen_digest, load_state, split_state
from training.errors import Interrupted, TrainingError, UsageError
from training.stages.trained import load_trained
from training.workspace import Workspace

BASE = ("layers.0.weight", "layers.0.bias", "scale")
WIDTH = {"width": 4000}
TRAINED = {"layers.3.weight", "layers.3.bias"}


class Adapted(toy.ToyRecipe):
    """A toy whose first layer is a frozen base, initialised from the seed `base`."""

    base = 7
    family = "toy"

    def build(self, constants):
        model = super().build(constants)
        made = torch.Generator().manual_seed(self.base)
        with torch.no_grad():
            for parameter in model.layers[0].parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=made))
                parameter.requires_grad_(False)
        return model

    def saved(self, model):
        return [name for name in model.state_dict() if name not in BASE]


class OtherBase(Adapted):
    base = 8


def model_of(kind=Adapted, **sections):
    return toy.recipe(kind, **sections), toy.recipe(kind, **sections).build({"scale": np.full(8, 0.5, np.float32)})


def test_a_checkpoint_holds_what_is_trained_and_the_digest_of_the_rest(tmp_path):
    trained = toy.run(tmp_path / "part", Adapted, model=WIDTH, training={"ema_decay": 0.9, "epochs": 1})
    content = read(trained.last)
    assert set(content["model"]) == set(content["ema"]) == TRAINED
    assert content["frozen"]["tensors"] == 3 and len(content["frozen"]["sha256"]) == 64
    assert len(content["optimizer"]["state"]) == 2
    all_of_it = toy.run(tmp_path / "all", model=WIDTH, training={"ema_decay": 0.9, "epochs": 1})
    sizes = [run.last.stat().st_size for run in (trained, all_of_it)]
    assert sizes[0] < sizes[1] / 5, sizes
    assert "frozen" not in read(all_of_it.last)


def test_a_stopped_and_resumed_run_ends_in_the_same_bits(tmp_path):
    options = {"training": {"ema_decay": 0.9}}
    straight = toy.run(tmp_path / "straight", Adapted, **options)
    with pytest.raises(Interrupted):
        toy.run(tmp_path / "cut", type("Stopped", (Adapted,), {"signal_at": 8}), **options)
    cut = toy.run(tmp_path / "cut", Adapted, **options)
    one, other = read(straight.last), read(cut.last)
    assert one["frozen"] == other["frozen"]
    for part in ("model", "ema"):
        assert all(torch.equal(one[part][name], other[part][name]) for name in TRAINED)


def test_a_changed_base_is_refused(tmp_path):
    """Exit 2, for a resume and for an export."""
    with pytest.raises(Interrupted):
        toy.run(tmp_path, type("Stopped", (Adapted,), {"signal_at": 8}))
    with pytest.raises(UsageError, match=r"trained on another base: the 3 frozen tensors .*base changed") as caught:
        toy.run(tmp_path, OtherBase)
    assert caught.value.exit_code == 2
    recipe, model = model_of(OtherBase)
    with pytest.raises(UsageError, match="base changed"):
        load_state(recipe, model, read(tmp_path / "checkpoints/toy/last.pt"), "last.pt", averaged=True)


@pytest.mark.parametrize("averaged", [False, True])
def test_what_is_exported_is_the_base_with_the_trained_weights(tmp_path, monkeypatch, averaged):
    trained = toy.run(tmp_path, Adapted, training={"ema_decay": 0.9 if averaged else 0.0})
    monkeypatch.setattr("training.stages.trained.recipe_type", lambda family: Adapted)
    loaded = load_trained("toy", Workspace(tmp_path))
    content, (_, fresh) = read(trained.best), model_of()
    weights = loaded.model.state_dict()
    source = content["ema"] if averaged else content["model"]
    assert all(torch.equal(weights[name], source[name]) for name in TRAINED)
    assert all(torch.equal(weights[name], fresh.state_dict()[name]) for name in BASE)
    assert set(loaded.recipe.weights(loaded.model)) == set(BASE) | TRAINED  # what is exported is complete


def test_frozen_tensors_are_hashed_once_a_process(tmp_path, monkeypatch):
    calls = []
    real = partial.frozen_digest
    monkeypatch.setattr(partial, "frozen_digest", lambda *a: (calls.append(1), real(*a))[1])
    toy.run(tmp_path, Adapted, training={"save_every": 1, "save_minutes": 1e-9})
    assert len(calls) == 1
    toy.run(tmp_path, Adapted, training={"epochs": 4})  # loads and saves with another model object
    assert len(calls) == 2


def test_later_saves_do_not_hash_the_frozen_tensors_again():
    recipe, model = model_of(model={"width": 500_000})
    before = time.process_time()
    first = split_state(recipe, model)[1]
    hashed = time.process_time() - before
    before = time.process_time()
    for _ in range(10):
        assert split_state(recipe, model)[1] == first
    assert (time.process_time() - before) / 10 < hashed / 3


def test_the_digest_depends_on_names_dtypes_shapes_and_bytes():
    recipe, model = model_of()
    frozen = {"a": torch.arange(6.0), "b": torch.zeros(2, dtype=torch.int32)}
    digest = frozen_digest(recipe, model, frozen)
    assert digest == frozen_digest(recipe, model, dict(reversed(frozen.items())))
    changed = [
        {"c": frozen["a"], "b": frozen["b"]},
        {"a": frozen["a"].reshape(2, 3), "b": frozen["b"]},
        {"a": frozen["a"], "b": torch.zeros(2)},  # the same bytes
        {"a": frozen["a"] + torch.tensor([0, 0, 0, 0, 0, 1e-6]), "b": frozen["b"]},
        {"a": frozen["a"]},
    ]
    assert digest not in [frozen_digest(recipe, model, other) for other in changed]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_base_held_in_half_precision_has_the_digest_of_the_float32_one(dtype):
    """Training holds it in half precision, an export builds it in float32."""
    kind = type("Half", (Adapted,), {"dtype_policy": str(dtype).removeprefix("torch.") + "_base"})
    recipe, built = model_of(kind)
    _, held = model_of(kind)
    for parameter in held.layers[0].parameters():
        parameter.data = parameter.data.to(dtype)
    assert split_state(recipe, built)[1] == split_state(recipe, held)[1]
    assert split_state(*model_of(Adapted))[1] != split_state(recipe, held)[1]


def test_what_a_module_adds_to_its_state_dict_is_hashed_once(monkeypatch):
    """As a quantised layer does with the scales of its weight, in tensors that each call makes."""

    class Extra(torch.nn.Linear):
        def _save_to_state_dict(self, destination, prefix, keep_vars):
            super()._save_to_state_dict(destination, prefix, keep_vars)
            destination[prefix + "weight.scale"] = torch.full((3,), self.scale)

    class Quantised(Adapted):
        def saved(self, model):
            return TRAINED

    calls = []
    monkeypatch.setattr(partial, "frozen_digest", lambda *found: calls.append(found) or frozen_digest(*found))

    def digest_with(scale):
        recipe, model = model_of(Quantised)
        model.layers[0].__class__, model.layers[0].scale = Extra, scale
        first, second = (split_state(recipe, model)[1]["sha256"] for _ in range(2))
        assert first == second
        return first

    assert digest_with(2.0) == digest_with(2.0) != digest_with(3.0)
    assert len(calls) == 3


def test_a_frozen_tensor_that_training_changes_is_an_error():
    recipe, model = model_of()
    split_state(recipe, model)
    model.scale += 1  # as a running mean would
    with pytest.raises(TrainingError, match=r"scale changed, and is not saved\. A buffer .* belongs in `saved`"):
        split_state(recipe, model)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["layers.3.weight"], r"trains layers\.3\.bias and does not save it \(1 such"),
        (["layers.3.weight", "layers.3.bias", "layers.9.weight"], r"saves layers\.9\.weight, which its model does not"),
    ],
)
def test_a_saved_list_that_does_not_fit_the_model_is_refused(names, message):
    kind = type("Wrong", (Adapted,), {"saved": lambda self, model: names})
    with pytest.raises(TrainingError, match=message):
        split_state(*model_of(kind))


def test_a_checkpoint_that_misses_a_trained_tensor_does_not_fit(tmp_path):
    content = read(toy.run(tmp_path, Adapted, training={"epochs": 1}).last)
    recipe, model = model_of()
    del content["model"]["layers.3.bias"]
    content["model"]["layers.4.bias"] = torch.zeros(1)
    with pytest.raises(RuntimeError, match=r"missing: layers\.3\.bias; unexpected: layers\.4\.bias"):
        load_state(recipe, model, content, "last.pt")
    full_recipe, full_model = model_of(toy.ToyRecipe)
    with pytest.raises(RuntimeError, match="refers to 3 frozen ones"):
        load_state(full_recipe, full_model, content, "last.pt")


def test_a_complete_checkpoint_loads_into_a_recipe_that_saves_a_part(tmp_path):
    content = read(toy.run(tmp_path, training={"epochs": 1}).last)
    recipe, model = model_of()
    load_state(recipe, model, content, "last.pt")
    assert all(torch.equal(model.state_dict()[name], content["model"][name]) for name in content["model"])
