"""Decoding one host's share of a corpus, for `prepare --shard` and `--ray`. The generic part is data/shards.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from training.data.digests import Ledger
from training.data.encode import Quarantined
from training.data.files import Found
from training.data.media import Media, Shard
from training.data.shards import corpus_digest, line_of, write_share
from training.domain import Job
from training.domains.music.audio import LOGMEL
from training.domains.music.corpora import corpus, labels
from training.domains.music.midi.reader import NOTES
from training.domains.music.midi.tokens import TOKENS
from training.errors import UsageError

ENCODERS = (TOKENS, NOTES, LOGMEL)


def prepare_share(job: Job, number: int, of: int) -> str:
    """Decode a share; returns a line for the log. Raises as `prepare` does."""
    return line_of(decode_shard(job, Shard(number, of)))


def decode_shard(job: Job, shard: Shard) -> dict[str, Any]:
    """Decode one share of a corpus into the stores' parts; returns its record. Manifests are written later, by
    `prepare --merge`, when all shares are done.

    Files that cannot be decoded are counted here, and refused when the shares are merged. Raises as `prepare` does.
    """
    if job.options.get("audit"):
        raise UsageError("--audit needs the complete corpus: use it with --merge, not with --shard.")
    midi_root = job.path("midi_root")
    if midi_root is None:
        raise UsageError("--midi-root is needed: both models learn from notes.")
    labels_file = job.path("labels")
    given = labels.read(labels_file) if labels_file else labels.Labels()
    sounds, scores = (
        Media(corpus.find(root, suffixes, option)[0], job.workspace.cache, job.workers, job.say, shard)
        for root, suffixes, option in (
            (job.path("audio_root"), corpus.AUDIO, "--audio-root"),
            (midi_root, corpus.MIDI, "--midi-root"),
        )
    )

    given.refuse_if_useless([*sounds.every, *scores.every])

    def work(known: Ledger) -> tuple[str, int]:
        bad = sounds.read(known) + scores.read(known)
        pairs = corpus.match(sounds.files, scores.files, given).pairs
        of_scores, of_sounds = decode(sounds, scores, scores.files, pairs)
        return digest(sounds, scores, pairs), len(bad) + len(of_scores) + len(of_sounds)

    return write_share(job.workspace.cache, shard, ENCODERS, work)


def decode(
    sounds: Media, scores: Media, own: Sequence[Found], pairs: Sequence[corpus.Pair]
) -> tuple[list[Quarantined], list[Quarantined]]:
    """Decode into the stores what the manifests need of the scores `own` and of `pairs`. Returns the scores and the
    recordings that cannot be decoded."""
    bad = scores.decode(own, TOKENS)
    bad += scores.decode([pair.midi for pair in pairs if scores.has(pair.midi, TOKENS)], NOTES)
    return bad, sounds.decode([pair.audio for pair in pairs], LOGMEL)


def digest(sounds: Media, scores: Media, pairs: Sequence[corpus.Pair]) -> str:
    """The digest of a corpus, which must be equal on all hosts that share it."""
    return corpus_digest((sounds, scores), ((pair.audio, pair.midi) for pair in pairs))
