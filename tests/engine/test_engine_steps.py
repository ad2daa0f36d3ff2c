"""A step computes the same numbers as a plain loop over global batches, however these are divided."""

import itertools
import json

import numpy as np
import pytest
import torch

from tests.engine import toy
from training.engine.checkpoints import checkpoint_file
from training.engine.loading.batches import BatchPlan, mixed
from training.engine.loop.run import Run
from training.engine.loop.state import INITIAL
from training.engine.process.distributed import Ranks
from training.engine.step import schedule
from training.engine.step.step_context import Gradients
from training.errors import TrainingError
from training.recipe import Loss
from training.settings import Scheduler


def weights(root):
    return checkpoint_file.read(root / "checkpoints" / "toy" / "last.pt")["model"]


def assert_close(one, other, **tolerance):
    for name in one:
        torch.testing.assert_close(one[name], other[name], **tolerance)


def records(trained, kind="train"):
    lines = (trained.run / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def plain_loop(recipe, rows, global_batch, epochs, clip):
    """The same training in a few lines of torch: complete global batches, mean losses, torch's own clipping."""
    settings = recipe.settings
    dataset = recipe.dataset(rows, training=True)
    torch.manual_seed(mixed(settings.seed, INITIAL))
    model = recipe.build(recipe.fit_constants(rows))
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        groups, lr=settings.optim.lr, betas=settings.optim.betas, weight_decay=settings.optim.weight_decay
    )
    per_epoch = -(-len(rows) // global_batch)
    for epoch in range(epochs):
        order = np.random.default_rng([settings.seed, epoch]).permutation(len(rows))
        for position in range(per_epoch):
            step = epoch * per_epoch + position
            for group in optimizer.param_groups:
                group["lr"] = settings.optim.lr * schedule.factor(step, epochs * per_epoch, settings.scheduler)
            chosen = order[position * global_batch : (position + 1) * global_batch]
            batch = dataset.collate([dataset.item(epoch, int(index)) for index in chosen])
            optimizer.zero_grad()
            kept = batch["kept"]
            ((model(batch["x"]) - batch["y"]) ** 2)[kept].mean().backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
    return model.state_dict()


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_a_run_equals_a_plain_loop_over_global_batches(tmp_path, clip):
    """Clipping from `optim`, 3 micro-batches, unequal counts, and a last global batch of 10 of 12 samples."""
    settings = {
        "optim": {"lr": 0.01, "grad_clip": clip},
        "data": {"batch_size": 4},
        "training": {"grad_accum_steps": 3},
    }
    toy.run(tmp_path, **settings)
    reference = plain_loop(toy.recipe(**settings), toy.rows(22), 12, 3, clip)
    assert_close(weights(tmp_path), reference, rtol=1e-4, atol=1e-6)
    other = plain_loop(toy.recipe(**settings), toy.rows(22), 12, 3, 0.05 - clip)
    # Clipping must change the weights here, else this test would not notice if it were missing.
    assert any(not torch.allclose(reference[n], other[n], rtol=1e-3) for n in reference)


def test_accumulation_changes_no_weight(tmp_path):
    """One batch of 8, 2 of 4, 4 of 2 and 8 of 1 give the same step; the last of an epoch is smaller."""
    results = []
    for size in (8, 4, 2, 1):
        toy.run(tmp_path / str(size), data={"batch_size": size}, training={"grad_accum_steps": 8 // size, "epochs": 2})
        results.append(weights(tmp_path / str(size)))
    for other in results[1:]:
        assert_close(results[0], other, rtol=1e-4, atol=1e-6)


def test_the_logged_loss_is_the_exact_average(tmp_path):
    """Over all elements since the last log line, not over batches, whose counts differ."""
    trained = toy.run(tmp_path, optim={"lr": 1e-12}, training={"epochs": 1, "log_every": 6})
    model = toy.ToyRecipe.models[0]
    dataset = toy.recipe().dataset(toy.rows(22), training=True)
    batch = dataset.collate([dataset.item(0, index) for index in range(22)])
    with torch.no_grad():
        exact = ((model(batch["x"]) - batch["y"]) ** 2)[batch["kept"]].mean().item()
    (record,) = records(trained)
    assert record["error"] == pytest.approx(exact, rel=1e-5)


def test_the_gradient_norm_is_reported_before_clipping(tmp_path):
    free = records(toy.run(tmp_path / "free", optim={"grad_clip": 0.0}, training={"max_steps": 1}))
    clipped = records(toy.run(tmp_path / "clipped", optim={"grad_clip": 1e-3}, training={"max_steps": 1}))
    assert clipped[0]["grad_norm"] == free[0]["grad_norm"] > 0.1


def test_the_objective_and_its_gradient_are_those_of_the_mean(tmp_path):
    """Over the global batch, in 3 micro-batches with unequal counts. AdamW's update would hide a wrong factor."""
    trained = toy.run(tmp_path, data={"batch_size": 4}, training={"grad_accum_steps": 3, "max_steps": 1})
    recipe = toy.recipe()
    torch.manual_seed(mixed(42, INITIAL))
    model = recipe.build(recipe.fit_constants([]))
    dataset = recipe.dataset(toy.rows(22), training=True)
    batch = dataset.collate([dataset.item(0, int(i)) for i in BatchPlan(22, 4, 3, 1, 42).step_samples(0)])
    loss = ((model(batch["x"]) - batch["y"]) ** 2)[batch["kept"]].mean()
    loss.backward()
    (record,) = records(trained)
    assert record["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert record["error"] == pytest.approx(loss.item(), rel=1e-5)
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm().item()
    assert record["grad_norm"] == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize("flat", [False, True])
def test_gradients_are_measured_and_scaled_together(flat):
    """With two dtypes and a parameter without a gradient; as for one rank, and as views of flat tensors."""
    parameters = [
        torch.nn.Parameter(torch.zeros(s, dtype=d)) for s, d in (((3, 5), None), (7, torch.float64), (4, None))
    ]
    gradients = Gradients(parameters, flat)
    for parameter in parameters[:2]:
        (2 * parameter.sum()).backward()
    assert gradients.norm().item() == pytest.approx(2 * 22**0.5)
    gradients.scale(0.5)
    assert parameters[0].grad.unique().tolist() == [1.0] == parameters[1].grad.unique().tolist()
    assert not parameters[2].grad.any()
    gradients.clear()
    assert gradients.norm().item() == 0.0


def before_the_first_step(monkeypatch, change):
    """Apply `change` to each run once it is prepared, to test on a CPU what is chosen on a GPU."""
    prepare = Run.prepare

    def changed(run):
        prepare(run)
        change(run)

    monkeypatch.setattr(Run, "prepare", changed)


@pytest.mark.parametrize("faults", [{}, {"nan_samples": [5, 6]}])
def test_skipping_steps_on_the_device_gives_the_same_weights_as_on_the_host(tmp_path, monkeypatch, faults):
    """The code path for GPUs, which never reads the norm on the host, run here on a CPU."""
    settings = {"faults": faults, "optim": {"lr": 0.01, "grad_clip": 2.0}, "training": {"ema_decay": 0.9}}
    host = toy.run(tmp_path / "host", **settings)
    before_the_first_step(monkeypatch, lambda run: setattr(run.step_context, "decides_on_host", False))
    device = toy.run(tmp_path / "device", **settings)
    one, other = checkpoint_file.read(host.last), checkpoint_file.read(device.last)
    assert one["progress"]["skipped"] == other["progress"]["skipped"] == (6 if faults else 0)
    for part in ("model", "ema"):
        assert_close(one[part], other[part], rtol=1e-5, atol=1e-7)
    steps = {int(s["step"]) for s in other["optimizer"]["state"].values()}
    assert steps == {18 - other["progress"]["skipped"]}


def test_results_that_are_read_a_step_late_are_all_recorded(tmp_path, monkeypatch):
    """As on a GPU. Every skipped step is counted, and the records are the same."""
    settings = {"faults": {"nan_samples": [5]}, "training": {"log_every": 5}}
    prompt = toy.run(tmp_path / "prompt", **settings)
    before_the_first_step(monkeypatch, lambda run: setattr(run, "lag", 1))
    lagging = toy.run(tmp_path / "late", **settings)
    for one, other in zip(records(prompt), records(lagging), strict=True):
        assert {k: one.get(k) for k in ("step", "loss", "skipped")} == {
            k: other.get(k) for k in ("step", "loss", "skipped")
        }


# -- non-finite numbers --------------------------------------------------------------------------------------------


def test_a_step_with_a_nan_is_skipped_counted_and_its_samples_are_logged(tmp_path):
    """Weights and optimizer state stay finite; the log names the samples."""
    trained = toy.run(tmp_path, faults={"nan_samples": [5]})
    saved = checkpoint_file.read(trained.last)
    assert all(torch.isfinite(value).all() for value in saved["model"].values())
    assert all(torch.isfinite(v).all() for s in saved["optimizer"]["state"].values() for v in s.values())
    assert saved["progress"]["skipped"] == 3  # once an epoch
    assert {int(s["step"]) for s in saved["optimizer"]["state"].values()} == {18 - 3}
    log = (trained.run / "log.txt").read_text()
    skipped = [text for text in log.splitlines() if "skipped" in text]
    assert len(skipped) == 3 and all(" 5" in text for text in skipped)
    assert all(np.isfinite(record.get("loss", 0.0)) for record in records(trained))


def test_a_skipped_step_changes_nothing(tmp_path):
    """One finite step and five with NaN give the weights of the finite step alone."""
    good = set(BatchPlan(22, 4, 1, 1, 42).step_samples(0).tolist())
    settings = {"scheduler": {"name": "constant", "warmup_steps": 0}}
    faults = {"nan_samples": sorted(set(range(22)) - good)}
    trained = toy.run(tmp_path / "six", training={"epochs": 1}, faults=faults, **settings)
    toy.run(tmp_path / "one", training={"max_steps": 1}, **settings)
    assert checkpoint_file.read(trained.last)["progress"]["skipped"] == 5
    assert_close(weights(tmp_path / "six"), weights(tmp_path / "one"), rtol=0, atol=0)


def test_numbers_that_stay_non_finite_end_the_run(tmp_path):
    """Exit 5; what is saved is finite."""
    with pytest.raises(TrainingError, match="not finite 10 times in a row") as caught:
        toy.run(tmp_path, faults={"nan_samples": list(range(22))})
    assert caught.value.exit_code == 5
    assert all(torch.isfinite(value).all() for value in weights(tmp_path).values())


def test_weights_that_are_not_finite_are_never_saved(tmp_path, monkeypatch):
    """A step that makes weights infinite ends the run before they are saved."""

    def broken(self, model, batch, progress):
        if progress.step == 3:
            with torch.no_grad():
                next(model.parameters()).fill_(float("inf"))
        return toy.ToyRecipe.losses(self, model, batch, progress)

    kind = type("Broken", (toy.ToyRecipe,), {"losses": broken})
    with pytest.raises(TrainingError):
        toy.run(tmp_path, kind, training={"epochs": 1})
    assert all(torch.isfinite(value).all() for value in weights(tmp_path).values())


# -- order ---------------------------------------------------------------------------------------------------------


def test_each_epoch_has_every_sample_once_in_another_order():
    plan = BatchPlan(samples=23, batch_size=2, accumulate=3, world=2, seed=7)
    assert plan.steps_per_epoch == 2
    epochs = [np.concatenate([plan.step_samples(e * 2 + p) for p in range(2)]).tolist() for e in range(3)]
    assert all(sorted(epoch) == list(range(23)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != list(range(23))
    other_seed = BatchPlan(23, 2, 3, 2, seed=8)
    assert other_seed.step_samples(0).tolist() != plan.step_samples(0).tolist()


def test_micro_batches_do_not_depend_on_ranks_and_accumulation():
    """One process accumulating over 4, two over 2, four over 1: the same micro-batches with the same numbers,
    which seed dropout."""
    shapes = [BatchPlan(23, 2, 4, 1, 7), BatchPlan(23, 2, 2, 2, 7), BatchPlan(23, 2, 1, 4, 7)]
    for step in range(6):
        cuts = [
            sorted(
                (c.number, c.epoch, c.indices)
                for c in itertools.chain.from_iterable(plan.micro_batches(step, rank) for rank in range(plan.world))
            )
            for plan in shapes
        ]
        assert cuts[0] == cuts[1] == cuts[2]


def test_the_number_of_loader_workers_changes_nothing(tmp_path):
    results = []
    for workers in (0, 1, 2):
        toy.run(tmp_path / str(workers), data={"num_workers": workers}, training={"epochs": 2})
        results.append((weights(tmp_path / str(workers)), list(toy.ToyRecipe.log)))
        toy.ToyRecipe.log.clear()
    for state, log in results[1:]:
        assert log == results[0][1]
        assert_close(state, results[0][0], rtol=0, atol=0)


# -- own steps and other hooks -------------------------------------------------------------------------------------


class TwoUpdates(toy.ToyRecipe):
    """Two optimizer steps in one step of the run."""

    def own_step(self, context, batches, counts, progress):
        total, count = torch.zeros(()), 0.0
        for _ in range(2):
            for batch in batches:
                with context.precision.autocast():
                    losses = self.losses(context.model, batch, progress)
                context.backward(context.objective(losses, counts))
                total, count = total + losses["error"].total.detach(), counts["error"] * 2
            context.update()
        return {"error": (total, count), "size": (torch.zeros(()), count)}


def test_a_recipe_may_define_its_own_step(tmp_path):
    trained = toy.run(tmp_path, TwoUpdates, training={"epochs": 2, "grad_accum_steps": 2})
    saved = checkpoint_file.read(trained.last)
    assert trained.step == 6
    assert {int(s["step"]) for s in saved["optimizer"]["state"].values()} == {12}
    first, last = records(trained)[0], records(trained)[-1]
    assert first["loss"] > 0 and last["grad_norm"] > 0


def test_a_recipe_may_train_in_double_precision(tmp_path):
    class Double(toy.ToyRecipe):
        def build(self, constants):
            return super().build(constants).double()

        def losses(self, model, batch, progress):
            return super().losses(model, {**batch, "x": batch["x"].double()}, progress)

        def validate(self, model, batch):
            return super().validate(model, {**batch, "x": batch["x"].double()})

    toy.run(tmp_path, Double)
    assert {value.dtype for value in weights(tmp_path).values()} == {torch.float64}


def test_losses_without_a_term_of_counts_are_refused(tmp_path):
    class Forgetful(toy.ToyRecipe):
        def losses(self, model, batch, progress):
            return {"error": Loss(super().losses(model, batch, progress)["error"].total)}

    with pytest.raises(TrainingError, match=r"losses gave the terms \['error'\]"):
        toy.run(tmp_path, Forgetful)


def test_a_single_process_needs_no_collective():
    ranks = Ranks(0, 1, torch.device("cpu"))
    assert ranks.total([1.5, 2.0]) == [1.5, 2.0] and ranks.gather("x") == ["x"] and ranks.on_rank_zero(lambda: 3) == 3


# -- schedule ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cosine", "linear", "wsd"])
def test_the_learning_rate_rises_to_its_peak_and_ends_at_its_floor(name):
    """The minimum is reached in the last step of the run."""
    settings = Scheduler(name=name, warmup_steps=10, min_lr_ratio=0.1)
    rates = [schedule.factor(step, 100, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == 1.0 and max(rates) == 1.0
    assert rates[-1] == pytest.approx(0.1)
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(rates[10:]))


def test_each_schedule_has_its_own_shape():
    kinds = {n: Scheduler(name=n, warmup_steps=0, min_lr_ratio=0.0) for n in ("cosine", "linear", "constant", "wsd")}
    middle = {name: schedule.factor(50, 101, settings) for name, settings in kinds.items()}
    assert middle["cosine"] == pytest.approx(0.5) == middle["linear"]
    assert middle["constant"] == middle["wsd"] == 1.0
    quarter = {name: schedule.factor(25, 101, settings) for name, settings in kinds.items()}
    assert quarter["cosine"] > quarter["linear"] + 0.05
    assert schedule.factor(90, 101, kinds["wsd"]) == pytest.approx(0.5)
    assert schedule.factor(99, 101, kinds["constant"]) == 1.0


def test_a_short_run_still_reaches_its_full_rate(tmp_path):
    """A warm-up of 100 steps in a run of 18 is shortened to 9, which is logged."""
    trained = toy.run(tmp_path, scheduler={"warmup_steps": 100})
    rates = [record["lr"] for record in records(trained)]
    assert max(rates) == pytest.approx(0.01) and rates.index(max(rates)) == 8
    assert "rises over 9 steps" in (trained.run / "log.txt").read_text()


def test_warm_up_may_be_a_share_of_the_run_whatever_its_length():
    """Rounded up, as in Hugging Face's Trainer; and at most half the run."""
    settings = Scheduler(warmup_steps=7, warmup_ratio=0.03)
    assert [schedule.warmup(total, settings) for total in (18, 100, 110, 1000)] == [1, 3, 4, 30]
    assert schedule.factor(2, 110, settings) == 0.75 and schedule.factor(3, 110, settings) == 1.0
    assert schedule.warmup(18, Scheduler(warmup_steps=7, warmup_ratio=0.0)) == 0
    assert schedule.warmup(18, Scheduler(warmup_ratio=0.9)) == 9


def test_a_run_states_how_many_steps_its_share_of_warm_up_is(tmp_path):
    trained = toy.run(tmp_path, scheduler={"warmup_ratio": 0.25})
    rates = [record["lr"] for record in records(trained)]
    assert rates[:5] == pytest.approx([0.002, 0.004, 0.006, 0.008, 0.01]) and max(rates) == rates[4]
    assert "warmup_ratio 0.25: the learning rate rises over 5 of 18 steps" in (trained.run / "log.txt").read_text()


def test_max_steps_ends_the_run_and_the_schedule(tmp_path):
    trained = toy.run(tmp_path, training={"max_steps": 8})
    rates = [record["lr"] for record in records(trained)]
    assert trained.step == len(rates) == 8 and trained.metrics["val_loss"] > 0
    assert rates[-1] == pytest.approx(0.001)
    assert {progress.total_steps for progress in toy.ToyRecipe.progresses} == {8}
