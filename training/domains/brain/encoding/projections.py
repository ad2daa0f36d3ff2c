"""Pictures of maps: for each subject, what is highest along each of the three axes, as a glass brain shows it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

NAME = "r.png"
VIEWS = (("from the side", 0, (1, 2)), ("from behind", 1, (0, 2)), ("from above", 2, (0, 1)))  # axis, those shown
GREY = "#808080"  # is legible on light and on dark pages


def draw(paths: Sequence[Path], titles: Sequence[str], folder: Path) -> Path:
    """Write folder/r.png: a row for each map (NIfTI, 0 outside of the mask), on one scale from 0."""
    from matplotlib.figure import Figure

    volumes = [_upright(path) for path in paths]
    most = max(max(float(np.nanmax(of[0])) for of in volumes), 1e-3)
    figure = Figure(figsize=(7.2, 2.3 * len(volumes)), layout="constrained")
    figure.patch.set_alpha(0)
    rows = figure.subplots(len(volumes), len(VIEWS), squeeze=False)
    for axes, (values, sides), title in zip(rows, volumes, titles, strict=True):
        for ax, (view, along, shown) in zip(axes, VIEWS, strict=True):
            picture = np.fmax.reduce(values, along).T  # NaN where nothing of the mask is along the line
            aspect = sides[shown[1]] / sides[shown[0]]
            drawn = ax.imshow(picture, origin="lower", cmap="inferno", vmin=0, vmax=most, aspect=aspect)
            ax.set_axis_off()
            ax.set_title(f"{title}, {view}", fontsize=8, color=GREY)
            if along:
                for side, text in ((0.0, "L"), (1.0, "R")):
                    ax.text(side, 0.0, text, transform=ax.transAxes, fontsize=8, color=GREY)
    bar = figure.colorbar(drawn, ax=rows, shrink=0.6, label="highest correlation along the line of sight")
    bar.ax.yaxis.label.set_color(GREY)
    bar.ax.tick_params(colors=GREY, labelsize=8)
    figure.savefig(folder / NAME, dpi=110)
    return folder / NAME


def _upright(path: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    """The map with axes to the right, to the front and up, NaN outside of the mask; and millimetres of a voxel."""
    import nibabel

    image = nibabel.as_closest_canonical(nibabel.load(path))
    values = image.get_fdata(dtype=np.float32)
    return np.where(values == 0, np.nan, values), image.header.get_zooms()[:3]
