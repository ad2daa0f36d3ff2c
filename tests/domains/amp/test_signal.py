"""The formulas of the amp domain against independent ways to compute them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.domains.amp import ear_reference
from training.domains.amp.demo.circuit import circuit
from training.domains.amp.demo.fitting import folded, network
from training.domains.amp.networks.lstm import LSTM
from training.domains.amp.signal import filters, measures, nmr, running, tones

RATE, LENGTH = 44_100, tones.TRAINING_LENGTH


def drive(x: torch.Tensor) -> torch.Tensor:
    return torch.tanh(20 * (x + 0.1))


def of_notes(*notes: float, length: int = LENGTH, level: float = 0.5):
    """(cycles, amplitude, phase) of tones."""
    k = tones.cycles(tones.frequency(torch.tensor(notes)), length, RATE)
    return k, torch.full((len(notes),), level).double(), torch.linspace(0, 1, len(notes)).double()


def decibels(ratio: torch.Tensor) -> torch.Tensor:
    return 10 * torch.log10(ratio + 1e-40)


def test_lengths_are_prime_so_that_no_alias_meets_a_harmonic():
    for length in (LENGTH, 44_101, 48_017, tones.judged_length(96_000)):
        assert all(length % divisor for divisor in range(2, math.isqrt(length) + 1))
    assert tones.next_prime(8_200) == LENGTH


def test_target_of_a_tone_is_what_64_times_the_rate_gives():
    k, amplitude, phase = of_notes(30, 60, 90, 120)
    target = tones.without_aliases(drive(tones.tone(k, amplitude, phase, LENGTH, 0, LENGTH)), k)
    fine = torch.stack([
        drive(tones.tone(k, amplitude, phase, LENGTH, 0, LENGTH, delay=part / 64)) for part in range(64)
    ], -1).flatten(1)  # fmt: skip
    truth = torch.fft.irfft(torch.fft.rfft(fine)[:, : LENGTH // 2 + 1] / 64, n=LENGTH)
    assert decibels(measures.esr(target, truth)).max() < -200


def test_target_of_a_network_with_memory_is_what_64_times_the_rate_gives():
    torch.manual_seed(0)
    hard = folded(network(RATE), 20.0).double()
    k, amplitude, phase = of_notes(60, 90)
    every = (k, amplitude, phase, LENGTH)
    with torch.no_grad():
        target = tones.without_aliases(running.settled(hard, *every, dtype=torch.float64), k)
        truth = running.settled_oversampled(hard, *every, 64, dtype=torch.float64)
    assert decibels(measures.esr(target, truth)).max() < -200
    assert decibels(measures.asr(running.settled(hard, *every, dtype=torch.float64), k)).max() > -100


def test_a_long_tone_keeps_its_phase():
    k, amplitude, phase = of_notes(69)
    far = tones.tone(k, amplitude, phase, LENGTH, 1000 * LENGTH, 1001 * LENGTH)
    assert torch.equal(far, tones.tone(k, amplitude, phase, LENGTH, 0, LENGTH))


@pytest.mark.parametrize("note", [60, 84, 108, 120])
def test_nmr_is_that_of_an_independent_implementation(note):
    length = 8_821  # prime: 0.2 s
    k, amplitude, phase = of_notes(note, length=length)
    y = drive(tones.tone(k, amplitude, phase, length, 0, length))
    target = tones.without_aliases(y, k)
    own = nmr.Ear(RATE).nmr(y, target)
    assert float(own[0]) == pytest.approx(ear_reference.nmr(y[0].numpy(), target[0].numpy(), RATE), abs=0.02)


@pytest.mark.parametrize("note", [84, 108, 120])
def test_nmr_is_that_of_the_published_way_to_separate_aliases(note):
    """A Chebyshev window over 44,100 samples of the same tone; below, its partials are too close for it."""
    length = tones.judged_length(RATE)
    k, amplitude, phase = of_notes(note, length=length)
    y = drive(tones.tone(k, amplitude, phase, length, 0, length))
    own = nmr.Ear(RATE).nmr(y, tones.without_aliases(y, k))
    hertz = float(k[0]) * RATE / length
    window = y[0, :RATE].numpy()
    other = ear_reference.nmr(window, ear_reference.without_aliases(window, hertz, RATE), RATE)
    assert float(own[0]) == pytest.approx(other, abs=0.02)


def test_nmr_in_float32_is_that_in_float64():
    k, amplitude, phase = of_notes(84, 100, 120)
    y = drive(tones.tone(k, amplitude, phase, LENGTH, 0, LENGTH))
    target = tones.without_aliases(y, k)
    exact, single = nmr.Ear(RATE).nmr(y, target), nmr.Ear(RATE, torch.float32).nmr(y.float(), target.float())
    assert (exact - single).abs().max() < 0.01


def test_bands_are_those_of_the_standard():
    bands = nmr.bands()
    assert bands.shape == (109, 3)
    # ITU-R BS.1387-2, table 6: the first, the 50th and the last band
    assert bands[0].tolist() == pytest.approx([80.0, 91.708, 103.445], abs=5e-3)
    assert bands[49].tolist() == pytest.approx([2064.590, 2103.573, 2143.227], abs=5e-3)
    assert bands[108].tolist() == pytest.approx([17385.420, 17690.045, 18000.0], abs=5e-3)


def test_nmr_has_a_gradient_where_nothing_is_wrong():
    k, amplitude, phase = of_notes(84)
    target = tones.tone(k, amplitude, phase, LENGTH, 0, LENGTH).float()
    y = target.clone().requires_grad_()
    nmr.Ear(RATE, torch.float32).nmr(y, target).sum().backward()
    assert torch.isfinite(y.grad).all()


def dilated(x: torch.Tensor, net, factor: int) -> torch.Tensor:
    """A WaveNet of one array with every delay times `factor`: x [B, T] -> [B, T], from rest."""
    array = net.arrays[0]
    time = x.shape[1]
    silence = net.receptive_field * factor
    sound = torch.cat([x.new_zeros(len(x), silence), x], 1)[:, None]
    residual, total = torch.nn.functional.conv1d(sound, array.rechannel.weight), 0
    for layer in array.layers:
        z = torch.nn.functional.conv1d(
            residual, layer.conv.weight, layer.conv.bias, dilation=layer.shape.dilation * factor
        )
        lasts = z.shape[2]
        activated = torch.tanh(z + layer.mixer(sound[:, :, -lasts:]))
        total = activated if isinstance(total, int) else total[:, :, -lasts:] + activated
        residual = residual[:, :, -lasts:] + layer.layer1x1(activated)
    return net.head_scale * array.head(total)[:, 0, -time:]


@pytest.mark.parametrize("factor", [2, 8])
def test_oversampled_wavenet_is_the_dilated_one(factor):
    torch.manual_seed(1)
    net = folded(network(RATE), 5.0).double()
    x = torch.randn(2, 600, dtype=torch.float64)
    taps = running.oversampling_taps(factor)
    stuffed = x.new_zeros(2, 600, factor)
    stuffed[..., 0] = x * factor
    up = filters.filtered(stuffed.flatten(1), taps)
    with torch.no_grad():
        expected = filters.filtered(dilated(up, net, factor), taps)[:, ::factor]
        found = running.oversampled(net.play, x, factor)
    assert (found - expected).abs().max() < 1e-12


def test_oversampled_lstm_is_the_one_with_delayed_feedback():
    torch.manual_seed(2)
    net, factor = LSTM(1, 5, RATE).double(), 4
    x = torch.randn(1, 200, dtype=torch.float64)
    taps = running.oversampling_taps(factor)
    stuffed = x.new_zeros(1, 200, factor)
    stuffed[..., 0] = x * factor
    up = filters.filtered(stuffed.flatten(1), taps)[0]
    # sample n reads the state that sample n - factor has left
    states, answers = [net.start(1)] * factor, []
    with torch.no_grad():
        for n, value in enumerate(up):
            y, states[n % factor] = net(value.reshape(1, 1), states[n % factor])
            answers.append(y[0, 0])
        expected = filters.filtered(torch.stack(answers)[None], taps)[:, ::factor]
        found = running.oversampled(net.play, x, factor)
    assert (found - expected).abs().max() < 1e-12


@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000])
def test_filter_of_the_loss_passes_12_and_stops_16_kilohertz(rate):
    taps = filters.loss_taps(rate)
    size = 1 << 16
    response = 20 * torch.log10(torch.fft.rfft(taps, n=size).abs() + 1e-12)
    hertz = torch.fft.rfftfreq(size, 1 / rate, dtype=torch.float64)
    assert response[hertz <= 12_000].abs().max() < 0.01
    assert response[hertz >= 16_000].max() < -78  # the formula for the order is an estimate
    assert torch.equal(taps, taps.flip(0))
    assert len(taps) % 2


def test_filters_have_no_delay():
    x = torch.zeros(1, 400, dtype=torch.float64)
    x[0, 200] = 1
    y = filters.filtered(x, filters.loss_taps(RATE))
    assert int(y[0].argmax()) == 200
    ones = filters.filtered(torch.ones(1, 400, dtype=torch.float64), filters.loss_taps(RATE))
    assert ones[0, 100:300].sub(1).abs().max() < 1e-9


def test_fast_lengths_are_the_smallest_without_a_large_prime():
    def smooth(number: int) -> bool:
        for factor in (2, 3, 5):
            while number % factor == 0:
                number //= factor
        return number == 1

    for number in (1, 2, 7, 97, 1_000, 4_097, 65_537):
        expected = next(n for n in range(number, 2 * number + 1) if smooth(n))
        assert filters.fast_length(number) == expected


def test_measures_agree_with_their_definitions():
    random = np.random.default_rng(3)
    y, target = random.standard_normal((2, 1, LENGTH))
    k = torch.tensor([700])
    spectrum, right = np.fft.fft(y[0]), np.fft.fft(target[0])
    bins = np.arange(LENGTH)
    harmonic = np.minimum(bins, LENGTH - bins) % 700 == 0
    tensors = torch.from_numpy(y), torch.from_numpy(target)
    assert measures.esr(*tensors).item() == pytest.approx(((y - target) ** 2).sum() / (target**2).sum())
    assert measures.dc(*tensors).item() == pytest.approx((y - target).mean() ** 2 / (target**2).mean())
    energy = np.abs(spectrum) ** 2
    assert measures.asr(tensors[0], k).item() == pytest.approx(energy[~harmonic].sum() / energy[harmonic].sum())
    wrong = np.abs(spectrum - right) ** 2
    assert measures.hesr(*tensors, k).item() == pytest.approx(
        wrong[harmonic].sum() / (np.abs(right) ** 2)[harmonic].sum()
    )


def test_circuit_does_not_alias():
    """A high tone at a high gain: what is between its harmonics is more than 100 dB down."""
    rate, length = 48_000, 48_000
    cycles = 4_001  # 4,001 Hz
    x = 0.5 * torch.sin(2 * math.pi * cycles * torch.arange(length, dtype=torch.float64) / rate)[None]
    y = circuit(x, 20.0, rate)[:, 12_000:36_001]  # a part that is not periodic: windowed
    window = torch.signal.windows.blackman(y.shape[1], sym=False, dtype=torch.float64)
    power = torch.fft.rfft(y * window).abs().square()[0]
    hertz = torch.fft.rfftfreq(y.shape[1], 1 / rate, dtype=torch.float64)
    near = (hertz / cycles - (hertz / cycles).round()).abs() * cycles < 40
    assert 10 * math.log10(power[~near & (hertz < 20_000)].sum() / power[near].sum()) < -80


def test_folding_a_gain_gives_the_answer_to_a_louder_sound():
    torch.manual_seed(4)
    soft = network(48_000)
    x = torch.randn(1, 300)
    with torch.no_grad():
        assert torch.allclose(folded(soft, 7.0).play(x), soft.play(7 * x), atol=1e-6)
