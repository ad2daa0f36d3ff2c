"""The model and its frontend: shapes, ranges, dependence on inputs, levels, and the exported frontend."""

import numpy as np
import pytest
import torch

from tests.domains.music.spectocloud.corpus import make_notes, make_sound
from training.domains.music.audio import HOP, WINDOW_SAMPLES, log_mel
from training.domains.music.clouds.cloud import PATTERN
from training.domains.music.spectocloud.config import Model, SpectocloudConfig
from training.domains.music.spectocloud.frontend import SAMPLES, Frontend
from training.domains.music.spectocloud.model import (
    BANDS,
    QUIET,
    RANGE,
    Core,
    Normalise,
    Patches,
    Spectocloud,
    levelled,
)

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


def test_samples_of_a_batch_are_independent():
    """The output for a sample is the same alone and in a batch of seven."""
    batch = inputs(7)
    for one, among in zip(core()(*(t[3:4] for t in batch)), core()(*batch), strict=True):
        torch.testing.assert_close(one[0], among[3], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_every_input_matters(changed):
    a = inputs(2)
    b = [inputs(2, seed=1)[i] if i == changed else t for i, t in enumerate(a)]
    assert not torch.allclose(core()(*a)[0], core()(*b)[0])


@pytest.mark.parametrize("axis", [1, 2])
def test_the_order_of_bands_and_frames_matters(axis):
    """Without position embeddings, the encoder would not depend on the order of patches."""
    spectrogram, *rest = inputs(1)
    model = core()
    swapped = spectrogram.roll(64 if axis == 1 else 32, axis)
    assert not torch.allclose(model(spectrogram, *rest)[0], model(swapped, *rest)[0], atol=1e-5)


@pytest.mark.parametrize("k", [0, 3, 7])
def test_an_untrained_sub_frame_depends_most_on_its_own_part_of_the_sound(k):
    """Otherwise training predicts the window's average for all sub-frames for hundreds of steps."""
    spectrogram, *rest = inputs(4)
    changed = spectrogram.clone()
    changed[:, :, 8 * k : 8 * k + 8] = torch.randn(4, 128, 8)
    with torch.no_grad():
        a, b = (core()(s, *rest)[0].unflatten(1, (8, 150)).mean(2) for s in (spectrogram, changed))
    assert (a - b).norm(dim=-1).mean(0).argmax() == k


@pytest.mark.parametrize("k", [2, 5])
def test_a_column_of_patches_is_centred_on_its_sub_frame(k):
    """Frames are centred on their samples, so the middle of a sub-frame is frame 8k + 4. With filters that are
    symmetric in time, a column responds equally to impulses at equal distances before and after its middle, and its
    neighbours respond mirrored."""
    torch.manual_seed(0)
    patches = Patches(32).eval()
    impulses = torch.zeros(64, 128, 64)
    impulses[torch.arange(64), 40, torch.arange(64)] = 1.0
    with torch.no_grad():
        for layer in patches.layers:
            if isinstance(layer, torch.nn.Conv2d):
                layer.weight += layer.weight.flip(-1)
        answers = (patches(impulses) - patches(torch.zeros(1, 128, 64))).unflatten(1, (BANDS, 8))
    for away in range(5):
        early, late = answers[8 * k + 4 - away], answers[8 * k + 4 + away]
        torch.testing.assert_close(early[:, k], late[:, k])
        torch.testing.assert_close(early[:, k - 1], late[:, k + 1])
        assert early[:, k].abs().max() > 1e-4
    beyond = torch.cat([answers[: 8 * k - 4, :, k], answers[8 * k + 13 :, :, k]])
    assert beyond.abs().max() < 1e-6


def test_points_have_the_renderers_pattern():
    """Each sub-frame is an affine image of the pattern, centred on its time."""
    with torch.no_grad():
        positions = core()(*inputs(1))[0][0].numpy().reshape(8, 150, 3)
    for k in range(8):
        spread = positions[k].std(0)
        np.testing.assert_allclose(positions[k], positions[k].mean(0) + spread * PATTERN, atol=1e-5)
        assert positions[k, :, 0].mean() == pytest.approx((k + 0.5) / 8, abs=1e-5)


def test_every_parameter_gets_a_finite_gradient():
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


def test_the_full_model_has_5_to_12_million_parameters():
    weights = sum(p.numel() for p in Core(SpectocloudConfig().model).parameters())
    assert 5e6 <= weights <= 12e6


def test_the_trained_model_is_the_core_on_normalised_input():
    """Spectocloud(log-mel) is Core(levelled and normalised log-mel)."""
    logmel, emotion, features = inputs(2)
    mean, std = np.linspace(-9, -3, 128), np.array([2.5])
    model = Spectocloud(SMALL, mean, std).eval()
    want = model.core((levelled(logmel) - torch.tensor(mean, dtype=torch.float32)[:, None]) / 2.5, emotion, features)
    for a, b in zip(model(logmel, emotion, features), want, strict=True):
        torch.testing.assert_close(a, b)
    assert {"normalise.mean", "normalise.std"} <= model.state_dict().keys()


@torch.no_grad()
def test_the_level_of_a_recording_has_no_effect():
    """15 dB softer, as in another master of the same music, in one of two windows."""
    generator = torch.Generator().manual_seed(0)
    logmel = 4 - 10 * torch.rand(2, 128, 64, generator=generator)
    softer = torch.stack([logmel[0] - 15 * np.log(10) / 10, logmel[1]])
    _, emotion, features = inputs(2)
    model = Spectocloud(SMALL, np.linspace(-9, -3, 128), np.array([2.5])).eval()
    for a, b in zip(model(logmel, emotion, features), model(softer, emotion, features), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_weights_of_a_version_without_levelling_are_refused():
    model = Spectocloud(SMALL, np.linspace(-9, -3, 128), np.array([2.5]))
    before = {name: value for name, value in model.state_dict().items() if name != "normalise.range"}
    with pytest.raises(RuntimeError, match=r"normalise\.range"):
        model.load_state_dict(before)


def test_quiet_windows_are_not_amplified():
    noise = torch.full((1, 128, 64), -11.0)
    assert levelled(noise).max() == -11.0 - QUIET
    noise[0, 3, 5] = 4.0
    assert levelled(noise).min() == pytest.approx(-RANGE) and levelled(noise).max() == 0


# -- the frontend --------------------------------------------------------------------------------------------------


def frontend() -> Frontend:
    rng = np.random.default_rng(0)
    return Frontend(Normalise(rng.uniform(-9, -3, 128), np.array([2.5]))).eval()


@pytest.mark.parametrize("start", [0, 1, 30])
def test_the_frontend_equals_a_window_of_the_stored_log_mel(start):
    """From any frame, including the first (zeros before the recording)."""
    wave = make_sound(make_notes(np.random.default_rng(3), 4.0), 4.0)
    want = levelled(torch.from_numpy(log_mel(wave)[start : start + 64].T.copy())).numpy()
    padded = np.concatenate([np.zeros(HOP, np.float32), wave])
    heard = torch.from_numpy(padded[start * HOP : start * HOP + SAMPLES])[None]
    model = frontend()
    got = (model(heard) * model.normalise.std + model.normalise.mean)[0].numpy()
    assert SAMPLES == WINDOW_SAMPLES == 66_560
    np.testing.assert_allclose(got, want, atol=2e-3)
    assert want.std() > 1


def test_silence_is_finite():
    assert torch.isfinite(frontend()(torch.zeros(2, SAMPLES))).all()
