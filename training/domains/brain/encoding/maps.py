"""Maps of held-out correlations, as NIfTI files that any viewer of the field opens."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.domains.brain.bold.values import columns, raw, slow_cosines
from training.domains.brain.encoding import projections
from training.domains.brain.evaluation.measures import Moments
from training.domains.brain.material import Rows

if TYPE_CHECKING:
    from training.data.rows import Row
    from training.domains.brain.encoding.model import Encoding

MOST = 8  # subjects of whom a map is written
DRAWN = 4  # of them, in the picture


def write(
    predict: Callable[[str, str, int, int], np.ndarray], model: Encoding, held_out: Sequence[Row], folder: Path
) -> list[Path]:
    """r_sub-<subject>.nii.gz: the correlation of each voxel over all held-out rows; 0 outside of the mask. And r.png, a
    picture of them."""
    rows = Rows.of(held_out)
    place = {row.values["run"]: int(row.values["run_number"]) - 1 for row in held_out}
    number = {row.values["subject"]: int(row.values["subject_number"]) - 1 for row in held_out}
    out = []
    for subject in rows.subjects[:MOST]:
        predicted, measured = [], []
        for name, run in rows.runs.items():
            drift = model.drift[number[subject], place[name]].cpu().numpy()
            spread = model.spread[number[subject], place[name]].cpu().numpy()
            basis = slow_cosines(run.volumes, run.tr).astype(np.float32)
            record = run.bold.get(subject)
            for begin, end in run.spans.get(subject, ()):
                values = raw(record, columns(record, rows.voxels), begin, end)
                measured.append((values - basis[begin:end] @ drift[: basis.shape[1]]) / spread)
                predicted.append(predict(subject, name, begin, end))
        r = Moments.of(predicted, measured).correlations()
        path = folder / f"r_sub-{re.sub(r'[^A-Za-z0-9]+', '', subject) or number[subject] + 1}.nii.gz"
        write_map(path, r, rows.voxels, rows.shape, rows.affine)
        out.append(path)
    titles = [f"subject {subject}" for subject in rows.subjects[:DRAWN]]
    return [*out, projections.draw(out[:DRAWN], titles, folder)]


def write_map(path: Path, values_V: np.ndarray, voxels: np.ndarray, shape: Sequence[int], affine: np.ndarray) -> None:
    """Write values of some voxels (int32, indices of the flattened grid in C order) as a float32 map."""
    import nibabel

    volume = np.zeros(int(np.prod(shape)), np.float32)
    volume[voxels] = values_V
    image = nibabel.Nifti1Image(volume.reshape(shape), affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"correlation of predicted and measured BOLD"
    nibabel.save(image, path)
