"""Batches on a device keep their original on the host, so that counting and reading do not wait for the device."""

from __future__ import annotations

import torch

from tests.engine import toy
from training.engine.loading.batches import MicroBatch
from training.engine.loading.loader import Loader
from training.engine.loading.transfer import OnDevice, PendingValues, Transfer, on_host
from training.engine.process.distributed import Ranks
from training.engine.step.precision import Precision
from training.engine.step.step_context import StepContext

NOWHERE = torch.device("meta")  # a device from which no number can be read


def test_counts_are_taken_on_the_host():
    """Counting on a GPU would wait for the step before, in every step."""
    recipe = toy.recipe()
    dataset = recipe.dataset(toy.rows(6), training=True)
    model = recipe.build(recipe.fit_constants([]))
    loader = Loader(dataset, [MicroBatch(0, 0, (0, 1, 2, 3))], recipe.settings.data, NOWHERE)
    batches = list(loader)
    assert isinstance(batches[0], OnDevice) and {value.device for value in batches[0].values()} == {NOWHERE}
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    precision = Precision(recipe.settings.training, torch.device("cpu"))
    context = StepContext(recipe, model, optimizer, precision, Ranks(0, 1, torch.device("cpu")), ["error", "size"])
    assert context.local_counts(batches) == {"error": 10.0, "size": 10.0}  # 1 + 2 + 3 + 4


def test_a_batch_for_the_cpu_is_not_copied():
    batch = {"x": torch.zeros(2)}
    assert Transfer(torch.device("cpu"))(batch) is batch is on_host(batch)


def test_pending_values_are_read_as_one_list():
    assert PendingValues(torch.tensor([1.0, 2.5], dtype=torch.float64), torch.tensor(3.0)).tolist() == [1.0, 2.5, 3.0]
