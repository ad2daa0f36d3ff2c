"""The model and its frontend: shapes, ranges, what it hears, and that both leave as files that compute the same."""

import numpy as np
import pytest
import torch

from tests.models.spectocloud.corpus import make_notes, make_sound
from training.models.spectocloud.config import Model, SpectocloudConfig
from training.models.spectocloud.frontend import SAMPLES, Frontend
from training.models.spectocloud.hearing import HARMONICS, Hearing, harmonic_table
from training.models.spectocloud.model import MOOD, Core, Normalise, Particles, Spectocloud
from training.music.audio import HOP, WINDOW_SAMPLES, log_mel
from training.music.clouds.anchors import PARAMETERS
from training.music.clouds.cloud import LOWEST_PITCH, PATTERN, PITCHES, coolwarm, lifeline, pitch_roll, render
from training.music.midi.notes import NOTE

SMALL = Model(width=32, layers=1, heads=2, mlp_ratio=2, particle_width=8, dropout=0.0)


def inputs(batch: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(seed)
    return torch.randn(batch, 128, 64), torch.randn(batch, 64).clamp(-1, 1), torch.rand(batch, 32)


def core(settings: Model = SMALL) -> Core:
    torch.manual_seed(0)
    return Core(settings).eval()


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_any_batch_gives_clouds_with_channels_in_range(batch):
    positions, colors, properties = core()(*inputs(batch))
    assert [tuple(t.shape) for t in (positions, colors, properties)] == [(batch, 1200, n) for n in (3, 4, 3)]
    assert all(t.min() >= 0 and t.max() <= 1 for t in (colors, properties))


def test_samples_of_a_batch_do_not_see_each_other():
    """E2: what one sample gives is the same alone and among seven."""
    whole = inputs(7)
    for one, among in zip(core()(*(t[3:4] for t in whole)), core()(*whole), strict=True):
        torch.testing.assert_close(one[0], among[3], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_every_input_matters(changed):
    a = inputs(2)
    b = [inputs(2, seed=1)[i] if i == changed else t for i, t in enumerate(a)]
    assert not torch.allclose(core()(*a)[0], core()(*b)[0])


@pytest.mark.parametrize("axis", [1, 2])
def test_the_order_of_bands_and_frames_matters(axis):
    """M1, in this model: without places, the encoder would take patches for a bag."""
    spectrogram, *rest = inputs(1)
    model = core()
    swapped = spectrogram.roll(64 if axis == 1 else 32, axis)
    assert not torch.allclose(model(spectrogram, *rest)[0], model(swapped, *rest)[0], atol=1e-5)


@pytest.mark.parametrize("k", [0, 3, 7])
def test_a_sub_frame_listens_first_to_its_own_stretch_of_sound(k):
    """Otherwise training draws the window's average eight times over for hundreds of steps."""
    spectrogram, *rest = inputs(4)
    changed = spectrogram.clone()
    changed[:, :, 8 * k : 8 * k + 8] = torch.randn(4, 128, 8)
    with torch.no_grad():
        a, b = (core()(s, *rest)[0].unflatten(1, (8, 150)).mean(2) for s in (spectrogram, changed))
    assert (a - b).norm(dim=-1).mean(0).argmax() == k


def test_points_lie_on_the_renderers_pattern():
    """Each sub-frame is an affine image of the pattern, centred on its own stretch of time."""
    with torch.no_grad():
        positions = core()(*inputs(1))[0][0].numpy().reshape(8, 150, 3)
    for k in range(8):
        spread = positions[k].std(0)
        np.testing.assert_allclose(positions[k], positions[k].mean(0) + spread * PATTERN, atol=1e-5)
        assert positions[k, :, 0].mean() == pytest.approx((k + 0.5) / 8, abs=1e-5)


def told(decoder: Particles, line: np.ndarray) -> tuple[torch.Tensor, ...]:
    """The decoder with the truth put where its heads would guess: parameters, silence and charge of LIFELINE [8]."""
    truth = np.stack([line[name] for name in PARAMETERS], 1)
    for layer, values in (
        (decoder.heard, truth * [0, 0, 1, 1, 0]),
        (decoder.silence, np.where(line["silent"], 20.0, -20.0)[:, None]),
        (decoder.charge, line["charge"][:, None]),
    ):
        layer.forward = lambda _, values=values: torch.tensor(np.array(values)[None], dtype=torch.float32)
    return torch.tensor(truth[None, :, [0, 1, 4]], dtype=torch.float32)


@pytest.mark.parametrize("emotion", [(-0.9, -0.8, 0.3), (0.03, 0.0, 0.5), (0.61, 0.9, 1.0)])
def test_who_hears_rightly_draws_the_renderers_cloud(emotion):
    """The decoder knows the renderer's formulas: but for glow, all that it has to learn is what sounds."""
    notes = make_notes(np.random.default_rng(5), 4.0)
    notes = notes[(notes["onset"] < 0.3) | (notes["onset"] > 1.0)]  # silence in between
    want = render(notes, 0.2, emotion)
    assert 0 < want.lifeline["silent"].sum() < 8
    decoder, felt = Particles(32, 8).eval(), torch.zeros(1, 64)
    felt[0, :3] = torch.tensor(emotion)
    with torch.no_grad():
        positions, colors, properties, _ = decoder(
            torch.zeros(1, 8, 32), told(decoder, want.lifeline), torch.zeros(1, MOOD), felt
        )
    np.testing.assert_allclose(positions[0], want.positions, atol=1e-4)
    np.testing.assert_allclose(colors[0, :, 3], want.colors[:, 3], atol=1e-4)
    np.testing.assert_allclose(properties[0, :, ::2], want.properties[:, ::2], atol=1e-3)
    whitened = 1 - 0.5 * properties[0, :, 1:2].numpy()  # by the glow that it guessed
    np.testing.assert_allclose(1 - colors[0, :, :3], (1 - coolwarm(emotion[0])) * whitened, atol=1e-3)


def test_a_clouds_own_place_can_be_learnt():
    """A row may bring a cloud that no formula made."""
    decoder = Particles(32, 8)
    inputs = torch.randn(1, 8, 32), torch.full((1, 8, 3), 0.5), torch.zeros(1, MOOD), torch.zeros(1, 64)
    with torch.no_grad():
        before = decoder(*inputs)
        decoder.moved.bias += torch.tensor([0.1, -0.2])
        decoder.widened.bias += 0.5
        after = decoder(*inputs)
    moved = (after[0] - before[0]).unflatten(1, (8, 150)).mean(2)
    np.testing.assert_allclose(moved[0], np.tile([0, 0.1, -0.2], (8, 1)), atol=1e-5)
    ratio = after[0].unflatten(1, (8, 150)).std(2) / before[0].unflatten(1, (8, 150)).std(2)
    np.testing.assert_allclose(ratio[0], np.exp(0.5), rtol=1e-4)
    torch.testing.assert_close(after[3], before[3])


def test_a_pitch_is_shown_its_own_harmonics():
    table = harmonic_table().reshape(len(HARMONICS), PITCHES, 128)
    spectrum = log_mel(np.sin(2 * np.pi * 880 * np.arange(8192) / 44100).astype(np.float32))[4].astype(np.float32)
    for number, harmonic in enumerate(HARMONICS[:4]):  # 880 Hz is the n-th harmonic of 880 / n Hz
        loudest = LOWEST_PITCH + (table[number] @ spectrum).argmax()
        assert loudest == pytest.approx(81 - 12 * np.log2(harmonic), abs=1)
    hertz = np.outer(HARMONICS, 440 * 2 ** ((np.arange(PITCHES) + LOWEST_PITCH - 69) / 12))
    heard = table.sum(-1)
    np.testing.assert_allclose(heard[hertz < 20_000], 1, rtol=1e-5)
    assert not heard[hertz > 22_050].any() and (hertz > 22_050).any()


def test_who_knows_which_pitches_sound_reads_off_the_renderers_parameters():
    """Held chords, equally loud: mean, range and tension follow from the pitches alone."""
    chords = [(60,), (48, 60, 64, 67), (36, 84), (50, 51, 57, 62), (40, 47, 52, 56, 59, 64, 88, 90)]
    for chord in chords:
        notes = np.array([(0.0, 3.0, pitch, 80, 0, False) for pitch in chord], NOTE)
        hearing, roll = Hearing(16, 4).eval(), pitch_roll(notes, 0.5)
        torch.nn.init.zeros_(hearing.read.weight)
        torch.nn.init.zeros_(hearing.read.bias)
        hearing.sounds.forward = lambda _, roll=roll: torch.from_numpy(20 * (2 * roll.T[None, None] - 1))
        with torch.no_grad():
            _, read, logits = hearing(torch.randn(1, 128, 64))
        assert logits.shape == (1, 8, PITCHES) and bool(((logits[0] > 0).numpy() == roll).all())
        line = lifeline(notes, 0.5)
        np.testing.assert_allclose(read[0, :, 0], line["pitch"], atol=1e-3)
        np.testing.assert_allclose(read[0, :, 1].clamp(0, 1), line["range"], atol=0.1)
        np.testing.assert_allclose(read[0, :, 2].clamp(0, 1), line["tension"], atol=0.02)


def test_pitches_are_all_heard_alike():
    """What stands a semitone higher is read a semitone higher: nothing has to be learnt anew for another key."""
    torch.manual_seed(0)
    hearing = Hearing(16, 4).eval()
    comb = torch.randn(1, len(HARMONICS), PITCHES, 64)
    comb[:, :, :30], comb[:, :, -30:] = 0, 0
    with torch.no_grad():
        here, there = (hearing.sounds(hearing.salience(x)) for x in (comb, comb.roll(5, 2)))
    torch.testing.assert_close(here[:, :, 20:-25], there[:, :, 25:-20])


def test_gradients_reach_every_weight_and_stay_finite():
    model = Spectocloud(SMALL, np.zeros(128), np.ones(1)).train()
    out = model(*inputs(2))
    sum(part.square().sum() for part in out).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_points_are_placed_in_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        out = core()(*inputs(2))
    assert all(part.dtype == torch.float32 for part in out)
    assert len(out[0][0, :150, 1].unique()) > 140  # bfloat16 would leave a few dozen heights


def test_the_full_model_has_the_size_that_was_designed():
    weights = sum(p.numel() for p in Core(SpectocloudConfig().model).parameters())
    assert 5e6 <= weights <= 12e6


def test_training_sees_what_the_exported_core_sees():
    """Spectocloud(log-mel) is Core(normalised log-mel)."""
    logmel, emotion, features = inputs(2)
    mean, std = np.linspace(-9, -3, 128), np.array([2.5])
    model = Spectocloud(SMALL, mean, std).eval()
    want = model.core((logmel - torch.tensor(mean, dtype=torch.float32)[:, None]) / 2.5, emotion, features)
    for a, b in zip(model(logmel, emotion, features)[:3], want, strict=True):
        torch.testing.assert_close(a, b)
    assert {"normalise.mean", "normalise.std"} <= model.state_dict().keys()


# -- the frontend --------------------------------------------------------------------------------------------------


def frontend() -> Frontend:
    rng = np.random.default_rng(0)
    return Frontend(Normalise(rng.uniform(-9, -3, 128), np.array([2.5]))).eval()


@pytest.mark.parametrize("start", [0, 1, 30])
def test_the_frontend_equals_a_window_of_the_stored_log_mel(start):
    """P6: on real sound, from any frame, the first included (zeros before the recording)."""
    wave = make_sound(make_notes(np.random.default_rng(3), 4.0), 4.0)
    want = log_mel(wave)[start : start + 64].T
    padded = np.concatenate([np.zeros(HOP, np.float32), wave])
    heard = torch.from_numpy(padded[start * HOP : start * HOP + SAMPLES])[None]
    model = frontend()
    got = (model(heard) * model.normalise.std + model.normalise.mean)[0].numpy()
    assert SAMPLES == WINDOW_SAMPLES == 66_560
    np.testing.assert_allclose(got, want, atol=2e-3)
    assert want.std() > 1


def test_silence_is_finite():
    assert torch.isfinite(frontend()(torch.zeros(2, SAMPLES))).all()
