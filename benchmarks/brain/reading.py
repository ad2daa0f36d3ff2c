"""BOLD in one forward pass against reading the complete image and masking it, as programs of the field do.

python -m benchmarks.brain.reading [--volumes N] [--repeats N]

Both sides read the same .nii.gz of 61 x 73 x 61 voxels in turn; each measurement is a separate process, whose peak
memory counts from after its imports. Prints seconds, MB, and their ratios.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SHAPE = (61, 73, 61)  # of the Sherlock data set in MNI space


def write(path: Path, volumes: int) -> None:
    """A head of about 86,000 voxels in noise-free air, as float32 after preprocessing."""
    import nibabel

    axes = np.meshgrid(*(np.linspace(-1, 1, length) for length in SHAPE), indexing="ij")
    mask = sum(axis**2 for axis in axes) <= 0.92
    random = np.random.default_rng(0)
    data = np.zeros((*SHAPE, volumes), np.float32)
    data[mask] = 800 + 20 * random.standard_normal((int(mask.sum()), volumes), dtype=np.float32)
    image = nibabel.Nifti1Image(data, np.diag([3.0, 3, 3, 1]))
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path)


def one_pass(path: Path) -> int:
    """This project's reader."""
    from training.domains.brain.bold.reading import decode

    return len(decode(path)["index"])


def complete_image(path: Path) -> int:
    """nibabel's get_fdata, and the voxels that are not 0."""
    import nibabel

    data = nibabel.load(path).get_fdata()
    mask = data.any(-1)
    return data[mask].T.shape[1]


SIDES = {"one pass": one_pass, "complete image": complete_image}


def measured(side: str, path: Path) -> tuple[float, float]:
    """Seconds and MB of one side, in a new process."""
    code = f"import benchmarks.brain.reading as r; r.report({side!r}, r.Path({str(path)!r}))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    seconds, megabytes = map(float, out.split())
    return seconds, megabytes


def report(side: str, path: Path) -> None:
    """Print seconds and MB above what the imports take."""
    import nibabel  # noqa: F401 - imported before the measurement

    import training.domains.brain.bold.reading  # noqa: F401

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    SIDES[side](path)
    print(time.perf_counter() - began, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.brain.reading", description=__doc__.split("\n")[0])
    parser.add_argument("--volumes", type=int, default=160)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bold.nii.gz"
        write(path, options.volumes)
        found: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
        for _ in range(options.repeats):
            for side in SIDES:
                found[side].append(measured(side, path))
    medians = {side: [statistics.median(column) for column in zip(*of, strict=True)] for side, of in found.items()}
    for side, (seconds, megabytes) in medians.items():
        print(f"{side:<15} {seconds:6.2f} s {megabytes:7.0f} MB")
    ratios = [medians["complete image"][place] / medians["one pass"][place] for place in range(2)]
    print(f"one pass: {ratios[0]:.1f} times as fast, 1/{ratios[1]:.1f} of the memory ({options.volumes} volumes)")


if __name__ == "__main__":
    main()
