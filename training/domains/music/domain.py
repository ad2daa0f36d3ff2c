"""The music domain: its implementation of the contract in training/domain.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.domain import CardText, Command, DemoText, Domain, Finding, Inspected, Job, Request, Section
from training.domains.music.families import MIDI_GENERATOR, SONG, SPECTOCLOUD
from training.errors import UsageError
from training.option import DATA_VERBS, Option
from training.play.command import play_command

if TYPE_CHECKING:
    from training.data.schema import Schema
    from training.workspace import Workspace

PREPARE = ("prepare",)


def demo_corpus(workspace: Workspace) -> Path:
    """The folder of the demo corpus."""
    return workspace.root / "data" / "demo"


class Music(Domain):
    word = "music"
    title = "Music"
    sentence = "Folders of audio and MIDI in; a sound-to-cloud model and a MIDI generator out."
    unit = SONG
    families = (SPECTOCLOUD, MIDI_GENERATOR)
    tags = ("music", "audio", "midi")
    data_words = "music"
    options = (
        Option(
            "audio-root", "folder", "audio files: wav mp3 flac ogg opus m4a aac aiff au caf w64",
            environment="ATHANOR_AUDIO_ROOT", verbs=(*DATA_VERBS, "inspect"),
        ),
        Option(
            "midi-root", "folder", "MIDI files: mid midi; paired with audio by path, or by a unique file name",
            environment="ATHANOR_MIDI_ROOT", verbs=(*DATA_VERBS, "inspect"),
        ),
        Option(
            "data-mount", "folder",
            "a dataset folder: DIR/audio and DIR/midi serve as roots that are not given; links inside it may lead "
            "anywhere in it", environment="ATHANOR_DATA_MOUNT", verbs=(),
            parts={"audio_root": "audio", "midi_root": "midi"},
        ),
        Option(
            "labels", "file", "emotions by hand: CSV, JSON or JSONL", verbs=(*PREPARE, "inspect"), runner=False
        ),
        Option(
            "generate-clouds", "flag", "also write each song's target cloud as .npy", verbs=PREPARE, runner=False
        ),
        Option("out-dir", "text", "of the manifests (default: data/manifests)", "DIR", verbs=PREPARE, runner=False),
        Option("clouds-dir", "text", "of the clouds (default: data/clouds)", "DIR", verbs=PREPARE, runner=False),
        Option(
            "no-align", "flag", "use recordings and scores as they are, without aligning and comparing them",
            verbs=PREPARE,
        ),
        Option(
            "audit", "flag", "list labels that the notes contradict, and time maps (audit.json)", verbs=PREPARE,
            runner=False,
        ),
    )  # fmt: skip

    def arrange(self, request: Request) -> Request:
        options = dict(request.options)
        mount = options.get("data_mount")
        if mount is not None:
            for name in ("audio", "midi"):
                if options.get(f"{name}_root") is None and (Path(mount) / name).is_dir():
                    options[f"{name}_root"] = str(Path(mount) / name)
            if options.get("audio_root") is None and options.get("midi_root") is None:
                raise UsageError(
                    f"'{mount}' has neither an audio nor a midi folder; name them with --audio-root and --midi-root."
                )
        request = replace(request, options=options)
        audio, midi = options.get("audio_root"), options.get("midi_root")
        if audio is not None and midi is None and not request.skip_prepare:
            raise UsageError(
                "--audio-root needs --midi-root: Spectocloud learns from audio and MIDI of the same songs."
            )
        if audio is None and midi is not None and SPECTOCLOUD.name in request.families:
            request = request.noting(
                "no --audio-root: Spectocloud needs audio and is left out.", families=request.without(SPECTOCLOUD.name)
            )
        return request

    def given(self, options: Mapping[str, Any]) -> bool:
        return any(options.get(name) is not None for name in ("audio_root", "midi_root", "data_mount"))

    def schema(self) -> Schema:
        from training.domains.music.rows import SCHEMA

        return SCHEMA

    def demo(self, job: Job) -> Mapping[str, Any]:
        from training.domains.music.composing.demo import make_demo_corpus

        audio_root, midi_root = make_demo_corpus(demo_corpus(job.workspace))
        return {"audio_root": audio_root, "midi_root": midi_root}

    def prepare(self, job: Job) -> None:
        from training.domains.music.prepare import prepare

        prepare(job)

    def prepare_share(self, job: Job, number: int, of: int) -> str:
        from training.domains.music.sharding import prepare_share

        return prepare_share(job, number, of)

    def checks(self, job: Job) -> Iterator[Finding]:
        from training.domains.music.checks import checks

        return checks(job)

    def inspect(self, job: Job, path: Path) -> Inspected:
        from training.domains.music.inspection import inspect

        return inspect(job, path)

    def store_bytes(self, job: Job) -> int:
        from training.domains.music.checks import store_bytes

        return store_bytes(job)

    def commands(self) -> tuple[Command, ...]:
        text = "play the exported models in the browser, on this host only"
        return (play_command(text, "training.domains.music.play:play"),)

    def demo_text(self) -> DemoText:
        return DemoText(
            shows=(
                "Its music was composed by rules: short pieces for six emotions. It shows that every step works on "
                "this host, from audio and MIDI to verified exports, and that the models learn something that held-out "
                "songs can measure. The models are small and trained for minutes: the verdict is usually weak (not "
                "learnt with --preset debug, which trains for seconds), and they are not worth using."
            ),
            gives=(
                "exports/ holds both models as ONNX, CoreML and weights, each file compared with what was trained, and "
                "samples: a piece of music for each emotion, and clouds beside their targets. report.html shows all "
                "of it."
            ),
            next=self.own_data_command(),
        )

    def sections(self, workspace: Workspace) -> Sequence[Section]:
        from training.domains.music.report.sections import sections

        return tuple(sections(workspace))

    def card(self, family: str) -> CardText | None:
        from training.domains.music.card import CARDS

        return CARDS.get(family)


MUSIC = Music()
