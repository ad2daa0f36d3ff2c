"""Training of a capture: its samples, targets and loss, and what of it is saved."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch

from tests.domains.amp import small
from training.domains.amp.guitar import clip
from training.domains.amp.signal import measures
from training.domains.amp.signal.running import oversampled
from training.domains.amp.signal.tones import frequency, harmonic_bins, without_aliases
from training.domains.amp.student.config import Objective
from training.domains.amp.student.groups import input_weights
from training.domains.amp.student.material import heard
from training.domains.amp.student.objective import Criterion, least_length
from training.domains.amp.student.pair import Pair
from training.domains.amp.student.recurrent import windows_of
from training.domains.amp.student.targets import Targets
from training.engine.loading.batches import BatchPlan
from training.engine.loop.state import State
from training.engine.process.distributed import Ranks
from training.engine.step.precision import require_precision
from training.engine.step.step_context import StepContext
from training.errors import UsageError
from training.recipe import TrainingProgress

START = TrainingProgress(0, 10)
BOTH = pytest.mark.parametrize("content", [small.wavenet(), small.lstm()], ids=["wavenet", "lstm"])


@pytest.mark.parametrize("rate", [8_000, 192_000])
@pytest.mark.parametrize("make", [small.wavenet, small.lstm])
def test_captures_of_any_rate_are_trained_and_validated(make, rate):
    """Preset debug's tones are too short for the loss at 192 kHz, whose filter takes more samples: they are longer."""
    content = json.dumps(json.loads(make()) | {"sample_rate": rate}).encode()
    made, rows = small.recipe(material={"samples": 3, "mix_di": 0.4, "oversampling": 2}), small.rows(content, rate=rate)
    model = made.build(made.fit_constants(rows))
    data = made.dataset(rows, training=True)
    assert model.sample_rate == rate and (data.shape.length > 2203) == (rate > 100_000)
    batch = small.batch_of(data, range(3))
    terms = made.losses(model, batch, None)
    assert all(torch.isfinite(term.total) for term in terms.values()) and terms["nmr"].total != 0
    held_out = made.dataset(rows[-1:], training=False)
    sums = made.validate(model, small.batch_of(held_out, range(2)))
    assert all(torch.isfinite(total) for total, _ in sums.values()) and "excess_db" in sums


def test_the_shortest_sound_with_a_loss_is_least_length():
    for rate in (8_000, 44_100, 192_000):
        criterion, x = Criterion(rate, Objective()), torch.randn(1, least_length(rate))
        assert criterion.reference(x).magnitudes.shape[1] == 1
        with pytest.raises(RuntimeError):
            criterion.reference(x[:, 1:])


def test_samples_depend_on_epoch_and_index_alone():
    _, _, dataset = small.built(small.wavenet())
    again = pickle.loads(pickle.dumps(dataset))
    kinds = set()
    for index in range(len(dataset)):
        one, other = dataset.item(3, index), again.item(3, index)
        assert one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)
        kinds |= set(one)
    assert kinds == {"tone", "number", "sound"}
    assert not np.array_equal(dataset.item(0, 0)["tone"], dataset.item(1, 0)["tone"])


def test_held_out_samples_are_the_same_in_every_epoch():
    content = small.wavenet()
    dataset = small.recipe().dataset(small.rows(content), training=False)
    assert len(dataset) == 2 * 88 + 3
    for index in (0, 175, 176):
        one, other = dataset.item(0, index), dataset.item(7, index)
        assert all(np.array_equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(("level", "quiet"), [("db", 0.6), ("amplitude", 0.1)])
def test_levels_are_uniform_in_decibels_or_in_amplitude(level, quiet):
    """-50 to 0 dB: of levels in dB, 60 % are below -20; of amplitudes, 10 %."""
    material = {"level": level, "samples": 2000, "mix_di": 0.0, "length": 8209}
    dataset = small.recipe(material=material).dataset(small.rows(small.wavenet()), training=True)
    tones = np.stack([dataset.item(0, index)["tone"] for index in range(2000)])
    assert (20 * np.log10(tones[:, 1]) < -20).mean() == pytest.approx(quiet, abs=0.04)
    hertz = tones[:, 0] * small.RATE / dataset.shape.length
    assert 25 < hertz.min() < 40 and 10_000 < hertz.max() <= float(frequency(127)) + 6
    assert np.array_equal(tones[:, 0], tones[:, 0].round())  # cycles are integers


def test_the_target_of_a_part_is_what_oversampling_the_clip_gives():
    _, model, dataset = small.built(small.wavenet())
    teacher, shape = model.teachers[0], dataset.shape
    number = len(dataset.parts) - 2  # not at the beginning of its clip
    row, begin = dataset.parts.begins[number]
    assert begin > shape.lead
    batch = {"tone": torch.zeros(0, 3), "number": torch.tensor([number]),
             "sound": torch.from_numpy(dataset.parts.part(number))[None]}  # fmt: skip
    found = Targets(shape, 4).of(teacher, 0, heard(batch, shape), batch, 0)
    with torch.no_grad():
        sound = torch.from_numpy(clip(dataset.rows[row], small.RATE))[None]
        complete = oversampled(teacher.play, sound, 4)[:, begin : begin + shape.length]
    assert found.shape == complete.shape == (1, shape.length)
    assert 10 * torch.log10(measures.esr(found, complete)) < -90


def test_a_student_hears_the_clip_in_front_of_a_part():
    _, model, dataset = small.built(small.wavenet())
    number = len(dataset.parts) - 2
    row, begin = dataset.parts.begins[number]
    batch = {"tone": torch.zeros(0, 3), "number": torch.tensor([number]),
             "sound": torch.from_numpy(dataset.parts.part(number))[None]}  # fmt: skip
    with torch.no_grad():
        y = model.students[0].valid(heard(batch, dataset.shape))
        complete = model.students[0].play(torch.from_numpy(clip(dataset.rows[row], small.RATE))[None])
    assert torch.allclose(y, complete[:, begin : begin + dataset.shape.length], atol=1e-5)


def test_the_target_of_a_tone_has_its_harmonics_alone():
    _, model, dataset = small.built(small.wavenet())
    index = next(i for i in range(100) if "tone" in dataset.item(0, i))
    batch = small.batch_of(dataset, [index])
    x = heard(batch, dataset.shape)
    target = Targets(dataset.shape, 4).of(model.teachers[0], 0, x, batch, 0)
    k = batch["tone"][:, 0].long()
    power = torch.fft.rfft(target.double()).abs().square()
    harmonic = harmonic_bins(k, dataset.shape.length)
    assert power[~harmonic].sum() < 1e-10 * power.sum()
    answer = model.teachers[0].valid(x)
    assert torch.allclose(target, without_aliases(answer.double(), k).float(), atol=1e-6)


def test_targets_of_parts_are_computed_once(monkeypatch):
    _, model, dataset = small.built(small.wavenet())
    batch = small.batch_of(dataset, [len(dataset) - 1])
    targets, calls = Targets(dataset.shape, 4), []
    answer = model.teachers[0].training_pass
    monkeypatch.setattr(model.teachers[0], "training_pass", lambda x: calls.append(len(x)) or answer(x))
    x = heard(batch, dataset.shape)
    first = targets.of(model.teachers[0], 0, x, batch, 0)
    again = targets.of(model.teachers[0], 0, x, batch, 0)
    assert calls == [4] and torch.equal(first, again)
    targets.of(model.teachers[0], 0, x, batch, 1)  # another split has other parts
    assert len(calls) == 2


@pytest.mark.parametrize("space", ["db", "linear"])
def test_the_loss_is_that_of_its_definition(space):
    random = torch.Generator().manual_seed(0)
    target = torch.randn(3, 8209, generator=random) * 0.1
    y = target + torch.tensor([[0.001], [0.01], [0.1]]) * torch.randn(3, 8209, generator=random)
    criterion = Criterion(small.RATE, Objective(space=space, nmr=0.1, floor_db=-30))
    terms = criterion(y, criterion.reference(target))
    own, right = criterion.filtered(y).double(), criterion.filtered(target).double()
    assert own.shape[1] == 8209 + 1 - criterion.taps.shape[2]
    nmr = criterion.ear.double().nmr(own, right)
    esr = ((own - right) ** 2).sum(1) / (right**2).sum(1)
    dc = (own - right).mean(1) ** 2 / (right**2).mean(1)
    wanted = nmr.clamp(min=-30).sum() if space == "db" else 3 * 10 ** (nmr.mean() / 10)
    assert terms["nmr"].total.item() == pytest.approx(float(wanted), rel=1e-3)
    assert terms["esr"].total.item() == pytest.approx(float(esr.sum()), rel=1e-3)
    assert terms["dc"].total.item() == pytest.approx(float(dc.sum()), rel=1e-2, abs=1e-9)
    assert [terms[name].coefficient for name in ("esr", "nmr", "dc")] == [1.0, 0.1, 1.0]


def context_of(made, rows, steps=10):
    """(state, step context, data, plan), as a run has them."""
    ranks = Ranks(0, 1, torch.device("cpu"))
    data = made.dataset(rows, training=True)
    plan = BatchPlan(len(data), made.settings.data.batch_size, 1, 1, 0)
    state = State(made, plan, ranks, made.fit_constants(rows))
    return (
        state,
        StepContext(made, state.model, state.optimizer, state.precision, ranks, ("esr", "nmr", "dc")),
        data,
        plan,
    )


def trained(content: bytes, steps: int, **sections):
    """(recipe, model, the loss of every step)."""
    made, rows, losses = small.recipe(**sections), small.rows(content), []
    state, context, data, plan = context_of(made, rows)
    for step in range(steps):
        micro = plan.micro_batches(step, 0)
        batches = [small.batch_of(data, one.indices, one.epoch) for one in micro]
        result = context.step(step, 0, micro, batches, context.local_counts(batches), START, [])
        losses.append(result.read()[0])
    return made, state.model, losses


@BOTH
def test_training_moves_the_student_and_never_the_teacher(content):
    made, model, losses = trained(content, 2)
    fresh = made.build(made.fit_constants(small.rows(content)))
    for (student, teacher), (_, original) in zip(model.both(), fresh.both(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), original.parameters(), strict=True))
        moved = [
            not torch.equal(a, b)
            for a, b in zip(student.parameters(), original.parameters(), strict=True)
            if a.requires_grad
        ]
        assert sum(moved) >= len(moved) - 2  # nothing reads the residual path behind the last layer of a WaveNet
    assert all(np.isfinite(list(one.values())).all() for one in losses)


def test_a_wavenet_learns_to_alias_less_and_sounds_the_same():
    content = small.wavenet(gain=60.0)
    material = {"samples": 64, "lowest": 70.0, "mix_di": 0.0, "length": 8209}
    loss = {"esr": 0.5, "floor_db": -25.0}
    made, model, _ = trained(content, 30, material=material, optim={"lr": 3e-3}, data={"batch_size": 8}, loss=loss)
    held_out = made.dataset(small.rows(content), training=False)
    with torch.no_grad():
        before, after = (
            made.summarise({
                name: float(total) / count
                for name, (total, count) in made.validate(one, small.batch_of(held_out, range(148, 176))).items()
            })
            for one in (made.build(made.fit_constants(small.rows(content))), model)
        )  # fmt: skip
    assert after["val_excess_db"] < before["val_excess_db"] - 0.3
    assert before["val_hesr_db"] < -80  # the student begins as the teacher
    assert after["val_hesr_db"] < -15


def test_an_lstm_is_updated_once_for_each_window():
    content = small.lstm()
    made, rows = small.recipe(lstm={"warmup": 64, "window": 4100}, material={"length": 8209}), small.rows(content)
    _, context, data, plan = context_of(made, rows)
    updates, update = [], context.update
    context.update = lambda *report: updates.append(1) or update(*report)
    micro = plan.micro_batches(0, 0)
    batches = [small.batch_of(data, one.indices) for one in micro]
    context.step(0, 0, micro, batches, context.local_counts(batches), START, [])
    assert len(updates) == 2 == len(windows_of(data.shape.length, 4100))
    # the state is carried: the second window begins where the first one ended
    assert windows_of(8209, 4104) == [(0, 4104), (4104, 8208)]
    # ranks without a batch update as often
    updates.clear()
    context.step(1, 0, [], [], dict.fromkeys(("esr", "nmr", "dc"), 4.0), START, [])
    assert len(updates) == 2


def test_the_windows_of_an_lstm_give_the_answer_of_one_pass():
    """With a rate of 0 and one window a part, the loss is that of the complete answer."""
    content = small.lstm()
    made, rows = small.recipe(lstm={"warmup": 512, "window": 8209}, material={"length": 8209}), small.rows(content)
    state, context, data, plan = context_of(made, rows)
    for group in state.optimizer.param_groups:
        group["lr"] = 0.0
    batch = small.batch_of(data, [0, 1, len(data) - 1])
    with torch.no_grad():
        expected = made.losses(state.model, batch, START)
    counts = dict.fromkeys(("esr", "nmr", "dc"), 3.0)
    found, _, _ = context.step(0, 0, plan.micro_batches(0, 0)[:1], [batch], counts, START, []).read()
    for name, loss in expected.items():
        assert found[name] == pytest.approx(float(loss.total), rel=1e-3, abs=1e-6)


def test_a_wavenet_takes_the_step_of_the_engine_and_an_lstm_its_own():
    for content, own in ((small.wavenet(), False), (small.lstm(), True)):
        made, _, _ = small.built(content)
        assert (made.own_step is not None) == own


@BOTH
def test_a_checkpoint_holds_the_students_alone(content):
    made, model, _ = small.built(content)
    names = made.saved(model)
    assert names and all(name.startswith("students.") for name in names)
    trained_ones = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained_ones <= set(names)
    assert made.weights(model).keys() == set(names)


def test_every_network_of_a_container_is_trained():
    content = small.wavenet()
    made, _, data = small.built(content)
    one = made.build(made.fit_constants(small.rows(content)))
    other = made.build(made.fit_constants(small.rows(small.wavenet(seed=5))))
    pair = Pair(small.replaced(made, (one.capture.network, other.capture.network)))
    batch = small.batch_of(data, [0, 1])
    both = made.losses(pair, batch, START)
    sum(loss.total for loss in both.values()).backward()
    assert len(pair.students) == 2
    for student in pair.students:
        without = [name for name, parameter in student.named_parameters() if parameter.grad is None]
        assert all(name.startswith("arrays.0.layers.4.layer1x1") for name in without), without
    sums = made.validate(pair, batch)
    assert sums["nmr_power"][1] == 4.0


def test_mixed_precision_is_refused_with_the_reason():
    made = small.recipe(training={"amp": True})
    with pytest.raises(UsageError, match="bfloat16's rounding errors"):
        require_precision(made)


def test_the_gain_of_a_capture_is_in_its_input_weights():
    for content in (small.wavenet(gain=1.0), small.lstm(gain=1.0)):
        _, model, _ = small.built(content)
        student, teacher = model.students[0], model.teachers[0]
        x = torch.randn(1, 400)
        with torch.no_grad():
            for weight in input_weights(student):
                weight.mul_(3.0)
            assert torch.allclose(student.valid(x), teacher.valid(3 * x), atol=1e-6)


def test_rates_of_groups_follow_the_settings():
    content = small.wavenet()
    made, model, _ = small.built(content, rates={"input": 10.0}, optim={"lr": 1e-3})
    own = {id(weight) for weight in input_weights(model.students[0])}
    for group in made.parameter_groups(model):
        (weight,) = group["params"]
        assert group["lr"] == pytest.approx(1e-2 if id(weight) in own else 1e-3)
    made, model, _ = small.built(content, rates={"relative": 1.0}, optim={"lr": 1e-3})
    loud, soft = (
        next(group for group in made.parameter_groups(model) if group["params"][0] is weight)
        for weight in (input_weights(model.students[0])[0], model.students[0].arrays[0].layers[0].conv.bias)
    )
    sizes = [float(group["params"][0].detach().square().mean().sqrt()) for group in (loud, soft)]
    assert loud["lr"] / soft["lr"] == pytest.approx(sizes[0] / sizes[1], rel=1e-4)
