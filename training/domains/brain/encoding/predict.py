"""The command `predict`: the BOLD that a film would evoke in the subjects of a trained model, as NIfTI."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.data.summary import summary_of
from training.domain import Job
from training.domains.brain import places
from training.domains.brain.bold import masks
from training.domains.brain.bold.files import natural
from training.domains.brain.encoding.maps import Grid, safe_name, write_series
from training.domains.brain.presenting import Source, source
from training.domains.brain.stimulus import bins
from training.errors import UsageError

FLAGS = {"pixels": "--movie", "motion": "--movie", "sound": "--movie with sound", "words": "--annotations"}


def predict(job: Job, words: Sequence[str], load: Callable[[str], Any]) -> None:
    """Write sub-<subject>_bold.nii.gz for each subject of the job, standardised, into the folder `out`.

    Options: `movie`, `annotations`, `features`, `backbone`, as of prepare, for what the model was trained on. Raises
    UsageError, DataError for files that cannot be read.
    """
    import torch

    from training.domains.brain.encoding.recipe import latent_of

    summary = summary_of(job.workspace)
    if summary is None or "tr" not in summary:
        raise UsageError(f"{job.workspace.root} is no folder of a brain job: name it with --job DIR.")
    shown = source(job)
    if shown.film is None:
        raise UsageError("--movie is needed: the film for which BOLD is predicted.")
    tr, model = float(summary["tr"]), load("encoding").model
    stimulus = _stimulus(job, shown, tr, next(iter(summary["volumes"])))
    missing = [band for band in model.features.bands if band not in stimulus.bands]
    if missing:
        flags = ", ".join(dict.fromkeys(FLAGS.get(band, "--backbone or --features") for band in missing))
        raise UsageError(f"the model was trained on {', '.join(missing)}, which are missing here: give {flags}.")
    for band in model.features.bands:
        width, wanted = stimulus.bands[band].shape[1], len(getattr(model.features, f"mean_{band}"))
        if width != wanted:
            raise UsageError(f"{band} has {width} columns, and that of the training {wanted}: give the same features.")
    mask = masks.decode_own(places.mask_path(job.workspace))
    grid = Grid(mask["index"], tuple(mask["shape"].tolist()), mask["affine"])
    folder = Path(job.options["out"])
    folder.mkdir(parents=True, exist_ok=True)
    subjects = sorted(set(summary["subjects"]) - set(summary["left_out"]), key=natural)
    with torch.no_grad():
        latent = latent_of(model, stimulus)
        for subject, head in zip(subjects, model.heads, strict=True):
            values = head(latent).float().cpu().numpy()
            write_series(folder / f"sub-{safe_name(subject)}_bold.nii.gz", values, grid, tr)
    job.say(f"{len(subjects)} subjects, {len(stimulus)} volumes of {tr:g} s, standardised: {folder}")


def _stimulus(job: Job, shown: Source, tr: float, run: str) -> bins.Stimulus:
    """The film from its begin to its end, with the vocabulary of the training."""
    known = bins.of(bins.decode(places.stimulus_path(job.workspace, run))).vocabulary
    heard = [(at, word) for at, word in shown.words if word in set(known)]
    if len(heard) < len(shown.words):
        job.say(f"{len(shown.words) - len(heard)} of {len(shown.words)} words were not in the training: left out")
    volumes = bins.available(shown.film, 0.0, tr)
    stimulus = bins.binned(shown.film, heard, known if shown.vocabulary else (), volumes=volumes, tr=tr, onset=0.0)
    more = {}
    for one in shown.own:
        one.check_rows({"film": (volumes, volumes)})
        more[one.band] = np.asarray(one.binned(volumes, tr, 0.0, 0, "film"))
    return bins.Stimulus(tr, 0.0, {**stimulus.bands, **more}, known)
