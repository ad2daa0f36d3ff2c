"""Pictures of maps over the mean BOLD: three slices of each subject, through its best voxel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.domains.brain.encoding.projections import GREY, VIEWS

NAME = "slices.png"
LEAST = 0.1  # correlation above which voxels are drawn where no q is known


@dataclass(frozen=True, eq=False)
class Drawn:
    """A map to be drawn, float32 [X, Y, Z]. `chosen`: bool, the voxels that are drawn; None: those above LEAST.
    `under`: the anatomy, 0 outside of the head."""

    title: str
    values: np.ndarray
    chosen: np.ndarray | None
    under: np.ndarray
    affine: np.ndarray


def draw(maps: Sequence[Drawn], folder: Path) -> Path:
    """Write folder/slices.png: a row for each subject, on one scale."""
    from matplotlib.figure import Figure

    most = max(max(float(one.values.max()) for one in maps), 1e-3)
    figure = Figure(figsize=(7.2, 2.5 * len(maps)), layout="constrained")
    figure.patch.set_alpha(0)
    rows = figure.subplots(len(maps), len(VIEWS), squeeze=False)
    for axes, one in zip(rows, maps, strict=True):
        under, sides, affine = upright(one.under, one.affine)
        values, chosen = (upright(of, one.affine)[0] for of in (one.values, _chosen(one)))
        over = np.where(chosen > 0, values, np.nan)
        best = np.unravel_index(np.nanargmax(over if (chosen > 0).any() else values), values.shape)
        at = (affine @ [*best, 1])[:3]
        head = np.where(under > 0, under, np.nan)
        bright = float(np.nanpercentile(head, 98))
        for ax, (_, along, shown) in zip(axes, VIEWS, strict=True):
            aspect = sides[shown[1]] / sides[shown[0]]
            how = {"origin": "lower", "aspect": aspect, "interpolation": "nearest"}
            ax.imshow(np.take(head, best[along], along).T, cmap="gray", vmin=0, vmax=1.25 * bright, **how)
            drawn = ax.imshow(np.take(over, best[along], along).T, cmap="inferno", vmin=0, vmax=most, **how)
            ax.set_axis_off()
            ax.set_title(f"{one.title}, {'xyz'[along]} = {at[along]:.0f} mm", fontsize=8, color=GREY)
            if along:
                for side, text in ((0.0, "L"), (1.0, "R")):
                    ax.text(side, 0.0, text, transform=ax.transAxes, fontsize=8, color=GREY)
        if not (chosen > 0).any():
            axes[1].text(0.5, -0.02, "no voxel is significant", transform=axes[1].transAxes, fontsize=8, color=GREY,
                         ha="center", va="top")  # fmt: skip
    bar = figure.colorbar(drawn, ax=rows, shrink=0.6, label="correlation")
    bar.ax.yaxis.label.set_color(GREY)
    bar.ax.tick_params(colors=GREY, labelsize=8)
    figure.savefig(folder / NAME, dpi=110)
    return folder / NAME


def _chosen(one: Drawn) -> np.ndarray:
    return (one.values > LEAST if one.chosen is None else one.chosen & (one.values > 0)).astype(np.float32)


def upright(volume: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, tuple[float, ...], np.ndarray]:
    """A volume with axes to the right, to the front and up; millimetres of a voxel; its affine."""
    import nibabel

    image = nibabel.as_closest_canonical(nibabel.Nifti1Image(volume, affine))
    return image.get_fdata(dtype=np.float32), image.header.get_zooms()[:3], image.affine
