"""An update of a capture's training against the same in the shape of the published code (benchmarks/amp/original.py):
the time for a second of sound that is trained. Both sides train the same network with the same number of tones; ours
includes the teacher's answer and its target, which the other side has from before."""

from __future__ import annotations

import copy
import time
from typing import Any

import numpy as np
import torch

from benchmarks.amp.original import Original
from benchmarks.harness import Row, paired
from training.config import Layer, build, read_yaml
from training.domains.amp.captures import Capture
from training.domains.amp.families import AMP
from training.domains.amp.networks.activations import Activation
from training.domains.amp.networks.lstm import LSTM
from training.domains.amp.networks.network import Network
from training.domains.amp.networks.wavenet import ArrayShape, LayerShape, WaveNet
from training.domains.amp.signal.tones import cycles, frequency, tone
from training.domains.amp.student.material import Shape, heard
from training.domains.amp.student.objective import Criterion
from training.domains.amp.student.pair import Pair
from training.domains.amp.student.recipe import TERMS, AmpRecipe
from training.domains.amp.student.recurrent import windows_of
from training.domains.amp.student.targets import Targets
from training.engine.loading.batches import BatchPlan
from training.engine.loop.state import State
from training.engine.process.distributed import Ranks
from training.engine.step.step_context import StepContext
from training.recipe import TrainingProgress

SHARE = 0.05  # of an update, for mask and loss


def lstm(hidden: int) -> LSTM:
    """As in GuitarML captures."""
    torch.manual_seed(0)
    return LSTM(1, hidden, 44_100).eval()


def wavenet(channels: tuple[int, ...], doublings: int) -> WaveNet:
    """The standard architecture A1 has 16 and 8 channels, and dilations from 1 to 512."""
    torch.manual_seed(0)
    layers = tuple(LayerShape(3, 2**number, Activation("Tanh")) for number in range(doublings))
    arrays, inputs = [], 1
    for number, own in enumerate(channels):
        last = number == len(channels) - 1
        arrays.append(ArrayShape(inputs, own, own, layers, 1 if last else channels[number + 1], 1, last))
        inputs = own
    return WaveNet(tuple(arrays), 0.02, 48_000).eval()


class Ours:
    """Steps of the recipe for a network, on tones alone."""

    def __init__(self, network: Network, batch: int):
        layers = [read_yaml(AMP.config), Layer({"data": {"batch_size": batch}, "material": {"mix_di": 0.0}})]
        self.recipe = AmpRecipe(build(AmpRecipe.settings_type, *layers))
        capture = Capture("bench", "nam", "", "", (network,), b"", "", "")
        self.recipe.build = lambda constants: self._begun(Pair(capture))  # type: ignore[method-assign]
        self.ranks = Ranks(0, 1, torch.device("cpu"))
        plan = BatchPlan(batch, batch, 1, 1, 0)
        self.state = State(self.recipe, plan, self.ranks, {})
        self.context = StepContext(
            self.recipe, self.state.model, self.state.optimizer, self.state.precision, self.ranks, TERMS
        )
        random = np.random.default_rng(0)
        shape = self.recipe._shape
        k = cycles(frequency(torch.from_numpy(random.uniform(21, 127, batch))), shape.length, shape.rate)
        amplitude, phase = 10 ** (random.uniform(-50, 0, batch) / 20), random.uniform(0, 6, batch)
        self.batch = {
            "tone": torch.stack([k.double(), torch.from_numpy(amplitude), torch.from_numpy(phase)], 1),
            "number": torch.zeros(0, dtype=torch.int64),
            "sound": torch.zeros(0, shape.complete),
        }
        self.micro = plan.micro_batches(0, 0)

    def _begun(self, pair: Pair) -> Pair:
        before = max(network.receptive_field for network in pair.capture.networks)
        self.recipe._shape = Shape(pair.sample_rate, before or self.recipe.settings.lstm.warmup)
        self.recipe._recurrent = pair.recurrent
        return pair

    @property
    def seconds(self) -> float:
        """Of sound that a step trains, for each tone."""
        shape = self.recipe._shape
        windows = windows_of(shape.length, self.recipe.settings.lstm.window)
        return (windows[-1][1] if self.recipe._recurrent else shape.length) / shape.rate

    def step(self) -> None:
        counts = self.context.local_counts([self.batch])
        self.context.step(0, 0, self.micro, [self.batch], counts, TrainingProgress(0, 10), [])


def theirs(network: Network, batch: int, window: int, warmup: float) -> Any:
    """(a function that trains one batch of one-second tones, its updates)."""
    other = Original(copy.deepcopy(network), window, warmup)
    rate = network.sample_rate
    random = np.random.default_rng(0)
    k = cycles(frequency(torch.from_numpy(random.uniform(21, 127, batch))), rate, rate)
    amplitude = torch.from_numpy(random.uniform(0.001, 1, batch))
    x = tone(k, amplitude, torch.zeros(batch), rate, -round(warmup * rate), rate)
    with torch.no_grad():
        y = other.network.play(x)
    return lambda: other.batch(x, y, [float(value) for value in k])


def measure(small: bool) -> list[Row]:
    batch, repeats = (2, 1) if small else (16, 3)
    standard = wavenet((4, 2), 4) if small else wavenet((16, 8), 10)
    cases = [
        ("LSTM of 20 cells", lstm(20), 4_410, 0.2, 5.0),
        ("WaveNet A1, 16 and 8 channels", standard, 24_000, 0.1, 2.0),
    ]
    rows = []
    for letter, (what, network, window, warmup, bar) in zip("ab", cases, strict=True):
        rows.append(_row(f"16{letter}", what, network, window, warmup, bar, batch, repeats))
    return [*rows, _share(standard, batch, repeats)]


def _row(
    bar: str, what: str, network: Network, window: int, warmup: float, least: float, batch: int, repeats: int
) -> Row:
    ours = Ours(network, batch)
    other = theirs(network, batch, window, warmup)
    both = paired(ours.step, other, repeats, warm=1)
    own, reference = float(np.median(both.ours)) / ours.seconds, float(np.median(both.reference))
    ratio = reference / own
    note = f"{batch} tones; float32 against float64; a second of sound of each tone; threads: {torch.get_num_threads()}"
    return Row(bar, f"{what}: a training step", own, reference, "s", ratio, f">= {least:g}x", ratio >= least, note,
               both.spread)  # fmt: skip


def _share(network: Network, batch: int, repeats: int) -> Row:
    """Mask and loss as a share of an update of the standard WaveNet."""
    ours = Ours(network, batch)
    shape, model = ours.recipe._shape, ours.state.model
    criterion, targets = Criterion(shape.rate, ours.recipe.settings.loss), Targets(shape, 8)
    x = heard(ours.batch, shape)
    target = targets.of(model.teachers[0], 0, x, ours.batch, 0)
    y = model.teachers[0].valid(x).detach().requires_grad_()

    def loss() -> None:
        sum(term.total for term in criterion(y, criterion.reference(target)).values()).backward()

    steps, losses = [], []
    for _ in range(repeats + 1):
        for times, work in ((steps, ours.step), (losses, loss)):
            begun = time.perf_counter()
            work()
            times.append(time.perf_counter() - begun)
    own, complete = float(np.median(losses[1:])), float(np.median(steps[1:]))
    return Row("16c", "Mask and loss, of an update of that WaveNet", own, complete, "s", own / complete,
               f"<= {SHARE:g}", own <= SHARE * complete, f"{batch} tones")  # fmt: skip
