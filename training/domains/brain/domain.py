"""The brain domain: its implementation of the contract in training/domain.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.domain import CardText, Command, DemoText, Domain, Finding, Inspected, Job, Request, Section
from training.domains.brain.families import BLOCK, FAMILIES
from training.errors import UsageError
from training.option import Option

if TYPE_CHECKING:
    from training.data.schema import Schema
    from training.workspace import Workspace

#: The verbs that read the user's files; the others read what `prepare` has made of them.
READING = ("doctor", "prepare")
PREPARE = ("prepare",)


class Brain(Domain):
    word = "brain"
    title = "Brain"
    sentence = "A film and the BOLD of those who watched it in; voxelwise encoding models beside ridge and the ceiling."
    unit = BLOCK
    families = FAMILIES
    tags = ("neuroscience", "fmri", "encoding-model", "decoding")
    data_words = "film fMRI"
    sealed_test = True
    options = (
        Option("movie", "file", "the film that was shown, or a WAV of its sound", verbs=PREPARE),
        Option("frames", "folder", "its frames as pictures, instead of --movie", verbs=PREPARE),
        Option("frame-rate", "number", "frames a second of --frames", verbs=PREPARE),
        Option("annotations", "file", "words with times: .xlsx, .tsv, .csv, .srt or .vtt", verbs=PREPARE),
        Option("features", "path", "your own features of the film: .npy, .npz, .csv, .tsv, or a folder of them",
               verbs=PREPARE),
        Option("backbone", "folder", "a pre-trained image model (Hugging Face's format), whose features are added",
               "video=DIR", verbs=PREPARE, label="video"),
        Option("backbone-layer", "number", "of --backbone, from 0 (default: two thirds of its layers)", "N",
               verbs=PREPARE),
        Option("fmri", "folder", "one .nii.gz for each subject and run", verbs=READING, environment="ATHANOR_FMRI"),
        Option("bids", "folder", "a BIDS data set, or derivatives of fMRIPrep, instead of --fmri", verbs=READING),
        Option("task", "text", "of a BIDS data set (default: its only one)", "NAME", verbs=READING),
        Option("space", "text", "of fMRIPrep's derivatives, such as MNI152NLin2009cAsym", "NAME", verbs=READING),
        Option("tr", "number", "seconds between volumes (default: of the sidecar, else of the header)", "SECONDS",
               verbs=PREPARE),
        Option("onset", "text", "seconds of the film at the first volume, one number for each run (default: 0)",
               "SECONDS", verbs=PREPARE),
        Option("mask", "file", "1 in the voxels that are used (default: those with signal in all runs)", verbs=PREPARE),
        Option("atlas", "file", "regions as numbers, .nii.gz: results are listed by region", verbs=PREPARE),
        Option("hold-out-subject", "text", "left out of training; only its head is fitted (several: 05,07)", "ID",
               verbs=PREPARE),
        Option("volumes", "number", "of the demo's run (default: 900)", verbs=PREPARE, runner=False),
        Option("null-world", "flag", "the demo's subjects saw another film: nothing can be predicted", verbs=PREPARE),
    )  # fmt: skip

    def arrange(self, request: Request) -> Request:
        options = request.options
        named = [name for name in ("fmri", "bids") if options.get(name) is not None]
        shown = [name for name in ("movie", "frames", "annotations", "features") if options.get(name) is not None]
        if len(named) == 2:
            raise UsageError("Name the BOLD by either --fmri or --bids.")
        if shown and not named and not request.skip_prepare:
            raise UsageError(f"--{shown[0]} needs the BOLD: --fmri DIR or --bids DIR.")
        if named and not shown and not request.skip_prepare:
            raise UsageError(
                f"--{named[0]} needs what was shown: --movie FILE, --frames DIR, --annotations FILE, or --features "
                "FILE."
            )
        return request

    def given(self, options: Mapping[str, Any]) -> bool:
        return any(options.get(name) is not None for name in ("fmri", "bids", "movie", "frames"))

    def schema(self) -> Schema:
        from training.domains.brain.rows import SCHEMA

        return SCHEMA

    def demo(self, job: Job) -> Mapping[str, Any]:
        from training.domains.brain.demo.making import make_demo

        return make_demo(job)

    def prepare(self, job: Job) -> None:
        from training.domains.brain.prepare import prepare

        prepare(job)

    def checks(self, job: Job) -> Iterator[Finding]:
        from training.domains.brain.checks import checks

        return checks(job)

    def inspect(self, job: Job, path: Path) -> Inspected:
        from training.domains.brain.inspection import inspect

        return inspect(path)

    def store_bytes(self, job: Job) -> int:
        from training.domains.brain.checks import store_bytes

        return store_bytes(job)

    def commands(self) -> tuple[Command, ...]:
        taken = ("movie", "annotations", "features", "backbone", "backbone-layer")
        options = tuple(replace(option, verbs=()) for option in self.options if option.name in taken)
        return (
            Command("predict", "the BOLD that a film would evoke in each subject, as NIfTI",
                    "training.domains.brain.encoding.predict:predict", options=options,
                    writes="a folder: sub-01_bold.nii.gz ..., standardised"),
        )  # fmt: skip

    def demo_text(self) -> DemoText:
        return DemoText(
            shows=(
                "A simulated film, and four simulated subjects of whom it is known how well any model can predict each "
                "voxel. It shows that every step works on this host, and how the models compare with ridge regression, "
                "a shuffled null and the ceiling. The figures say nothing about real brains."
            ),
            gives="exports/ holds the models, each file compared with what was trained, a model card, and report.html.",
            next="./train_cuda.sh brain --movie FILE --annotations FILE --fmri DIR",
        )

    def sections(self, workspace: Workspace) -> Sequence[Section]:
        from training.domains.brain.report.sections import sections

        return tuple(sections(workspace))

    def card(self, family: str) -> CardText | None:
        from training.domains.brain.card import card

        return card(family)


BRAIN = Brain()
