"""The renderer is deterministic to the byte, and every channel shows its musical parameter."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from training.domains.music.clouds import cloud
from training.domains.music.clouds.cloud import PARTICLES, PATTERN, PER_SUBFRAME, SUBFRAMES, lifeline, place, render
from training.domains.music.midi.notes import NOTE

ROOT = Path(__file__).resolve().parents[3]
CALM, NEUTRAL, FURIOUS = [0.4, -0.6, 0.3], [0.0, 0.0, 0.5], [-0.7, 0.9, 0.9]
#: SHA-256 of four clouds of `piece(3)`, computed on x86-64 with AVX-512; every other machine must give the same.
GOLDEN = "091f98259a33103d483252592baf420cfdf6ad12635e2eb2e1faef9179334b82"


def notes_of(rows: list[tuple]) -> np.ndarray:
    """(onset, duration, pitch, velocity[, drum]) -> NOTE, sorted."""
    notes = np.array([(*row[:4], 0, bool(row[4]) if len(row) > 4 else False) for row in rows], NOTE)
    return np.sort(notes, order=["onset", "program", "pitch"])


def piece(seed: int, seconds: float = 24.0, pace: float = 0.3, velocity: int = 75, centre: int = 60) -> np.ndarray:
    """Chords and a melody over drums, with rests, from integer arithmetic alone (the same on every machine)."""
    rows, state = [], seed * 7919 + 17

    def roll(sides: int) -> int:
        nonlocal state
        state = (state * 1103515245 + 12345) % 2**31
        return (state >> 8) % sides

    for step in range(int(seconds / pace)):
        onset, loud = step * pace, velocity + roll(25) - 12
        if roll(8) == 0:
            continue
        rows.append((onset, pace * (1 + roll(3)) / 2, centre + (0, 2, 4, 7, 9, 12, 14)[roll(7)], loud))
        if step % 4 == 0:
            root = centre - 12 - roll(8)
            rows += [(onset, pace * 4, root + third, loud - 15) for third in (0, 3 + roll(2), 7, 10)[: 2 + roll(3)]]
        if step % 2 == 0:
            rows.append((onset, 0.05, 36 + 2 * roll(4), loud, True))
    return notes_of(rows)


def held(pitch: int = 60, velocity: int = 80, seconds: float = 4.0) -> np.ndarray:
    return notes_of([(0.0, seconds, pitch, velocity)])


def loud_tense() -> np.ndarray:
    """Forte: dissonant chords in the low middle register, four strokes a second."""
    return notes_of([(i * 0.25, 0.25, 48 + p, 105) for i in range(20) for p in (0, 6, 11, 13)])


def calm() -> np.ndarray:
    """Soft open fifths, one in two seconds."""
    return notes_of([(i * 2.0, 1.9, pitch, 45) for i in range(4) for pitch in (48, 55, 64)])


def digest() -> str:
    song, total = piece(3), hashlib.sha256()
    for start, emotion in ((0.0, NEUTRAL), (3.3, CALM), (7.77, FURIOUS), (23.2, [1.0] * 64)):
        drawn = render(song, start, emotion)
        for array in (drawn.positions, drawn.colors, drawn.properties, drawn.lifeline):
            total.update(array.tobytes())
    return total.hexdigest()


# -- determinism ---------------------------------------------------------------------------------------------------


def test_the_same_call_gives_the_same_bytes_in_any_process_and_on_any_vector_unit():
    """In other processes, with and without this machine's wide vector instructions."""
    here = Path(__file__).resolve()
    paths = [str(ROOT), str(here.parent)]
    code = f"import sys; sys.path[:0] = {paths!r}; import test_cloud; print(test_cloud.digest())"
    found = {digest()}
    for disabled in ("", "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"):
        environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": disabled, "PYTHONHASHSEED": "7"}
        run = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        found.add(run.stdout.strip())
    assert found == {GOLDEN}


def test_a_slice_of_a_song_gives_the_same_cloud_as_the_complete_song():
    song = piece(5)
    near = cloud.active_notes(song, 9.0, 12.0)
    assert 0 < len(near) < len(song)
    assert render(near, 10.0, NEUTRAL).positions.tobytes() == render(song, 10.0, NEUTRAL).positions.tobytes()
    longest = float(song["duration"].max())
    assert np.array_equal(near, cloud.active_notes(song, 9.0, 12.0, longest=longest))


def test_notes_that_began_long_before_the_window_are_found():
    song = notes_of([(0.0, 60.0, 40, 90)] + [(i * 0.5, 0.2, 70, 60) for i in range(100)])
    assert 40 in cloud.active_notes(song, 45.0, 46.5)["pitch"]


def test_float32_and_float64_emotions_and_jittered_starts_draw_the_same_cloud():
    song, emotion = piece(1), [0.7, -0.3, 0.4]
    first = render(song, 5.0, emotion)
    for start, other in ((5.0, np.float32(emotion)), (5.0 + 1e-9, emotion), (5.0, emotion + [0.0] * 61)):
        again = render(song, start, other)
        assert again.colors.tobytes() == first.colors.tobytes()
        assert again.positions.tobytes() == first.positions.tobytes()


def test_particles_are_the_pattern_placed_by_the_lifeline_in_index_order():
    """The model's decoder computes positions from centres and spreads, so they must not depend on anything else."""
    drawn = render(piece(2), 6.0, FURIOUS)
    line = drawn.lifeline
    centre = np.stack([line[name] for name in "xyz"], 1)
    spread = np.stack([line[name] for name in ("sx", "sy", "sz")], 1)
    assert drawn.positions.shape == (PARTICLES, 3) and drawn.positions.dtype == np.float32
    np.testing.assert_allclose(drawn.positions, place(centre, spread), atol=1e-5)
    k, i = 5, 77
    expected = centre[k] + spread[k] * PATTERN[i]
    np.testing.assert_allclose(drawn.positions[k * PER_SUBFRAME + i], expected, atol=1e-5)
    np.testing.assert_array_equal(drawn.colors[k * PER_SUBFRAME + i, 3], line["alpha"][k])
    np.testing.assert_array_equal(drawn.properties[k * PER_SUBFRAME + i, 0], line["size"][k])
    for field in line.dtype.names:
        np.testing.assert_array_equal(lifeline(piece(2), 6.0, FURIOUS)[field], line[field])


# -- what the cloud shows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(36, 48), (60, 61), (72, 84)])
def test_higher_notes_raise_the_cloud(low, high):
    means = [render(held(pitch), 0.5, NEUTRAL).positions[:, 1].mean() for pitch in (low, high)]
    assert means[1] > means[0]
    assert means[1] - means[0] == pytest.approx((high - low) / 52, abs=1e-3)


def test_louder_notes_are_larger():
    sizes = [render(held(velocity=velocity), 0.5, NEUTRAL).properties[:, 0].mean() for velocity in (30, 60, 90, 120)]
    assert sizes == sorted(set(sizes))
    assert sizes[0] == pytest.approx(0.15 + 0.85 * 0.1, abs=1e-3)


def test_valence_maps_to_colours_from_blue_to_red():
    song = held()
    blue, grey, red = (render(song, 0.5, [valence, 0, 0.5]).colors[:, :3].mean(0) for valence in (-1, 0, 1))
    assert blue[2] > blue[0] + 0.3
    assert red[0] > red[2] + 0.3
    assert np.ptp(grey) < 0.02


def test_coolwarm_is_the_published_map():
    """Compared with matplotlib's, which is nearly the same (a mid-grey of .865 instead of .867)."""
    import matplotlib

    for valence in np.linspace(-1, 1, 41):
        expected = matplotlib.colormaps["coolwarm"]((valence + 1) / 2)[:3]
        np.testing.assert_allclose(cloud.coolwarm(valence), expected, atol=0.02)


@pytest.mark.parametrize("arousal", [-1.0, -0.8, -0.01, 0.0, 0.8, 1.0])
def test_any_arousal_is_valid(arousal):
    drawn = render(piece(4), 3.0, [0.1, arousal, 0.5])
    for array in (drawn.positions, drawn.colors, drawn.properties):
        assert np.isfinite(array).all()
    assert drawn.colors.min() >= 0 and drawn.colors.max() <= 1
    assert drawn.properties.min() >= 0 and drawn.properties.max() <= 1


def test_negative_arousal_has_the_effect_of_zero():
    still, none = (render(piece(4), 3.0, [0.1, arousal, 0.5]) for arousal in (-0.8, 0.0))
    assert still.positions.tobytes() == none.positions.tobytes()
    excited = render(piece(4), 3.0, [0.1, 0.8, 0.5])
    assert excited.positions[:, 2].std() > none.positions[:, 2].std()
    assert excited.colors[:, 3].mean() > none.colors[:, 3].mean()


def test_alpha_shows_the_storm_and_the_arousal():
    for emotion in (CALM, FURIOUS):
        line = lifeline(held(), 0.5, emotion)
        expected = np.clip(0.25 + 0.55 * line["charge"] + 0.2 * max(0.0, emotion[1]), 0, 1)
        np.testing.assert_allclose(line["alpha"], expected, atol=1e-4)


def test_depth_follows_a_particles_height_and_glow_whitens_its_colour():
    drawn = render(loud_tense(), 0.5, FURIOUS)
    height = np.clip(drawn.positions[:, 2], 0, 1)
    np.testing.assert_allclose(drawn.properties[:, 2], 0.3 + 0.7 * height**1.5, atol=1e-4)
    base, glow = cloud.coolwarm(FURIOUS[0]), drawn.properties[:, 1:2]
    np.testing.assert_allclose(drawn.colors[:, :3], base + (1 - base) * 0.5 * glow, atol=2e-4)


def test_every_channel_varies_over_a_corpus():
    rows = []
    for seed in range(6):
        song = piece(seed, pace=(0.12, 0.2, 0.3, 0.45, 0.6, 0.9)[seed], velocity=40 + 14 * seed, centre=48 + 5 * seed)
        for start in (1.0, 6.5, 13.0):
            drawn = render(song, start, [seed / 2.5 - 1, 1 - seed / 2.5, 0.5])
            rows.append(np.concatenate([drawn.positions, drawn.colors, drawn.properties], 1))
    channels = np.array(rows)  # [clouds, 1200, 10]
    assert channels.shape[2] == 10
    assert (channels.std(axis=(0, 1)) > 0.02).all()
    between = channels[:, :, 1:].mean(axis=1).std(axis=0)  # time is laid out the same in every cloud
    assert (between > 0.01).all()


def test_the_cone_opens_along_time():
    line = render(held(), 0.5, NEUTRAL).lifeline
    assert (np.diff(line["sz"]) > 0).all() and (np.diff(line["x"]) > 0).all()


def test_lightning_strikes_about_once_in_loud_tense_excited_music_and_never_in_calm():
    starts = np.arange(0, 3.4, 0.17)
    strikes = [lifeline(loud_tense(), start, [-0.5, 0.8, 0.9])["lightning"].sum() for start in starts]
    assert 0.6 <= np.mean(strikes) <= 1.6
    tension = lifeline(loud_tense(), 1.0)["tension"]
    assert tension.min() > 0.6
    for song, emotion in ((calm(), CALM), (calm(), NEUTRAL), (loud_tense(), [0.0, -0.8, 0.5])):
        assert not any(lifeline(song, start, emotion)["lightning"].any() for start in starts)


@pytest.mark.parametrize("chord", [(57,), (48, 60, 64, 67), (48, 54, 59, 61)])
@pytest.mark.parametrize("arousal", [-0.5, 0.8])
def test_louder_music_adds_more_energy_to_the_storm(chord, arousal):
    energies = []
    for velocity in (25, 50, 75, 100, 120):
        strokes = notes_of([(i * 0.25, 0.25, pitch, velocity) for i in range(16) for pitch in chord])
        energies.append(lifeline(strokes, 0.5, [0, arousal, 0.5])["energy"].mean())
    assert energies == sorted(set(energies))


def test_lightning_makes_particles_glow():
    drawn = next(
        c for s in np.arange(0, 3, 0.1) if (c := render(loud_tense(), s, [0, 0.8, 1])).lifeline["lightning"].any()
    )
    glow = drawn.properties[:, 1].reshape(SUBFRAMES, PER_SUBFRAME)
    struck = drawn.lifeline["lightning"]
    assert glow[struck].max() > 0.8
    assert glow[~struck].max() <= 0.65


# -- the musical parameters ----------------------------------------------------------------------------------------


def test_silence_keeps_the_last_pitch_and_shows_nothing():
    song = notes_of([(0.0, 0.55, 72, 90)])
    line = lifeline(song, 0.0, FURIOUS)
    assert line["silent"].tolist() == [False] * 3 + [True] * 5
    np.testing.assert_allclose(line["y"], (72 - 36) / 52, atol=1e-4)
    still = line[line["silent"]]
    for field, value in (("z", 0), ("alpha", 0), ("sx", 0.02), ("sy", 0.02), ("sz", 0.02)):
        np.testing.assert_allclose(still[field], value, atol=1e-5)
    drawn = render(song, 0.0, FURIOUS)
    assert drawn.properties[3 * PER_SUBFRAME :, 1].max() == 0


def test_silence_before_the_first_note_has_its_pitch_and_an_empty_window_the_default():
    late = lifeline(notes_of([(1.2, 0.5, 84, 90)]), 0.0)
    np.testing.assert_allclose(late["y"], (84 - 36) / 52, atol=1e-4)
    empty = render(np.zeros(0, NOTE), 0.0, NEUTRAL)
    assert empty.lifeline["silent"].all() and (empty.lifeline["y"] == 0.5).all()
    assert (empty.colors[:, 3] == 0).all()


def test_drums_affect_density_and_loudness_but_neither_pitch_nor_tension():
    tones = [(0.0, 3.0, 60, 80), (0.0, 3.0, 64, 80)]
    drums = [(0.1 * i, 0.05, 36 + i % 3, 80, True) for i in range(20)]
    without, with_drums = lifeline(notes_of(tones), 0.2), lifeline(notes_of(tones + drums), 0.2)
    assert (with_drums["density"] > without["density"] + 0.5).all()
    for field in ("pitch", "range", "tension", "velocity"):
        np.testing.assert_array_equal(with_drums[field], without[field])
    alone = lifeline(notes_of(drums), 0.2)
    assert not alone["silent"].any() and (alone["tension"] == 0).all() and (alone["y"] == 0.5).all()


def test_density_counts_chords_once():
    scale = notes_of([(i * 0.25, 0.2, 60 + i, 80) for i in range(20)])
    chords = notes_of([(i * 0.25 + j * 0.004, 0.2, 60 + 4 * j, 80) for i in range(20) for j in range(4)])
    np.testing.assert_allclose(lifeline(chords, 0.1)["density"], lifeline(scale, 0.1)["density"], atol=1e-4)
    assert lifeline(scale, 0.1)["density"].mean() == pytest.approx(0.4, abs=0.06)


def test_a_tail_too_short_to_hear_does_not_sound():
    edge = 8192 / 44100
    line = lifeline(notes_of([(0.0, edge + 0.005, 40, 90), (edge, 1.0, 80, 90)]), 0.0)
    assert line["range"][1] == 0
    staccato = lifeline(notes_of([(0.05, 0.004, 60, 90)]), 0.0)
    assert not staccato["silent"][0]


def test_pitch_follows_loudness():
    even = lifeline(notes_of([(0, 2, 48, 80), (0, 2, 72, 80)]), 0.0)["pitch"]
    high = lifeline(notes_of([(0, 2, 48, 30), (0, 2, 72, 110)]), 0.0)["pitch"]
    np.testing.assert_allclose(even, (60 - 36) / 52, atol=1e-4)
    np.testing.assert_allclose(high, ((48 * 30 + 72 * 110) / 140 - 36) / 52, atol=1e-4)


@pytest.mark.parametrize("emotion", [[0.1, 0.2], [[0, 0, 0]], [0.0, float("nan"), 0.5], [0.0] * 63])
def test_a_malformed_emotion_is_refused(emotion):
    with pytest.raises(ValueError, match="emotion"):
        render(held(), 0.0, emotion)


def test_a_cloud_is_drawn_in_a_few_milliseconds():
    """It is drawn once per training sample, in data loader workers; measured: .6 ms on one core of a CPU of 2020."""
    song = piece(1, seconds=240, pace=0.1)
    best = min(_seconds(song, start) for start in np.arange(1, 60, 2.0))
    assert best < 0.006


def _seconds(song: np.ndarray, start: float) -> float:
    began = time.perf_counter()
    render(song, start, NEUTRAL)
    return time.perf_counter() - began
