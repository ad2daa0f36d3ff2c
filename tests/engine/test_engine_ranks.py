"""Two ranks under torchrun have the losses of one process with the same global batch, and write one set of outputs."""

import json

import pytest
import torch

from tests.engine import toy
from tests.ranks import two_ranks
from training import threads
from training.engine.checkpoints import checkpoint_file
from training.engine.process import distributed

#: 22 samples in global batches of 12: in the last one rank 1 has fewer micro-batches, and with 13 samples none.
SETTINGS = {"data": {"batch_size": 3}, "model": {"dropout": 0.3}}
TWO = {**SETTINGS, "training": {"grad_accum_steps": 2, "ema_decay": 0.9, "epochs": 3}}
ONE = {**SETTINGS, "training": {"grad_accum_steps": 4, "ema_decay": 0.9, "epochs": 3}}


def model_of(folder):
    """The weights of a run's last checkpoint."""
    return checkpoint_file.read(folder / "checkpoints/toy/last.pt")["model"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory, warm_python):
    """Runs of two ranks, in one launch, as starting takes most of the time. Returns their folder, what was printed, and
    the output of each rank of each run."""
    root = tmp_path_factory.mktemp("ranks")
    stopping = {"enabled": True, "patience": 2, "min_delta": 1e6}
    runs = {
        "reference": TWO,
        "uneven": {**TWO, "train_rows": 13},
        "stopped": {**TWO, "stop_at": 3},
        "early": {**TWO, "training": {**TWO["training"], "epochs": 9, "early_stopping": stopping}},
        "out of memory": {**TWO, "out_of_memory_at": 3},
        "hasty": {**TWO, "training": {**TWO["training"], "epochs": 5000}, "seconds": 2.0},
        "empty": {**TWO, "val_rows": 0},
        "apart": {**TWO, "stop_at": 3, "apart": "hosts"},
        "apart again": {**TWO, "apart": "hosts"},
    }
    printed = two_ranks(warm_python, root, "tests.engine.toy_ranks", str(root), json.dumps(runs))
    output = {name: [json.loads((root / name / f"rank{rank}.json").read_text()) for rank in (0, 1)] for name in runs}
    return root, printed, output


def records(root):
    (run_folder,) = (root / "runs/toy").iterdir()
    return [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("name", "train_rows"), [("reference", 22), ("uneven", 13)])
def test_two_ranks_have_the_losses_of_one_process(pairs, tmp_path, name, train_rows):
    """Same global batch, dropout included; in `uneven` rank 1 has no batch in the last step of an epoch."""
    root, _, output = pairs
    toy.run(tmp_path, **ONE, train_rows=train_rows)
    one, two = records(tmp_path), records(root / name)
    assert len(one) == len(two)
    for single, double in zip(one, two, strict=True):
        for key in ("loss", "error", "size", "grad_norm", "val_loss"):
            if key in single:
                assert double[key] == pytest.approx(single[key], rel=1e-4), (key, single["step"])
    weights = [checkpoint_file.read(r / "checkpoints/toy/last.pt") for r in (tmp_path, root / name)]
    for part in ("model", "ema"):
        for key in weights[0][part]:
            torch.testing.assert_close(weights[0][part][key], weights[1][part][key], rtol=1e-3, atol=1e-5)
    seen = sorted(n for rank in output[name] for step, numbers in rank["log"] if step < 2 for n in numbers)
    assert seen == list(range(train_rows))  # each sample of an epoch on one rank only


def test_two_ranks_leave_one_set_of_outputs(pairs):
    root, printed, output = pairs
    first, second = output["reference"]
    assert first["run"] == second["run"]
    assert len(list((root / "reference/runs/toy").iterdir())) == 1
    assert printed.count("step 1/6 ") == 5  # of five runs of 6 steps, each once
    assert first["metrics"] == second["metrics"]


def test_a_signal_to_one_rank_stops_both_at_the_same_step(pairs):
    """Exit 75 on both; a single process continues from there, to the same end."""
    root, _, output = pairs
    assert [rank["exit"] for rank in output["stopped"]] == [75, 75]
    at = checkpoint_file.read(root / "stopped/checkpoints/toy/last.pt")["progress"]["step"]
    assert at == 4
    toy.run(root / "stopped", **ONE)
    one, reference = (model_of(root / name) for name in ("stopped", "reference"))
    for key in one:
        torch.testing.assert_close(one[key], reference[key], rtol=1e-3, atol=1e-5)


def test_ranks_stop_early_together(pairs):
    ranks = pairs[2]["early"]
    assert [rank["step"] for rank in ranks] == [6, 6]
    assert all("early stopping" in rank["finished"] for rank in ranks)


def test_out_of_memory_on_one_rank_halves_the_micro_batches_of_both(pairs, tmp_path):
    """Before any weight is changed. The weights are those of one process that runs out of memory at the same step."""
    root, _, output = pairs
    assert [rank["step"] for rank in output["out of memory"]] == [6, 6]
    toy.run(tmp_path, toy.hungry(2, 3), **ONE)
    halved, alone = (checkpoint_file.read(r / "checkpoints/toy/last.pt") for r in (root / "out of memory", tmp_path))
    for key in halved["model"]:
        torch.testing.assert_close(halved["model"][key], alone["model"][key], rtol=1e-3, atol=1e-5)
    assert halved["progress"]["halvings"] == 1 and halved["progress"]["skipped"] == 0
    for rank in output["out of memory"]:  # both repeat the step
        assert max(len(numbers) for step, numbers in rank["log"] if step > 3) <= 2


def test_ranks_end_at_the_same_step_when_the_budget_is_used_up(pairs):
    """The clock of rank 0 decides for all."""
    ranks = pairs[2]["hasty"]
    assert ranks[0]["step"] == ranks[1]["step"] < 10000
    assert all(rank["finished"] == "the budget is used up" for rank in ranks)


def test_a_host_without_the_checkpoints_continues_from_the_first_ones(pairs):
    """Only rank 0 saves: the disk of the other host holds no checkpoint."""
    root, _, output = pairs
    assert not list(root.glob("hosts/host1/checkpoints/toy/*.pt"))
    assert [rank.get("step") for rank in output["apart again"]] == [6, 6], output["apart again"]
    one, reference = (model_of(root / name) for name in ("hosts/host0", "reference"))
    for key in one:
        torch.testing.assert_close(one[key], reference[key], rtol=0, atol=0)


def test_an_error_on_rank_0_is_raised_on_every_rank(pairs):
    """Exit 3 on both, without a hang."""
    assert [rank["exit"] for rank in pairs[2]["empty"]] == [3, 3]


def test_one_core_is_left_to_the_loader_workers(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "available_cpus", lambda: 8)
    try:
        for workers, ranks, expected in ((0, 1, 8), (4, 1, 7), (1, 4, 1), (0, 4, 2)):
            monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
            distributed.share_cores(workers)
            assert torch.get_num_threads() == expected
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
        with distributed.sharing_cores(workers=1):
            assert torch.get_num_threads() == 7
        assert torch.get_num_threads() == 2
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        distributed.share_cores(0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
