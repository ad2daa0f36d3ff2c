"""Writes the demo's film, words and BOLD as the files that a laboratory would have, with the truth beside them for the
evaluation alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from training.data.files import write_atomic
from training.data.identity import MARKER
from training.domain import Job
from training.domains.brain.demo.film import write_film
from training.domains.brain.demo.world import World, simulate

FOLDER = "demo_brain"
VOLUMES, SUBJECTS, TR = 900, 4, 1.5
VOXEL = 3.0  # millimetres
TRUTH = "truth.npz"


def make_demo(job: Job) -> dict[str, Any]:
    """The demo's film.mp4, words.tsv, bold/sub-0k_bold.nii.gz, mask.nii.gz and truth.npz; the folder is marked as
    synthetic. Returns the options that name them."""
    folder = job.workspace.root / "data" / FOLDER
    options = {
        "movie": folder / "film.mp4", "annotations": folder / "words.tsv", "fmri": folder / "bold",
        "mask": folder / "mask.nii.gz",
    }  # fmt: skip
    if (folder / MARKER).is_file():  # written last, so the demo is complete
        return options
    volumes = VOLUMES if job.options.get("volumes") is None else int(job.options["volumes"])
    null = bool(job.options.get("null_world"))
    world = simulate(volumes, SUBJECTS, job.seed, tr=TR, null=null)
    write_world(folder, world)
    write_atomic(folder / MARKER, b'{"synthetic": true}\n')
    count = int(world.mask.sum())
    job.say(
        f"  made a film of {volumes * TR:.0f} s and the BOLD of {SUBJECTS} subjects ({volumes} volumes, {count:,} "
        f"voxels) in {job.workspace.relative(folder)}"
        + (", who saw another film: nothing can be predicted" if null else "")
    )
    return options


def write_world(folder: Path, world: World) -> None:
    """Write all files of a world but the marker."""
    (folder / "bold").mkdir(parents=True, exist_ok=True)
    write_film(folder / "film.mp4", world.film)
    lines = ["onset\tduration\tword\n", *(f"{at:.3f}\t{length:.3f}\t{word}\n" for at, length, word in world.film.words)]
    (folder / "words.tsv").write_text("".join(lines), encoding="utf-8")
    affine = affine_of(world.mask.shape)
    write_nifti(folder / "mask.nii.gz", world.mask.astype(np.uint8), affine)
    for number, bold_TV in enumerate(world.bold_STV, 1):
        volumes = np.zeros((*world.mask.shape, len(bold_TV)), np.int16)
        volumes[world.mask] = np.round(bold_TV.T)
        write_nifti(folder / "bold" / f"sub-{number:02}_bold.nii.gz", volumes, affine, tr=world.tr)
    np.savez(folder / TRUTH, drives=world.drives_TD, ceiling=world.ceiling_SV, tr=world.tr)


def affine_of(shape: tuple[int, ...]) -> np.ndarray:
    """Voxel indices -> millimetres, with the origin in the middle."""
    affine = np.diag([VOXEL, VOXEL, VOXEL, 1.0])
    affine[:3, 3] = -VOXEL * (np.array(shape[:3]) - 1) / 2
    return affine


def write_nifti(path: Path, data: np.ndarray, affine: np.ndarray, tr: float | None = None) -> None:
    """Write a NIfTI file. `tr`: seconds between volumes of four-dimensional data."""
    import nibabel

    image = nibabel.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm", "sec")
    if tr is not None:
        image.header.set_zooms((VOXEL, VOXEL, VOXEL, tr))
    nibabel.save(image, path)
