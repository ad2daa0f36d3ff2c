"""The amp domain: its implementation of the contract in training/domain.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.domain import CardText, Command, DemoText, Domain, Finding, Inspected, Job, Request, Section
from training.domains.amp.families import AMP as FAMILY
from training.domains.amp.families import TONE
from training.errors import UsageError
from training.option import Option
from training.play.command import play_command

if TYPE_CHECKING:
    from training.data.schema import Schema
    from training.settings import RunSettings
    from training.workspace import Workspace

#: The verbs that read captures and guitar; the others read the manifests.
READING = ("doctor", "prepare")
PREPARE = ("prepare",)
TRAINING = ("train", "estimate", "prove-resume")


class Amp(Domain):
    word = "amp"
    title = "Amp"
    sentence = "Captures of guitar amplifiers in; captures of the same format and cost that alias less out."
    unit = TONE
    families = (FAMILY,)
    tags = ("audio-to-audio", "guitar-amplifier", "neural-amp-modeler", "antialiasing")
    data_words = "captures and clips of guitar"
    options = (
        Option("captures", "folder", "captures: .nam (A1, A2, containers) and GuitarML .json", verbs=READING,
               environment="ATHANOR_CAPTURES"),
        Option("di", "path", "a guitar without its amplifier: a .wav or .flac, or a folder of them "
               "(default: synthetic plucks)", "DIR|WAV", verbs=READING),
        Option("only", "text", "the captures whose name matches, such as 'JCM*' (default: all)", "GLOB",
               verbs=READING),
        Option("level", "number", "of the loudest tones, in dB of full scale (default: 0)", "DB", verbs=TRAINING),
        Option("student", "choice", "the network that is trained: the capture's architecture (same, the default), or a "
               "smaller one of the same format (nano)", choices=("same", "nano"), verbs=TRAINING),
        Option("sample-rate", "number", "of captures without one inside (default: 44100 for .json, 48000 for .nam)",
               "HZ", verbs=READING),
    )  # fmt: skip

    def arrange(self, request: Request) -> Request:
        options = request.options
        if options.get("captures") is None and not request.skip_prepare:
            named = [name for name in ("di", "sample_rate") if options.get(name) is not None]
            if named:
                flag = named[0].replace("_", "-")
                raise UsageError(f"--{flag} needs --captures: the folder of the .nam and .json files.")
        return request

    def given(self, options: Mapping[str, Any]) -> bool:
        return options.get("captures") is not None

    def settings(self, job: Job, family: str, settings: RunSettings) -> Mapping[str, Any]:
        level, student = job.options.get("level"), job.options.get("student")
        given = {} if level is None else {"material": {"loudest": float(level)}}
        return given if student is None else {**given, "student": {"size": student}}

    def schema(self) -> Schema:
        from training.domains.amp.rows import SCHEMA

        return SCHEMA

    def demo(self, job: Job) -> Mapping[str, Any]:
        from training.domains.amp.demo.making import make_demo

        return make_demo(job)

    def prepare(self, job: Job) -> None:
        from training.domains.amp.prepare import prepare

        prepare(job)

    def items(self, workspace: Workspace) -> tuple[str, ...]:
        from training.data.summary import summary_of

        return tuple((summary_of(workspace) or {}).get("items", ()))

    def checks(self, job: Job) -> Iterator[Finding]:
        from training.domains.amp.checks import checks

        return checks(job)

    def inspect(self, job: Job, path: Path) -> Inspected:
        from training.domains.amp.inspection import inspect

        return inspect(path)

    def store_bytes(self, job: Job) -> int:
        from training.domains.amp.checks import store_bytes

        return store_bytes(job)

    def commands(self) -> tuple[Command, ...]:
        options = (
            Option("capture", "file", "the original capture, which was trained in the job"),
            Option("di", "file", "a guitar without its amplifier: a .wav or .flac"),
            Option("after", "file", "a trained capture, instead of that of the job"),
        )
        text = "guitar through a capture before and after, and the difference, as .wav files"
        writes = "a folder: before.wav, after.wav, difference.wav"
        pages = "play the captures in the browser before and after, on this host only"
        return (
            Command("render", text, "training.domains.amp.render:render", options=options, writes=writes),
            play_command(pages, "training.domains.amp.play:play"),
        )

    def demo_text(self) -> DemoText:
        return DemoText(
            shows=(
                "A circuit made by rules (distortion between filters) stands for an amplifier, and a tiny network is "
                "fitted to it: its capture. It shows that every step works on this host, and that training removes "
                "aliasing from a capture without changing its sound. The amplifier does not exist, and its guitar is "
                "synthetic: the files are not worth playing."
            ),
            gives=(
                "exports/ holds the captures again, as files of the same format for the same players, sounds before "
                "and after, ONNX for blocks of any length, a model card, and report.html with what can be heard."
            ),
            next="./train_cuda.sh amp --captures DIR --di WAV",
        )

    def sections(self, workspace: Workspace) -> Sequence[Section]:
        from training.domains.amp.report.sections import sections

        return tuple(sections(workspace))

    def card(self, family: str) -> CardText | None:
        from training.domains.amp.card import CARD

        return CARD


AMP = Amp()
