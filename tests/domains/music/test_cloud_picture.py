"""Pictures are PNG files of a fixed size that show the data."""

import numpy as np
import pytest

from training.domains.music.clouds.cloud import render
from training.domains.music.midi.notes import NOTE
from training.domains.music.picture import draw_cloud, draw_clouds, draw_piano_roll


def pixels(path) -> np.ndarray:
    from matplotlib.image import imread

    assert path.read_bytes().startswith(b"\x89PNG")
    return imread(path)[..., :3]


def song() -> np.ndarray:
    notes = np.zeros(24, NOTE)
    notes["onset"], notes["duration"] = np.arange(24) * 0.125, 0.4
    notes["pitch"], notes["velocity"] = 48 + np.arange(24), 50 + 3 * np.arange(24)
    notes["program"], notes["drum"] = np.arange(24) * 5, np.arange(24) % 6 == 5
    return notes


def drawn(valence: float):
    cloud = render(song(), 0.5, [valence, 0.5, 0.5])
    return cloud.positions, cloud.colors, cloud.properties


def test_a_cloud_is_drawn_in_its_colours(tmp_path):
    red = pixels(draw_cloud(*drawn(1.0), tmp_path / "red.png", title="angry"))
    blue = pixels(draw_cloud(*drawn(-1.0), tmp_path / "blue.png"))
    assert red.shape == blue.shape == (900, 1200, 3)
    assert (red[..., 0] - red[..., 2] > 0.3).sum() > 2000
    assert (blue[..., 2] - blue[..., 0] > 0.3).sum() > 2000


def test_transparent_particles_are_invisible(tmp_path):
    positions, colors, properties = drawn(1.0)
    seen = pixels(draw_cloud(positions, colors, properties, tmp_path / "seen.png"))
    gone = colors.copy()
    gone[:, 3] = 0
    unseen = pixels(draw_cloud(positions, gone, properties, tmp_path / "unseen.png"))
    assert (np.ptp(seen, axis=2) > 0.3).sum() > 20 * (np.ptp(unseen, axis=2) > 0.3).sum()


def test_clouds_are_drawn_side_by_side(tmp_path):
    both = pixels(draw_clouds([drawn(1.0), drawn(-1.0)], tmp_path / "two.png", ["target", "prediction"], title="happy"))
    assert both.shape == (900, 2400, 3)
    left, right = both[:, :1200], both[:, 1200:]
    assert (left[..., 0] - left[..., 2]).max() > 0.3 > (left[..., 2] - left[..., 0]).max()
    assert (right[..., 2] - right[..., 0]).max() > 0.3 > (right[..., 0] - right[..., 2]).max()


@pytest.mark.parametrize("notes", [song(), song()[:1], song()[song()["drum"]], np.zeros(0, NOTE)])
def test_a_piano_roll_shows_any_notes(tmp_path, notes):
    path = tmp_path / "roll.png"
    image = pixels(draw_piano_roll(notes, path, title="scale"))
    assert image.shape == (700, 1400, 3)
    bright = (image[63:595, 80:1370].max(axis=2) > 0.3).sum()
    assert (bright > 100) == (len(notes) > 0)


def test_the_same_cloud_gives_the_same_bytes(tmp_path):
    first, second = (draw_cloud(*drawn(0.3), tmp_path / name) for name in ("a.png", "b.png"))
    assert first.read_bytes() == second.read_bytes()
