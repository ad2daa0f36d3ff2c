"""Maps of held-out results, as NIfTI files that any viewer of the field opens, and results by region as a table."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.data.files import write_atomic
from training.domains.brain.bold.reading import BLOCK
from training.domains.brain.bold.values import columns, raw, slow_cosines
from training.domains.brain.encoding import projections, slices
from training.domains.brain.evaluation.judging import DISCOVERY, Held, discoveries
from training.domains.brain.evaluation.regions import LEAST_CEILING, by_region, regions_of
from training.domains.brain.material import Rows

if TYPE_CHECKING:
    from training.data.rows import Row
    from training.domains.brain.bold.atlas import Regions
    from training.domains.brain.encoding.model import Encoding

MOST = 8  # subjects of whom maps are written
DRAWN = 4  # of them, in the pictures
CSV = "regions.csv"


@dataclass(frozen=True)
class Kind:
    """A kind of map. `outside`: its value outside of the mask."""

    name: str
    intent: str  # of the NIfTI header, by nibabel's name
    meaning: str  # at most 79 bytes, for the header
    outside: float = 0.0


R = Kind("r", "estimate", "correlation of predicted and measured BOLD, validation blocks")
CEILING = Kind("ceiling", "estimate", "noise ceiling of the correlation, validation blocks")
SHARE = Kind("share", "estimate", f"correlation / ceiling, 0 where the ceiling is below {LEAST_CEILING}")
Q = Kind("q", "p value", "false discovery rate at which the voxel is found", outside=1.0)
REGION_R = Kind("r_by_region", "estimate", "mean correlation of each region, validation blocks")


@dataclass(frozen=True, eq=False)
class Grid:
    """Where values of voxels lie. `code`: sform_code of the BOLD, the space of the affine."""

    voxels: np.ndarray  # int32, indices of the flattened grid in C order
    shape: tuple[int, ...]
    affine: np.ndarray
    code: int = 2

    def volume(self, values_V: np.ndarray, outside: float = 0.0) -> np.ndarray:
        """float32 [X, Y, Z]."""
        out = np.full(int(np.prod(self.shape)), outside, np.float32)
        out[self.voxels] = values_V
        return out.reshape(self.shape)


def write(
    predict: Callable[[str, str, int, int], np.ndarray], model: Encoding, held_out: Sequence[Row], folder: Path,
) -> list[Path]:  # fmt: skip
    """Of up to MOST subjects, over the held-out rows: r_sub-<subject>.nii.gz, and ceiling_, share_, q_ where they can
    be computed (two subjects; stretches long enough for shifts). With an atlas regions.csv and r_by_region.nii.gz, over
    all subjects. And pictures: r.png and slices.png."""
    rows = Rows.of(held_out)
    held = held_by_model(model, held_out, rows)
    predicted = held.predicted(predict)
    moments = held.moments(predicted)
    r_SV = np.stack(np.split(moments.correlations(), len(held.subjects)))
    ceiling_SV, shifted = held.ceilings()[0].values_SV, held.shifted(predicted)
    q_SV = None if shifted is None else discoveries(shifted, len(held.subjects))
    out, drawn = [], []
    for place, subject in enumerate(held.subjects[:MOST]):
        record = next(run.bold[subject] for run in rows.runs.values() if subject in run.bold)
        grid = Grid(rows.voxels, rows.shape, rows.affine, _code(record))
        found = {R: r_SV[place]}
        if ceiling_SV is not None:
            found |= {CEILING: ceiling_SV[place], SHARE: _share(r_SV[place], ceiling_SV[place])}
        if q_SV is not None:
            found[Q] = q_SV[place]
        name = safe_name(subject) or str(place + 1)
        for kind, values in found.items():
            out.append(write_map(folder / f"{kind.name}_sub-{name}.nii.gz", values, grid, kind))
        if place < DRAWN:
            chosen = None if q_SV is None else grid.volume(q_SV[place] < DISCOVERY) > 0
            drawn.append(slices.Drawn(f"subject {subject}", grid.volume(r_SV[place]), chosen,
                                      mean_bold(record, rows.shape), rows.affine))  # fmt: skip
    regions = regions_of(held_out)
    if regions is not None:
        table = by_region(regions, moments, None, ceiling_SV, shifted)
        out += write_regions(folder, table, regions, grid)
    titles = [one.title for one in drawn]
    maps = [path for path in out if path.name.startswith("r_sub-")][:DRAWN]
    return [*out, projections.draw(maps, titles, folder), slices.draw(drawn, folder)]


def held_by_model(model: Encoding, held_out: Sequence[Row], rows: Rows) -> Held:
    """The blocks that all subjects have, with the drift and spread that a model keeps of its training rows."""
    place = {row.values["run"]: int(row.values["run_number"]) - 1 for row in held_out}
    number = {row.values["subject"]: int(row.values["subject_number"]) - 1 for row in held_out}
    blocks = rows.held()
    measured: dict[str, list[np.ndarray]] = {subject: [] for subject in rows.subjects}
    for name, begin, end in blocks:
        run = rows.runs[name]
        basis = slow_cosines(run.volumes, run.tr).astype(np.float32)
        for subject in rows.subjects:
            drift = model.drift[number[subject], place[name]].cpu().numpy()
            spread = model.spread[number[subject], place[name]].cpu().numpy()
            values = raw(run.bold[subject], columns(run.bold[subject], rows.voxels), begin, end)
            measured[subject].append((values - basis[begin:end] @ drift[: basis.shape[1]]) / spread)
    return Held(blocks, rows.subjects, measured, rows.repeated())


def mean_bold(record: Mapping[str, np.ndarray], shape: Sequence[int]) -> np.ndarray:
    """The mean of the first volumes, float32 [X, Y, Z]: the anatomy under a map. Where the mean was removed from the
    data, 1 in the voxels that hold signal."""
    out = np.zeros(int(np.prod(shape)), np.float32)
    centred = float(record["mean_size"][0]) < 0.1 * float(record["mean_spread"][0])
    values = np.asarray(record["data"][:BLOCK]).mean(0) * record["scale"][0] + record["offset"][0]
    out[record["index"]] = 1.0 if centred else values
    return out.reshape(tuple(shape))


def _code(record: Mapping[str, np.ndarray]) -> int:
    """The code of the space; that of a scanner if the header has none."""
    qform, sform = (int(code) for code in record["codes"])
    return sform or qform or 1


def _share(r: np.ndarray, ceiling: np.ndarray) -> np.ndarray:
    return np.divide(r, ceiling, out=np.zeros_like(r), where=ceiling >= LEAST_CEILING)


def write_map(path: Path, values_V: np.ndarray, grid: Grid, kind: Kind) -> Path:
    """Write values of the voxels of a grid as a float32 map."""
    import nibabel

    image = nibabel.Nifti1Image(grid.volume(values_V, kind.outside), grid.affine)
    image.set_sform(grid.affine, grid.code)
    image.header.set_xyzt_units("mm")
    image.header.set_intent(kind.intent, name=kind.name)
    image.header["descrip"] = kind.meaning.encode()
    nibabel.save(image, path)
    return path


def safe_name(subject: str) -> str:
    """A subject in the name of a file."""
    return re.sub(r"[^A-Za-z0-9]+", "", subject)


def write_series(path: Path, values_TV: np.ndarray, grid: Grid, tr: float) -> Path:
    """Write values of the voxels of a grid at T volumes, `tr` seconds apart, as float32, 0 outside of the mask."""
    import nibabel

    volumes = np.zeros((int(np.prod(grid.shape)), len(values_TV)), np.float32)
    volumes[grid.voxels] = values_TV.T
    image = nibabel.Nifti1Image(volumes.reshape(*grid.shape, -1), grid.affine)
    image.set_sform(grid.affine, grid.code)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = tr
    image.header["descrip"] = b"predicted BOLD, standardised"
    nibabel.save(image, path)
    return path


# -- regions -----------------------------------------------------------------------------------------------------------


def write_regions(folder: Path, table: Sequence[Mapping[str, Any]], regions: Regions, grid: Grid) -> list[Path]:
    """regions.csv, a line for each region, and r_by_region.nii.gz, the mean r of its region in each voxel."""
    text = io.StringIO(newline="")
    names = ("number", "name", "voxels", "r", "low", "high", "ceiling", "share", "q")
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow([*names, "split"])
    for row in table:
        lines.writerow(["" if row[name] is None else _short(row[name]) for name in names] + ["validation"])
    write_atomic(folder / CSV, text.getvalue().encode())
    values = np.zeros(len(regions.of), np.float32)
    for place, row in enumerate(table):
        values[regions.voxels(place)] = row["r"]
    return [folder / CSV, write_map(folder / f"{REGION_R.name}.nii.gz", values, grid, REGION_R)]


def _short(value: Any) -> Any:
    return f"{value:.5g}" if isinstance(value, float) else value
