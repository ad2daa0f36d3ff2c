"""Pictures as PNG files: a cloud in perspective, clouds side by side, and a piano roll."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.domains.music.audio import WINDOW_SECONDS
from training.domains.music.clouds.cloud import PARTICLES, PER_SUBFRAME, SUBFRAMES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NIGHT = "#090c14"
_INK = "#aeb9cf"
_LINES = "#2a3349"
_DPI = 100
#: C2 ... C6 on the pitch axis of a cloud: (pitch - 36) / 52.
_OCTAVES = [(f"C{octave}", (12 * octave + 12 - 36) / 52) for octave in range(1, 8)]
#: General MIDI's sixteen families of eight programs, drums last: name and colour in a piano roll.
_FAMILIES = (
    ("piano", "#7cc4ff"), ("chromatic percussion", "#c3f0ff"), ("organ", "#b39cff"), ("guitar", "#ffb35c"),
    ("bass", "#ff6f61"), ("strings", "#ffd166"), ("ensemble", "#f4e285"), ("brass", "#ff9f1c"),
    ("reed", "#9be564"), ("pipe", "#5ce0b8"), ("synth lead", "#ff6ad5"), ("synth pad", "#c774e8"),
    ("synth effects", "#ad8cff"), ("ethnic", "#e0a96d"), ("percussive", "#d0d0d0"), ("sound effects", "#8d99ae"),
    ("drums", "#8fa0bf"),
)  # fmt: skip


def draw_cloud(
    positions: np.ndarray, colors: np.ndarray, properties: np.ndarray, path: Path, title: str | None = None
) -> Path:
    """Draw one cloud as a PNG of 1200 x 900 pixels. Arrays as in clouds.cloud.Cloud; returns `path`."""
    return draw_clouds([(positions, colors, properties)], path, titles=[title or ""])


def draw_clouds(
    clouds: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    path: Path,
    titles: Sequence[str] = (),
    title: str | None = None,
) -> Path:
    """Draw clouds side by side with equal axes (a target and its prediction), 1200 x 900 pixels each.

    clouds: (positions [n, 3], colors [n, 4], properties [n, 3]) each. Returns `path`.
    """
    figure = _figure(12 * len(clouds), 9)
    points = np.concatenate([positions for positions, _, _ in clouds])
    low = np.minimum(np.percentile(points, 0.1, axis=0), (-0.02, 0.2, 0.0))
    high = np.maximum(np.percentile(points, 99.9, axis=0), (1.02, 0.8, 0.8))
    for i, (positions, colors, properties) in enumerate(clouds):
        place = ((i - 0.03) / len(clouds), 0.0, 1 / len(clouds), 0.96 if title else 1.02)
        axes = figure.add_axes(place, projection="3d")
        _space(axes, low, high)
        _particles(axes, np.asarray(positions), np.asarray(colors), np.asarray(properties))
        if i < len(titles) and titles[i]:
            axes.text2D(0.53, 0.93, titles[i], transform=axes.transAxes, ha="center", color="white", fontsize=17)
    if title:
        figure.text(0.5, 0.965, title, ha="center", color="white", fontsize=20)
    return _save(figure, path)


def draw_piano_roll(notes: np.ndarray, path: Path, title: str | None = None) -> Path:
    """Draw notes (NOTE) as a PNG of 1400 x 700 pixels: hue by instrument family, brightness by velocity, drums
    below. Returns `path`."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Patch, Rectangle

    figure = _figure(14, 7)
    axes = figure.add_axes((0.055, 0.15, 0.925, 0.76 if title else 0.82), facecolor="#0e1320")
    tones, drums = notes[~notes["drum"]], notes[notes["drum"]]
    low, high = (int(tones["pitch"].min()) - 3, int(tones["pitch"].max()) + 3) if len(tones) else (57, 75)
    end = float((notes["onset"] + notes["duration"]).max()) if len(notes) else 1.0
    strip = max(2.0, (high - low) * 0.12) if len(drums) else 0.0

    for pitch in range(low, high + 1):
        if pitch % 12 in (1, 3, 6, 8, 10):
            axes.axhspan(pitch - 0.5, pitch + 0.5, color="#0b0f19", lw=0)
        if pitch % 12 == 0:
            axes.axhline(pitch - 0.5, color=_LINES, lw=0.8)
    family = tones["program"] // 8
    boxes = [Rectangle((n["onset"], n["pitch"] - 0.42), max(n["duration"], end / 1400), 0.84) for n in tones]
    axes.add_collection(
        PatchCollection(boxes, facecolors=_shades(family, tones["velocity"]), edgecolors="#0e1320", linewidths=0.4)
    )
    if len(drums):
        kinds, row = np.unique(drums["pitch"], return_inverse=True)
        y = low - strip + strip * (row + 0.5) / len(kinds)
        shade = _shades(np.full(len(drums), 16), drums["velocity"])
        axes.scatter(drums["onset"], y, s=40, marker="|", linewidths=2, c=shade)
        axes.axhline(low - 0.2, color=_LINES, lw=1)
    axes.set_xlim(0, end)
    axes.set_ylim(low - strip, high)
    octaves = [pitch for pitch in range(low, high + 1) if pitch % 12 == 0]
    axes.set_yticks(octaves, [f"C{pitch // 12 - 1}" for pitch in octaves])
    axes.set_xlabel("seconds", color=_INK, fontsize=12)
    axes.tick_params(colors=_INK, labelsize=11, length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    present = [*sorted(set(family.tolist())), *([16] if len(drums) else [])]
    handles = [Patch(color=_FAMILIES[index][1], label=_FAMILIES[index][0]) for index in present]
    if handles:
        figure.legend(handles=handles, loc="lower center", ncols=9, frameon=False, labelcolor=_INK, fontsize=11)
    if title:
        figure.text(0.055, 0.94, title, color="white", fontsize=17)
    return _save(figure, path)


def _figure(width: float, height: float) -> Figure:
    """A figure without a window system and without pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor=NIGHT)
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> Path:
    path = Path(path)
    figure.savefig(path, format="png", facecolor=NIGHT, metadata={"Software": None})
    return path


def _space(axes, low: np.ndarray, high: np.ndarray) -> None:
    """Time to the right, pitch upwards, energy into the picture."""
    axes.set_facecolor(NIGHT)
    axes.set_box_aspect((1.9, 1.0, 1.15), zoom=1.16)
    axes.view_init(elev=16, azim=-62)
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[2], high[2])
    axes.set_zlim(low[1], high[1])
    seconds = np.arange(0, WINDOW_SECONDS, 0.5)
    axes.set_xticks(seconds / WINDOW_SECONDS, [f"{s:g} s" for s in seconds])
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "¼", "½", "¾", "1"])
    octaves = [(name, y) for name, y in _OCTAVES if low[1] <= y <= high[1]]
    axes.set_zticks([y for _, y in octaves], [name for name, _ in octaves])
    axes.set_xlabel("time", color=_INK, fontsize=13, labelpad=12)
    axes.set_ylabel("energy", color=_INK, fontsize=13, labelpad=10)
    axes.set_zlabel("pitch", color=_INK, fontsize=13, labelpad=6)
    axes.tick_params(colors=_INK, labelsize=11)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_pane_color((0.055, 0.07, 0.115, 1.0))
        axis.line.set_color(_LINES)
        axis._axinfo["grid"].update(color=_LINES, linewidth=0.6)


def _particles(axes, positions: np.ndarray, colors: np.ndarray, properties: np.ndarray) -> None:
    """A particle is a core whose area follows size, and its opacity alpha and depth, in halos that follow glow."""
    x, y, z = positions.T
    size, glow, depth = properties.T
    rgb, alpha = colors[:, :3], np.clip(colors[:, 3], 0, 1) ** 0.8
    core = 5 + 62 * size**2
    for swell, opacity in ((30.0, 0.02), (11.0, 0.045), (4.0, 0.1)):
        halo = np.column_stack([rgb, np.clip(opacity * alpha * (0.2 + 1.8 * glow), 0, 1)])
        axes.scatter(x, z, y, s=core * swell * (0.3 + glow), c=halo, linewidths=0, depthshade=False)
    if len(positions) == PARTICLES:
        line = positions.reshape(SUBFRAMES, PER_SUBFRAME, 3).mean(axis=1)
        axes.plot(line[:, 0], line[:, 2], line[:, 1], color=(1, 1, 1, 0.28), lw=1.4)
    body = np.column_stack([rgb, np.clip(alpha * (0.4 + 0.6 * depth), 0, 1)])
    axes.scatter(x, z, y, s=core, c=body, linewidths=0, depthshade=False)
    spark = np.column_stack([rgb + (1 - rgb) * 0.8, np.clip(alpha * (glow - 0.4) * 1.8, 0, 1)])
    axes.scatter(x, z, y, s=core * 0.3, c=spark, linewidths=0, depthshade=False)


def _shades(family: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    """[n, 3] r, g, b: the family's colour, blended towards the background (NIGHT) for soft notes."""
    from matplotlib.colors import to_rgb

    hues = np.array([to_rgb(colour) for _, colour in _FAMILIES])[family].reshape(-1, 3)
    strength = (0.35 + 0.65 * np.clip(velocity.astype(np.float64) / 115, 0, 1))[:, None]
    return hues * strength + np.array(to_rgb(NIGHT)) * (1 - strength)
