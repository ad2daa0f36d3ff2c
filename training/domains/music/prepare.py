"""`prepare`: from folders of music to manifests, stores, quarantine and summary."""

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from training.data import manifest, sandbox
from training.data.encode import TOO_MANY, Quarantined, describe, ledger, preload, refuse_if_too_many, write_quarantine
from training.data.files import Found, Refused
from training.data.identity import is_marked_synthetic
from training.data.media import Media
from training.data.rows import RELEASED, Files, Stored, Texts
from training.data.shards import merge_shards
from training.data.store import Store
from training.data.writing import QUARANTINE, Built, file_name, index_manifests, precompute, write_manifests
from training.domain import Job
from training.domains.music.alignment.corpus import Alignments, aligned
from training.domains.music.alignment.pairs import IMPORTS
from training.domains.music.alignment.timemap import mapped_notes
from training.domains.music.audio import HOP, LOGMEL, SAMPLE_RATE
from training.domains.music.clouds.precomputed import write_cloud
from training.domains.music.corpora import corpus, labels
from training.domains.music.families import MIDI_GENERATOR, SPECTOCLOUD
from training.domains.music.label_audit import audit
from training.domains.music.midi.reader import CHANGES, NOTES
from training.domains.music.midi.tokens import NOTE as FIRST_NOTE
from training.domains.music.midi.tokens import TOKENS, VELOCITY
from training.domains.music.midi_generator.steering import styles_of
from training.domains.music.rows import AUDIO, CLOUD, EMOTION, LABEL_SOURCE, MIDI, SCHEMA, TIME_MAP
from training.domains.music.sharding import ENCODERS, decode, digest
from training.domains.music.summary import Summary, report
from training.errors import DataError, UsageError
from training.workspace import Workspace, exclusive

FAMILIES = {facts.manifest: facts for facts in (SPECTOCLOUD, MIDI_GENERATOR)}
PAIRED, ALONE = SPECTOCLOUD.manifest, MIDI_GENERATOR.manifest  # of recordings with scores, of scores
SIDES = ("train", "val")
_ascii = json.encoder.encode_basestring_ascii  # as json.dumps encodes a string
#: Difference in length (seconds, share) above which a recording and its score are reported.
_APART = (5.0, 0.2)
_MOST_CHANGED = 5  # scores named for each kind of change
_UNPAIRED = (
    "No recording could be paired with a score. Give both the same relative path (happy/track001.wav, "
    "happy/track001.mid), or a name that no other file has."
)
_NONE_FITS = "No recording fits its score. --no-align uses the pairs without a comparison."
_ONE_SONG = (
    "There is only one song (its copies and formats are one song); two are needed, for training and for validation."
)


def prepare(job: Job) -> Summary:
    """Scan, pair, decode, label, split and write the manifests; a second run over the same files changes nothing.

    Without `audio_root` only the MIDI manifests are written. Every file is decoded here, so that unreadable files are
    known, listed in `quarantine.jsonl`, and not in a manifest.

    Options: the domain's; `val_split` (share of the songs held out); `merge`: the number of shares of the corpus that
    were decoded by other hosts (sharding.py) and are merged into the stores first.

    Raises DataError if there is nothing to train on, UsageError for invalid options.
    """
    workspace, options = job.workspace, job.options
    audio_root, midi_root, labels_file = job.path("audio_root"), job.path("midi_root"), job.path("labels")
    val_split = options["val_split"]
    if not 0 < val_split < 1:
        raise UsageError(f"--val-split is the share of songs held out, between 0 and 1; it is {val_split:g}.")
    if midi_root is None:
        raise UsageError("--midi-root is needed: both models learn from notes (clouds are drawn from a song's score).")
    out = (job.path("out_dir") or workspace.manifests).absolute()
    clouds = (job.path("clouds_dir") or workspace.root / SCHEMA.path(CLOUD).folder).absolute()
    given = labels.read(labels_file) if labels_file else labels.Labels()
    preparation = _Preparation(
        workspace, out, val_split, job.seed, given, job.workers, job.say, options.get("merge"),
        align=not options.get("no_align"),
    )  # fmt: skip
    preparation.scan(audio_root, midi_root)
    with exclusive(out, "preparing data"):
        summary = preparation.run(
            is_marked_synthetic(audio_root, midi_root), clouds if options.get("generate_clouds") else None
        )
    if options.get("audit"):
        audit(workspace, out, midi_root=midi_root, workers=job.workers, say=job.say, prepared=summary)
    return summary


@dataclass
class _Preparation:
    workspace: Workspace
    out: Path
    val_split: float
    seed: int
    given: labels.Labels
    workers: int | None
    say: Callable[[str], None]
    merge: int | None = None
    align: bool = True
    alignments: Alignments = field(default_factory=Alignments)

    def scan(self, audio_root: Path | None, midi_root: Path | None) -> None:
        sounds, bad_sounds = corpus.find(audio_root, corpus.AUDIO, "--audio-root")
        scores, bad_scores = corpus.find(midi_root, corpus.MIDI, "--midi-root")
        self.refused = {
            AUDIO: [_lost(item, scores, "recordings", "scores") for item in bad_sounds],
            MIDI: [_lost(item, sounds, "scores", "recordings") for item in bad_scores],
        }
        self.given.refuse_if_useless(chain(sounds, scores))
        self.sounds = Media(sounds, self.workspace.cache, self.workers, self.say)
        self.scores = Media(scores, self.workspace.cache, self.workers, self.say)

    def run(self, synthetic: bool, clouds: Path | None) -> Summary:
        summary = Summary(synthetic, self.seed, self.val_split, len(self.sounds.every), len(self.scores.every))
        manifests = self._build(summary, clouds)
        del self.sounds, self.scores  # free the memory for up to millions of files before the index is built
        while manifests:
            self._index(manifests.pop(0))
        report(summary, self.workspace.relative(self.out), self.say)
        return summary

    def _build(self, summary: Summary, clouds: Path | None) -> list[Built]:
        """Write the manifests, and fill in the summary."""
        quarantine = list(dict.fromkeys(item for of_root in self.refused.values() for item, _ in of_root))
        preload(*([LOGMEL] if self.sounds.every else []), NOTES, TOKENS)  # what decodes sound takes seconds to import
        if self.align and self.sounds.every:
            sandbox.preload(imports=IMPORTS)
        self.ledger = ledger(self.workspace.cache)

        # Paired before anything is decoded: otherwise a damaged file would make another file's name unique.
        quarantine += self.sounds.read(self.ledger) + self.scores.read(self.ledger)
        pairing = corpus.match(self.sounds.files, self.scores.files, self.given)
        if self.merge:
            merge_shards(self.workspace.cache, self.merge, digest(self.sounds, self.scores, pairing.pairs), ENCODERS,
                         self.say)  # fmt: skip
        bad, bad_sounds = decode(self.sounds, self.scores, self.scores.files, pairing.pairs)
        quarantine += self._judge(bad, len(self.scores.files), MIDI)
        heard = len({pair.audio.number for pair in pairing.pairs})
        quarantine += self._judge(bad_sounds, heard, AUDIO)

        usable = [score for score in self.scores.files if self.scores.has(score, TOKENS)]
        complete = [p for p in pairing.pairs if self.scores.has(p.midi, NOTES) and self.sounds.has(p.audio, LOGMEL)]
        self._refuse(not usable, "No score can be used.", quarantine)
        self._refuse(bool(self.sounds.files) and not complete, f"{_UNPAIRED}\n{_examples(pairing)}", quarantine)
        if self.align and complete:
            complete, others, self.alignments = aligned(
                complete, self.sounds, self.scores, self.workspace.cache, self.workers, self.say
            )
            quarantine += others
            self._refuse(not complete, _NONE_FITS, quarantine)
            summary.other_songs = len(others)
        paired, alone, contradicted = corpus.songs(complete, usable, self.given, self.val_split, self.seed)
        songs = {ALONE: alone} | ({PAIRED: paired} if self.sounds.files else {})
        for of_name in songs.values():
            sides = {song.held_out for song in of_name}
            copies = "".join(f"\n  copies with different emotions: {line}" for line in contradicted[:3])
            self._refuse(len(sides) < 2, f"{_ONE_SONG}{copies}\n{_examples(pairing)}", quarantine)

        columns = {ALONE: {MIDI: self.scores.columns([song.midi for song in alone], TOKENS)}}
        if PAIRED in songs:
            columns[PAIRED] = {
                AUDIO: self.sounds.columns([song.audio for song in paired], LOGMEL),
                MIDI: self.scores.columns([song.midi for song in paired], NOTES),
            }
        drawn = self._clouds(paired, columns[PAIRED], clouds) if clouds and paired else None
        self._count(summary, pairing, paired, alone, columns, quarantine)
        summary.contradicted = contradicted
        summary.paired_by_stem = sum(pair.by == "stem" for pair in complete)
        summary.clouds = len({cloud[CLOUD] for cloud in drawn}) if drawn else 0
        summary.digest = _data_digest(paired, alone, self.alignments)
        self._write(summary, songs, drawn, quarantine)
        if drawn is not None:
            columns[PAIRED][CLOUD] = Files(Texts.of(cloud[CLOUD] for cloud in drawn))
        return [_built(name, of_name, columns[name]) for name, of_name in songs.items()]

    # refusing

    def _judge(self, bad: list[Quarantined], count: int, root: str) -> list[Quarantined]:
        """Refuse a corpus with too many unreadable files, including those that the scan refused, and those below
        folders that it could not enter (but for hidden files, which are not songs)."""
        scanned = [(item, files) for item, files in self.refused[root] if files and item.reason != "a hidden file"]
        lost = sum(files for _, files in scanned)
        every = [*bad, *(item for item, _ in scanned)]
        try:
            refuse_if_too_many(every, count + lost, TOO_MANY, len(bad) + lost)
        except DataError:
            write_quarantine(self.out / QUARANTINE, every)
            raise
        return bad

    def _refuse(self, hopeless: bool, why: str, quarantine: Sequence[Quarantined]) -> None:
        if hopeless:
            write_quarantine(self.out / QUARANTINE, quarantine)
            raise DataError("\n".join([why.rstrip(), *([describe(quarantine)] if quarantine else [])]))

    # rows

    def _clouds(self, paired: Sequence[corpus.Song], columns: Mapping[str, Files], folder: Path) -> list[dict]:
        """Draw a target cloud for every song; returns its keys of the manifest rows."""
        notes, frames = Store.at(self.workspace.cache / NOTES.kind), columns[AUDIO].layout.counts["logmel"]
        return [
            write_cloud(
                folder,
                mapped_notes(self.alignments.knots(song), notes.get(key.tobytes())["notes"]),
                int(count),
                song.label.emotion,
            )
            for song, key, count in zip(paired, columns[MIDI].keys, frames, strict=True)
        ]

    def _count(self, summary: Summary, pairing, paired, alone, columns, quarantine) -> None:
        summary.pairs = len(paired)
        counts = self._facts("notes in tokens 1", columns[ALONE][MIDI], _note_counts)
        summary.notes = int(counts.sum())
        summary.score_changes = self._changes(alone, columns[ALONE][MIDI])
        summary.emotions = labels.count(song.label for song in alone)
        summary.label_sources = dict(sorted(Counter(song.label.source for song in alone).items()))
        summary.unused_labels = self.given.unused()
        summary.folders_disagree, summary.unsure_labels = self.given.disagreements(), self.given.unsure()
        summary.unmatched_audio = [file.relative for file in pairing.unmatched_audio]
        summary.unmatched_midi = [file.relative for file in pairing.unmatched_midi] if summary.audio_files else []
        summary.ambiguous = [
            {
                "audio": [file.relative for file in item.audio],
                "midi": [file.relative for file in item.midi],
                "reason": item.reason,
            }
            for item in pairing.ambiguous
        ]
        if paired:
            frames = columns[PAIRED][AUDIO].layout.counts["logmel"]
            once = np.unique([song.audio.number for song in paired], return_index=True)[1]
            summary.hours = round(int(frames[once].sum()) * HOP / SAMPLE_RATE / 3600, 4)
            opposite = columns[PAIRED][AUDIO].layout.counts["mix"] > 0
            summary.channels_cancel = [song.id for song, cancel in zip(paired, opposite, strict=True) if cancel]
            lengths = self._facts("end of notes 1", columns[PAIRED][MIDI], _end_of_notes)
            for song, count, written in zip(paired, frames.tolist(), lengths.tolist(), strict=True):
                heard, written = count * HOP / SAMPLE_RATE, self.alignments.end(song, written)
                if abs(heard - written) > max(_APART[0], _APART[1] * max(heard, written)):
                    summary.lengths_differ.append(f"{song.id}: {heard:.0f} s recorded, {written:.0f} s written")
        summary.alignment = self.alignments.counts
        summary.time_maps = self.alignments.listed(paired)
        summary.unaligned = self.alignments.unaligned(paired)
        summary.quarantined = [asdict(item) for item in quarantine]

    def _changes(self, songs: Sequence[corpus.Song], files: Files) -> dict[str, dict[str, Any]]:
        """What the reader had to change in the scores, by the keys of CHANGES: how often, in how many files, and a few
        of those where it was most. Only what occurred."""
        table = functools.cache(lambda: _change_counts(files, Store.at(self.workspace.cache / files.kind)))
        out = {}
        for column, what in enumerate(CHANGES):
            counts = self._facts(
                f"{what} in score 1", files, lambda files, store, indices, column=column: table()[indices, column]
            )
            if total := int(counts.sum()):
                most = np.argsort(-counts, kind="stable")[:_MOST_CHANGED].tolist()
                examples = [f"{songs[index].midi.relative}: {int(counts[index]):,}" for index in most if counts[index]]
                out[what] = {"count": total, "files": int((counts > 0).sum()), "most": examples}
        return out

    def _facts(self, name: str, files: Files, find: Callable[[Files, Store, np.ndarray], np.ndarray]) -> np.ndarray:
        """A number about each record, cached in the ledger, so that preparing a corpus again does not read it again."""
        store = Store.at(self.workspace.cache / files.kind)
        return self.ledger.facts(name, files.keys, lambda indices: find(files, store, indices))

    # writing

    def _write(self, summary: Summary, songs: Mapping[str, Sequence[corpus.Song]], drawn, quarantine) -> None:
        summary.manifests = [file_name(name, side) for name in sorted(songs) for side in SIDES]
        summary.songs = {
            name: {side: sum(song.held_out == (side == "val") for song in of_name) for side in SIDES}
            for name, of_name in songs.items()
        }
        content = {key: value for key, value in asdict(summary).items() if key != "up_to_date"}
        manifests = {
            file_name(name, side): _rows(of_name, side == "val", self.alignments, drawn if name == PAIRED else None)
            for name, of_name in songs.items()
            for side in SIDES
        }
        summary.up_to_date = not write_manifests(self.out, manifests, content, quarantine)

    def _index(self, built: Built) -> None:
        name, shared = built.name, index_manifests(built, self.out, self.workspace.cache, SCHEMA)
        del built  # its columns are in the indices now: free the memory for the computations below
        if shared is not None:
            precompute(shared)
            if name == ALONE:
                styles_of(shared["train"])


def _built(name: str, songs: Sequence[corpus.Song], columns: Mapping[str, Files]) -> Built:
    facts = FAMILIES[name]
    held_out = np.fromiter((song.held_out for song in songs), bool, len(songs))
    return Built(name, facts.name, facts.row_checks, facts.encoders(), {"train": ~held_out, "val": held_out}, columns)


def _rows(
    songs: Sequence[corpus.Song], held_out: bool, alignments: Alignments, drawn: Sequence[dict] | None
) -> Iterator[dict[str, Any]]:
    emotions = _Emotions()
    for number, song in enumerate(songs):
        if song.held_out == held_out:
            row: dict[str, Any] = {} if song.audio is None else {AUDIO: song.audio.place}
            row |= {MIDI: song.midi.place, EMOTION: emotions.of(song.label)}
            row |= {"id": song.id, LABEL_SOURCE: song.label.source}
            if song.audio is not None and len(knots := alignments.knots(song)):
                row[TIME_MAP] = knots.tolist()
            yield row if drawn is None else row | drawn[number]


def _note_counts(files: Files, store: Store, indices: np.ndarray) -> np.ndarray:
    """The number of notes in the tokens of the records `indices`."""
    out = np.zeros(len(indices))
    for part, records, starts, counts in files.layout.blocks(store, "ids", indices):
        ids = records.view(np.uint16)
        before = np.concatenate([[0], np.cumsum((ids >= FIRST_NOTE) & (ids < VELOCITY), dtype=np.int64)])
        out[part] = before[starts // 2 + counts] - before[starts // 2]
    return out


def _change_counts(files: Files, store: Store) -> np.ndarray:
    """What the reader changed in each score: int64 [n, len(CHANGES)]."""
    every = np.arange(len(files.keys))
    out = np.zeros((len(every), len(CHANGES)), np.int64)
    for part, block, starts, _ in files.layout.blocks(store, "changes", every):
        out[part] = block[starts[:, None] + np.arange(4 * len(CHANGES))].view(np.int32)
    return out


def _end_of_notes(files: Files, store: Store, indices: np.ndarray) -> np.ndarray:
    """The time in seconds at which the last note of each of the records `indices` ends."""
    out = np.zeros(len(indices))
    for place, record in enumerate(indices.tolist()):
        if place % RELEASED == 0:
            store.release()
        notes = Stored(files, store, record)["notes"]
        out[place] = (notes["onset"] + notes["duration"]).max()
    return out


def _data_digest(paired: Sequence[corpus.Song], alone: Sequence[corpus.Song], alignments: Alignments) -> str:
    """SHA-256 over a JSON list per song: id, whether it is held out, emotion, contents of its files, and its time map
    where it has one."""
    total, emotions = hashlib.sha256(), _Emotions()
    for songs in (paired, alone):
        for song in songs:
            files = ", ".join([f'"{file.content.hex()}"' for file in (song.audio, song.midi) if file is not None])
            side = "true" if song.held_out else "false"
            knots = alignments.knots(song) if song.audio is not None else ()
            by = f", {knots.tolist()}" if len(knots) else ""
            total.update(f"[{_ascii(song.id)}, {side}, {emotions.of(song.label)}, [{files}]{by}]\n".encode())
    return total.hexdigest()


class _Emotions:
    """Emotions of labels as JSON, cached, because many songs share a label."""

    def __init__(self) -> None:
        # By id() of the label; the label is stored too, so that its id is not reused.
        self.known: dict[int, tuple[labels.Label, manifest.AsJson]] = {}

    def of(self, label: labels.Label) -> manifest.AsJson:
        known = self.known.get(id(label))
        if known is None:
            text = manifest.AsJson(manifest.as_json(list(label.emotion)))
            known = self.known[id(label)] = (label, text)
        return known[1]


def _lost(item: Refused, others: Sequence[Found], kind: str, other: str) -> tuple[Quarantined, int]:
    """An item that the scan of a root refused, and how many files are lost with it. For a folder: at least as many as
    the other root has below the same path."""
    if item.folder is None:
        return Quarantined(item.path, "scan", item.reason), item.files
    inside = f"{item.folder}/"
    count = sum(file.relative.startswith(inside) for file in others)
    why = f"{item.reason}; the {kind} below it are not used" + (f" ({count} {other} have that path)" if count else "")
    return Quarantined(item.path, "scan", why), max(item.files, count)


def _examples(pairing) -> str:
    lines = [f"  recording {file.relative}" for file in pairing.unmatched_audio[:3]]
    lines += [f"  score {file.relative}" for file in pairing.unmatched_midi[:3]]
    lines += [
        f"  {', '.join(f.relative for f in item.audio)} | {', '.join(f.relative for f in item.midi)}: {item.reason}"
        for item in pairing.ambiguous[:3]
    ]
    return "\n".join(lines)
