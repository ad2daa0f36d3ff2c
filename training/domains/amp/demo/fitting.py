"""The demo's capture: a tiny WaveNet that is fitted to the circuit at a low gain.

A network that is fitted to soft distortion hardly aliases. Its gain is raised afterwards, by folding it into the
weights that multiply the sound (`folded`): this is exact, costs nothing, and gives hard distortion from smooth
functions, as captures of high-gain amplifiers have.

The fit takes about a minute of one core, so its result is stored in fitted.json, which the demo reads. (The stored
one was fitted in two parts: 1,500 steps from 0.01 and 900 from 0.005.) To fit another:
`python -m training.domains.amp.demo.fitting`.
"""

from __future__ import annotations

import copy
import functools
import json
import math
from pathlib import Path

import numpy as np
import torch

from training.domains.amp.demo.circuit import circuit
from training.domains.amp.networks.activations import Activation
from training.domains.amp.networks.wavenet import ArrayShape, LayerShape, WaveNet
from training.domains.amp.plucks import playing
from training.domains.amp.signal.measures import esr
from training.domains.amp.student.groups import input_weights
from training.engine.step.optimizer import AdamW

STORED = Path(__file__).parent / "fitted.json"
GAIN, SAMPLE_RATE, STEPS, SEED = 4.0, 48_000, 3_000, 42  # of the stored fit
CHANNELS, DILATIONS = 6, (1, 2, 4, 8, 16)
SOUNDS, SAMPLES = 96, 4_096  # of the excitation
BATCH, WINDOW = 8, 1_024
RATE = 1e-2  # Adam's, at the beginning


def network(sample_rate: int) -> WaveNet:
    """An architecture of version A1 with 823 parameters, not fitted."""
    layers = tuple(LayerShape(3, dilation, Activation("Tanh")) for dilation in DILATIONS)
    return WaveNet((ArrayShape(1, CHANNELS, CHANNELS, layers, 1, 1, True),), 1.0, sample_rate)


def excitation(sample_rate: int, seed: int) -> torch.Tensor:
    """Guitar, noise and sweeps at levels from -40 to 0 dB: float32 [SOUNDS, SAMPLES]."""
    random = np.random.default_rng([seed, 0xA3])
    guitar = playing(10.0, sample_rate, seed)
    seconds = np.arange(SAMPLES) / sample_rate
    sounds = []
    for number in range(SOUNDS):
        if number % 3 == 0:
            begin = random.integers(0, len(guitar) - SAMPLES)
            sound = guitar[begin : begin + SAMPLES].astype(np.float64)
        elif number % 3 == 1:
            sound = np.convolve(random.standard_normal(SAMPLES), np.ones(9) / 9, "same")
        else:
            hertz = 27.5 * 2 ** random.uniform(0, 8)
            sound = np.sin(2 * np.pi * hertz * seconds * (1 + random.uniform(-1, 1) * seconds))
        sounds.append(sound / max(0.05, np.abs(sound).max()) * 10 ** (random.uniform(-40, 0) / 20))
    return torch.from_numpy(np.array(sounds, np.float32))


@functools.lru_cache(maxsize=1)
def answered(gain: float, sample_rate: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The excitation, and the circuit's answer to it: float32 [SOUNDS, SAMPLES] both."""
    x = excitation(sample_rate, seed)
    return x, torch.cat([circuit(part.double(), gain, sample_rate).float() for part in x.split(8)])


def fit(gain: float, sample_rate: int, steps: int, seed: int) -> WaveNet:
    """A network that is fitted to the circuit at `gain`."""
    random = np.random.default_rng([seed, 0xF17])
    x, y = answered(gain, sample_rate, seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = network(sample_rate)
    before = made.receptive_field
    # Adam; torch's own imports the compiler at the first step, for seconds
    optimizer = AdamW(made.parameters(), weight_decay=0.0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        which = torch.from_numpy(random.integers(0, SOUNDS, BATCH))
        begin = int(random.integers(0, SAMPLES - WINDOW - before))
        target = y[which, begin + before : begin + before + WINDOW]
        wrong = made.valid(x[which, begin : begin + before + WINDOW]) - target
        loss = (wrong.square().sum(1) / (target.square().sum(1) + 1e-2)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return made.eval()


def error_db(made: WaveNet, gain: float, seed: int) -> float:
    """The error of a network on the excitation (ESR, in dB), the median over its sounds."""
    x, y = answered(gain, made.sample_rate, seed)
    with torch.no_grad():
        error = esr(made.valid(x), y[:, made.receptive_field :])
    return float(10 * torch.log10(error.median()))


@torch.no_grad()
def folded(original: WaveNet, gain: float) -> WaveNet:
    """The network that answers x as `original` answers gain * x."""
    louder = copy.deepcopy(original)
    for weight in input_weights(louder):
        weight.mul_(gain)
    return louder


def stored() -> tuple[WaveNet, float]:
    """The network of fitted.json, and its error on the excitation (ESR, in dB; the median over sounds)."""
    content = json.loads(STORED.read_text(encoding="utf-8"))
    made = network(SAMPLE_RATE)
    torch.nn.utils.vector_to_parameters(torch.tensor(content["weights"]), made.parameters())
    return made.eval(), content["error_db"]


def main() -> None:
    made = fit(GAIN, SAMPLE_RATE, STEPS, SEED)
    weights = torch.nn.utils.parameters_to_vector(made.parameters()).tolist()
    content = {"gain": GAIN, "error_db": round(error_db(made, GAIN, SEED), 2), "weights": weights}
    STORED.write_text(json.dumps(content) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
