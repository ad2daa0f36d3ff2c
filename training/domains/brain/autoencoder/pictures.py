"""Pictures that the bottleneck gives back, beside those that were shown and the mean picture of the training rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from training.domains.brain.encoding.projections import GREY
from training.domains.brain.stimulus.film import HEIGHT, WIDTH

if TYPE_CHECKING:
    from training.domains.brain.autoencoder.model import Autoencoder
    from training.domains.brain.material import Rows

NAME = "frames.png"
SHOWN = 6  # volumes, spread over the held-out blocks
TITLES = ("shown", "given back", "mean")


def draw(model: Autoencoder, rows: Rows, folder: Path) -> Path:
    """Write folder/frames.png: a column for each of up to SHOWN held-out volumes."""
    from matplotlib.figure import Figure

    columns = frames(model, rows)
    figure = Figure(figsize=(7.2, 3.0), layout="constrained")
    figure.patch.set_alpha(0)
    grid = figure.subplots(len(TITLES), len(columns), squeeze=False)
    for place, (seconds, pictures) in enumerate(columns):
        grid[0][place].set_title(f"{seconds:.0f} s", fontsize=8, color=GREY)
        for axes, picture in zip(grid, pictures, strict=True):
            axes[place].imshow(picture)
            axes[place].set_xticks([])
            axes[place].set_yticks([])
    for axes, title in zip(grid, TITLES, strict=True):
        axes[0].set_ylabel(title, fontsize=8, color=GREY)
    figure.savefig(folder / NAME, dpi=110)
    return folder / NAME


def frames(model: Autoencoder, rows: Rows) -> list[tuple[float, tuple[np.ndarray, ...]]]:
    """(second of the film, uint8 [HEIGHT, WIDTH, 3] of each of TITLES) of held-out volumes. The model must have
    pictures among its modalities."""
    first = rows.repeated()  # runs that repeat the film show the same pictures
    blocks = [block for block in rows.held() if first[block[0]] == block[0]]
    volumes = [(name, volume) for name, begin, end in blocks for volume in range(begin, end)]
    chosen = np.unique(np.linspace(0, len(volumes) - 1, SHOWN).round().astype(int))
    band = model.features.bands.index("pixels")
    mean = _picture(model.features.mean_pixels)
    out = []
    for name, volume in (volumes[number] for number in chosen):
        stimulus = rows.runs[name].stimulus
        device = model.decoder.device
        bands = {
            one: torch.from_numpy(np.array(stimulus.bands[one][volume], np.float32)).to(device)
            for one in model.features.bands
        }  # fmt: skip
        with torch.no_grad():
            given = model.features.inverse(model.decode(model.inner(model.features(bands))))[band]
        out.append((stimulus.onset + volume * stimulus.tr, (_picture(bands["pixels"]), _picture(given), mean)))
    return out


def _picture(values: torch.Tensor) -> np.ndarray:
    return values.cpu().numpy().reshape(HEIGHT, WIDTH, 3).round().clip(0, 255).astype(np.uint8)
