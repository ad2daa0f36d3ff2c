"""Training with sharded parameters on two ranks: the numbers of replicated training, half the memory, and checkpoints
that any number of ranks continues."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from tests.engine import toy
from tests.engine.toy_sharded import Adapted, Sharded
from tests.ranks import two_ranks
from training.engine.checkpoints import checkpoint_file
from training.engine.loading.batches import BatchPlan
from training.engine.process.distributed import Ranks
from training.engine.process.sharding import Sharding, require_shardable
from training.errors import Interrupted, UsageError

#: 13 samples in global batches of 12: in the last step of an epoch rank 1 has no samples.
COMMON = {"data": {"batch_size": 3}, "model": {"dropout": 0.3}, "optim": {"lr": 0.01, "grad_clip": 2.0}}
TRAINING = {"ema_decay": 0.9, "epochs": 3, "appraise_rows": 5}
TWO = {**COMMON, "training": {**TRAINING, "grad_accum_steps": 2}, "train_rows": 13}
ONE = {**COMMON, "training": {**TRAINING, "grad_accum_steps": 4}, "train_rows": 13}
ALL, PART = {**TWO, "kind": "Sharded"}, {**TWO, "kind": "ShardedAdapted"}


@pytest.fixture(scope="module")
def ran(tmp_path_factory, warm_python):
    """Runs of two ranks, in one launch, as starting takes most of the time. Returns their folder and the output of each
    rank of each run."""
    root = tmp_path_factory.mktemp("sharded")
    for name, kind in (("from one", toy.ToyRecipe), ("adapted from one", Adapted)):
        with pytest.raises(Interrupted):
            toy.run(root / name, toy.stopped(3, kind=kind), **ONE)
    runs = {
        "replicated": TWO,
        "sharded": ALL,
        "stopped": {**ALL, "stop_at": 3},
        "continued": {**ALL, "continues": "stopped"},
        "from one continued": {**ALL, "continues": "from one"},
        "not finite": {**ALL, "faults": {"nan_samples": [5]}, "on_device": True},
        "adapted": {**TWO, "kind": "Adapted"},
        "sharded adapted": PART,
        "adapted stopped": {**PART, "stop_at": 3},
        "adapted continued": {**PART, "continues": "adapted stopped"},
        "adapted from one continued": {**PART, "continues": "adapted from one"},
        "misordered": {**TWO, "kind": "Misordered"},
        "out of memory": {**ALL, "kind": "HUNGRY"},
        "one batch held out": {**ALL, "val_rows": 2},
    }
    two_ranks(warm_python, root, "tests.engine.toy_ranks", str(root), json.dumps(runs))
    output = {name: [json.loads((root / name / f"rank{rank}.json").read_text()) for rank in (0, 1)] for name in runs}
    return root, output


def content(root):
    return checkpoint_file.read(root / "checkpoints/toy/last.pt")


def records(root):
    (run_folder,) = (root / "runs/toy").iterdir()
    return [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]


def tensors(saved):
    """Every tensor of a checkpoint that training changes, by its place."""
    found = {f"{part}.{name}": value for part in ("model", "ema") for name, value in saved[part].items()}
    states = saved["optimizer"]["state"]
    return found | {f"optimizer.{i}.{key}": value for i, state in states.items() for key, value in state.items()}


def assert_same(first, second, **tolerance):
    one, other = tensors(first), tensors(second)
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], **tolerance, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize(("replicated", "sharded"), [("replicated", "sharded"), ("adapted", "sharded adapted")])
def test_sharded_ranks_have_the_losses_and_weights_of_replicated_ones(ran, replicated, sharded):
    """Clipping, averaged weights, dropout, and a step in which a rank has no samples included."""
    root, output = ran
    pairs = list(zip(records(root / replicated), records(root / sharded), strict=True))
    assert len(pairs) == 9 and any(one.get("grad_norm", 0) > 2.0 for one, _ in pairs)
    for one, other in pairs:
        for key in {"loss", "error", "size", "grad_norm", "val_loss", "level"} & one.keys():
            assert other[key] == pytest.approx(one[key], rel=1e-4), (key, one["step"])
    assert_same(content(root / replicated), content(root / sharded), rtol=1e-4, atol=1e-6)
    ranks = output[sharded]
    assert ranks[0]["metrics"] == ranks[1]["metrics"]


def test_each_rank_holds_about_half_of_the_sharded_parameters_and_their_optimizer_state(ran):
    first, second = (rank["held"] for rank in ran[1]["sharded"])
    everything = sum(first["all"].values())
    for held in (first, second):
        assert 0.4 * everything < sum(held["own"].values()) < 0.6 * everything
        assert held["moments"] == 2 * sum(held["own"].values())
    assert all(first["own"][name] + second["own"][name] == count for name, count in first["all"].items())
    assert first["freed"] and all(first["freed"])  # what is gathered for a forward pass is freed after it
    replicated = ran[1]["replicated"][1]["held"]
    assert replicated["own"] == replicated["all"]


def test_a_block_of_frozen_bfloat16_and_trained_float32_is_sharded_and_the_rest_replicated(ran):
    first, second = (rank["held"] for rank in ran[1]["sharded adapted"])
    assert first["dtypes"]["layers.0.weight"] == "torch.bfloat16"
    assert first["dtypes"]["layers.0.bias"] == "torch.float32"
    for name in ("layers.0.weight", "layers.0.bias"):
        assert first["own"][name] == second["own"][name] == first["all"][name] / 2
    assert set(first["replicated"]) == {"layers.3.weight", "layers.3.bias"}
    assert first["replicated"] == second["replicated"]  # to the bit, after each rank has updated its own
    assert first["digests"] == second["digests"] == 1  # gathering the frozen tensors changes none of them


def test_a_checkpoint_holds_complete_tensors_of_what_is_saved(ran):
    root, _ = ran
    everything, part = content(root / "sharded"), content(root / "sharded adapted")
    assert everything["model"]["layers.0.weight"].shape == everything["ema"]["layers.0.weight"].shape == (16, 8)
    assert set(part["model"]) == {"layers.0.bias", "layers.3.weight", "layers.3.bias"}
    assert part["frozen"] == content(root / "adapted")["frozen"]  # the digest of the complete tensors
    assert not list(root.glob("*/checkpoints/toy/*.rank1"))


@pytest.mark.parametrize(("prefix", "straight"), [("", "sharded"), ("adapted ", "sharded adapted")])
def test_a_sharded_run_resumes_to_the_same_bits(ran, prefix, straight):
    root, output = ran
    assert [rank["exit"] for rank in output[f"{prefix}stopped"]] == [75, 75]
    assert content(root / f"{prefix}stopped")["progress"]["step"] == 4
    assert [rank["step"] for rank in output[f"{prefix}continued"]] == [6, 6]
    assert_same(content(root / f"{prefix}continued"), content(root / straight), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("stopped", "kind", "straight"),
    [("stopped", Sharded, "sharded"), ("adapted stopped", Adapted, "sharded adapted")],
)
def test_one_process_continues_a_sharded_run(ran, tmp_path, stopped, kind, straight):
    root, _ = ran
    shutil.copytree(root / stopped, tmp_path / "run")
    assert toy.run(tmp_path / "run", kind, **ONE).step == 6
    assert_same(content(tmp_path / "run"), content(root / straight), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("name", "straight"), [("from one", "sharded"), ("adapted from one", "sharded adapted")])
def test_sharded_ranks_continue_the_run_of_one_process(ran, name, straight):
    root, output = ran
    assert content(root / name)["progress"]["step"] == 4
    assert [rank["step"] for rank in output[f"{name} continued"]] == [6, 6]
    assert_same(content(root / f"{name} continued"), content(root / straight), rtol=1e-3, atol=1e-5)


def test_a_step_that_is_not_finite_is_skipped_by_all(ran, tmp_path):
    """By the code path of GPUs, on which the host reads no norm."""
    root, _ = ran
    toy.run(tmp_path, **ONE, faults={"nan_samples": [5]})
    one, two = content(tmp_path), content(root / "not finite")
    assert one["progress"]["skipped"] == two["progress"]["skipped"] == 3
    assert_same(one, two, rtol=1e-3, atol=1e-5)


def test_blocks_in_another_order_than_they_are_called_are_reported(ran):
    for rank in ran[1]["misordered"]:
        assert rank["exit"] == 5 and "it was the turn of block 0" in rank["error"]


def test_an_evaluation_in_which_one_rank_has_nothing_to_do_is_followed_by_training(ran):
    """Its gathering for the others is no forward pass, by which torch could order the backward pass."""
    root, output = ran
    assert [rank["step"] for rank in output["one batch held out"]] == [6, 6]
    one, other = (tensors(content(root / name)) for name in ("one batch held out", "sharded"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_memory_that_runs_out_ends_the_run_with_a_remedy(ran):
    """The other ranks are in the middle of the model then, so that the step cannot be repeated."""
    for rank in ran[1]["out of memory"]:
        assert rank["exit"] == 5 and "smaller data.batch_size" in rank["error"]


def test_one_process_is_not_sharded_and_says_so(tmp_path):
    trained = toy.run(tmp_path / "fsdp", Sharded, **ONE)
    assert "not sharded, as there is one process" in (trained.run / "log.txt").read_text().splitlines()[0]
    toy.run(tmp_path / "ddp", **ONE)
    assert_same(content(tmp_path / "fsdp"), content(tmp_path / "ddp"), rtol=0, atol=0)


def test_all_ranks_get_equally_many_micro_batches_where_that_is_required():
    plan = BatchPlan(samples=13, batch_size=3, accumulate=2, world=2, seed=1)
    even = replace(plan, even=True)
    for step in (0, 1):
        assert len(even.micro_batches(step, 0)) == len(even.micro_batches(step, 1))
        for rank in (0, 1):
            assert [m for m in even.micro_batches(step, rank) if not m.padding] == plan.micro_batches(step, rank)
    (padding,) = even.micro_batches(1, 1)
    assert padding.padding and padding.indices == plan.micro_batches(1, 0)[0].indices


def own_step(recipe, context, batches, counts, progress):
    raise AssertionError


@pytest.mark.parametrize(
    ("kind", "training", "text"),
    [
        (Sharded, {"compile": True}, "training.compile must be false"),
        (Sharded, {"amp": True, "amp_dtype": "float16"}, "cannot compute in float16"),
        (type("Half", (Sharded,), {"dtype_policy": "float16_base"}), {}, "cannot compute in float16"),
        (type("Own", (Sharded,), {"own_step": own_step}), {}, "own_step"),
    ],
)
def test_what_cannot_be_sharded_is_refused(kind, training, text):
    with pytest.raises(UsageError, match=text):
        require_shardable(toy.recipe(kind, training=training))
    require_shardable(toy.recipe(Sharded, training={"amp": True}))


def sharing(first, second):
    def blocks(self, model):
        model.layers[first].weight = model.layers[second].weight
        return [model.layers[0]]

    return type("Sharing", (Sharded,), {"blocks": blocks})


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (type("None", (Sharded,), {"blocks": toy.ToyRecipe.blocks}), "its recipe needs `blocks`"),
        (sharing(3, 0), "layers.0.weight is in a module of `blocks` and in another part"),
        (type("Twice", (Sharded,), {"blocks": lambda _, model: [model.layers, model.layers[0]]}), "layers.0.weight"),
    ],
)
def test_blocks_that_share_a_parameter_are_refused(kind, text):
    recipe = toy.recipe(kind)
    model = recipe.build(recipe.fit_constants([]))
    with pytest.raises(UsageError, match=text):
        Sharding(recipe, model, Ranks(0, 2, torch.device("cpu")))
