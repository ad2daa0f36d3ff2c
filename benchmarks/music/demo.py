"""The prepared demo corpus, shared by several benchmarks."""

from training.domain import Job
from training.domains.music.composing.demo import make_demo_corpus
from training.domains.music.domain import MUSIC, demo_corpus
from training.workspace import Workspace


def prepared_demo(workspace: Workspace, pieces: int) -> None:
    """Compose and prepare a demo corpus of `pieces` pieces in a workspace."""
    audio_root, midi_root = make_demo_corpus(demo_corpus(workspace), pieces)
    MUSIC.prepare(Job(workspace, {"audio_root": audio_root, "midi_root": midi_root, "val_split": 0.2}))
