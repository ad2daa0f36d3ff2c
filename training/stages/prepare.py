"""Folders in, manifests and stores out; and the way back: a split, ready to train on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from training.data import manifest
from training.data.encode import (
    TOO_MANY,
    Quarantined,
    describe,
    encode_all,
    encode_files,
    expect,
    refuse_if_too_many,
    write_quarantine,
)
from training.data.files import Found, Ledger, Refused, printable, write_atomic
from training.data.manifest import Row
from training.data.store import Record
from training.errors import DataError, UsageError
from training.music.audio import HOP, LOGMEL, SAMPLE_RATE
from training.music.clouds.precomputed import write_cloud
from training.music.corpora import corpus, labels
from training.music.midi.reader import NOTES
from training.music.midi.tokens import NOTE as FIRST_NOTE
from training.music.midi.tokens import TOKENS, VELOCITY
from training.recipe import Recipe
from training.workspace import PROJECT, Workspace, exclusive

SPECTOCLOUD, MIDI = "spectocloud", "midi"
SUMMARY = "summary.json"
#: A recording and its score may differ by this much (seconds, share) before that is remarked on.
_APART = (5.0, 0.2)
_UNPAIRED = (
    "No recording could be paired with a score. Give both the same relative path (happy/track001.wav, "
    "happy/track001.mid), or a name that no other file has."
)
_ONE_SONG = (
    "There is only one song (copies and formats of it count as one); two are needed, to train on and to check with."
)


@dataclass
class Summary:
    """What prepare found and made. `manifests/summary.json` holds the same; nothing in it depends on the clock."""

    synthetic: bool
    seed: int
    val_split: float
    audio_files: int = 0
    midi_files: int = 0
    pairs: int = 0
    paired_by_stem: int = 0
    songs: dict[str, dict[str, int]] = field(default_factory=dict)  # manifest -> split -> rows
    hours: float = 0.0  # of paired recordings
    notes: int = 0  # in all scores
    emotions: dict[str, int] = field(default_factory=dict)  # songs (scores) per emotion
    label_sources: dict[str, int] = field(default_factory=dict)  # labels, path, none (neutral)
    unused_labels: list[str] = field(default_factory=list)
    unmatched_audio: list[str] = field(default_factory=list)
    unmatched_midi: list[str] = field(default_factory=list)
    ambiguous: list[dict[str, Any]] = field(default_factory=list)
    lengths_differ: list[str] = field(default_factory=list)
    quarantined: list[dict[str, str]] = field(default_factory=list)
    clouds: int = 0
    digest: str = ""  # of the data: contents, ids, emotions and sides; the same on every host
    manifests: list[str] = field(default_factory=list)  # file names that this run stands for
    up_to_date: bool = field(default=False, compare=False)  # nothing had to be written


def prepare(
    workspace: Workspace,
    audio_root: Path | None,
    midi_root: Path | None,
    *,
    val_split: float = 0.1,
    seed: int = 42,
    generate_clouds: bool = False,
    out_dir: Path | None = None,
    clouds_dir: Path | None = None,
    labels_file: Path | None = None,
    workers: int | None = None,
    say: Callable[[str], None] = print,
) -> Summary:
    """Scan, pair, decode, label, split and write the manifests; a second run over the same files changes nothing.

    Without `audio_root` only the MIDI manifests are written. Every file is decoded here, so that what cannot be read is
    known, listed in `quarantine.jsonl`, and in no manifest.

    Raises DataError if there is nothing to train on, UsageError for arguments that cannot be meant.
    """
    if not 0 < val_split < 1:
        raise UsageError(f"--val-split is the share of songs held out, between 0 and 1; it is {val_split:g}.")
    if midi_root is None:
        raise UsageError(
            "--midi-root is needed: both models learn from notes (a song's score is what its cloud is drawn from)."
        )
    out = (out_dir or workspace.manifests).absolute()
    given = labels.read(labels_file) if labels_file else labels.Labels()
    sounds, bad_sounds = corpus.find(audio_root, corpus.AUDIO, "--audio-root")
    scores, bad_scores = corpus.find(midi_root, corpus.MIDI, "--midi-root")
    with exclusive(out, "preparing data"):
        return _Preparation(workspace, out, val_split, seed, given, workers, say).run(
            [*bad_sounds, *bad_scores],
            sounds,
            scores,
            _is_synthetic(audio_root, midi_root),
            (clouds_dir or workspace.clouds).absolute() if generate_clouds else None,
        )


def _is_synthetic(*roots: Path | None) -> bool:
    """The demo corpus marks its folder, which holds both roots."""
    places = [place for root in roots if root is not None for place in (root.resolve(), root.resolve().parent)]
    return any((place / "synthetic.json").is_file() for place in places)


@dataclass
class _Preparation:
    workspace: Workspace
    out: Path
    val_split: float
    seed: int
    given: labels.Labels
    workers: int | None
    say: Callable[[str], None]

    def run(
        self,
        refused: Sequence[Refused],
        sounds: list[Found],
        scores: list[Found],
        synthetic: bool,
        clouds: Path | None,
    ) -> Summary:
        summary = Summary(synthetic, self.seed, self.val_split, len(sounds), len(scores))
        quarantine = [Quarantined(item.path, "scan", item.reason) for item in refused]
        expect(LOGMEL, NOTES, TOKENS)

        # Paired before anything is decoded: that a file is broken must not make another one's name unique.
        digests = self._digests([*sounds, *scores], quarantine)
        sounds, scores = ([file for file in files if file.path in digests] for files in (sounds, scores))
        pairing = corpus.match(sounds, scores, digests, self.given)

        tokens, bad = self._encode(scores, TOKENS)
        notes, bad_notes = self._encode([pair.midi for pair in pairing.pairs if pair.midi.path in tokens], NOTES)
        quarantine += self._judge([*bad, *bad_notes], len(scores), refused, corpus.MIDI)
        mels, bad = self._encode([pair.audio for pair in pairing.pairs], LOGMEL)
        quarantine += self._judge(bad, len(mels) + len(bad), refused, corpus.AUDIO)
        scores = [score for score in scores if score.path in tokens]
        whole = [pair for pair in pairing.pairs if pair.midi.path in notes and pair.audio.path in mels]
        self._refuse(not scores, "No score can be used.", quarantine)
        self._refuse(bool(sounds) and not whole, f"{_UNPAIRED}\n{_examples(pairing)}", quarantine)

        paired, alone = corpus.songs(whole, scores, digests, self.given, self.val_split, self.seed)
        for songs in (paired, alone) if sounds else (alone,):
            self._refuse(len({song.held_out for song in songs}) < 2, f"{_ONE_SONG}\n{_examples(pairing)}", quarantine)
        rows = {MIDI: [self._row(song, None) for song in alone]}
        if sounds:
            rows[SPECTOCLOUD] = [self._row(song, self._cloud(song, notes, mels, clouds)) for song in paired]
        self._count(summary, pairing, paired, alone, notes, tokens, mels, quarantine)
        summary.paired_by_stem = sum(pair.by == "stem" for pair in whole)
        summary.clouds = len({row["target_pointcloud_path"] for row in rows.get(SPECTOCLOUD, [])}) if clouds else 0
        summary.digest = _data_digest(paired, alone, digests)
        self._write(summary, rows, {MIDI: alone, SPECTOCLOUD: paired}, quarantine)
        self._report(summary, quarantine)
        return summary

    # decoding

    def _encode(self, files: Sequence[Found], encoder) -> tuple[Mapping[Path, Record], list[Quarantined]]:
        paths = list(dict.fromkeys(file.path for file in files))
        records, bad = encode_files(paths, encoder, self.workspace.cache, self.workers, self.say)
        return records, [bad[path] for path in paths if path in bad]

    def _judge(
        self, bad: list[Quarantined], count: int, refused: Sequence[Refused], suffixes: Sequence[str]
    ) -> list[Quarantined]:
        """Refuse too many unreadable files; those that the scan refused count (hidden ones are no songs)."""
        scanned = [
            Quarantined(item.path, "scan", item.reason)
            for item in refused
            if item.path.lower().endswith(tuple(suffixes)) and item.reason != "a hidden file"
        ]
        try:
            refuse_if_too_many([*bad, *scanned], count + len(scanned), TOO_MANY)
        except DataError:
            write_quarantine(self.out / "quarantine.jsonl", [*bad, *scanned])
            raise
        return bad

    def _digests(self, files: Sequence[Found], quarantine: list[Quarantined]) -> dict[Path, str]:
        out = {}
        ledger = Ledger(self.workspace.cache / "ledger.sqlite")
        for path, digest in ledger.digests([file.path for file in files]).items():
            if isinstance(digest, str):
                quarantine.append(Quarantined(printable(path), "content", digest))
            else:
                out[path] = digest.sha256
        return out

    def _refuse(self, hopeless: bool, why: str, quarantine: Sequence[Quarantined]) -> None:
        if hopeless:
            write_quarantine(self.out / "quarantine.jsonl", quarantine)
            raise DataError("\n".join([why.rstrip(), *([describe(quarantine)] if quarantine else [])]))

    # rows

    def _row(self, song: corpus.Song, cloud: Mapping[str, Any] | None) -> dict[str, Any]:
        row: dict[str, Any] = {} if song.audio is None else {"audio_path": str(song.audio.path)}
        row |= {"midi_path": str(song.midi.path), "emotion": list(song.label.emotion)}
        return row | {"id": song.id, "label_source": song.label.source} | (cloud or {})

    def _cloud(self, song: corpus.Song, notes, mels, folder: Path | None) -> dict[str, Any] | None:
        if folder is None:
            return None
        frames = len(mels[song.audio.path]["logmel"])
        return write_cloud(folder, notes[song.midi.path]["notes"], frames, song.label.emotion)

    # telling

    def _count(self, summary: Summary, pairing, paired, alone, notes, tokens, mels, quarantine) -> None:
        summary.pairs = len(paired)
        frames = {path: len(mels[path]["logmel"]) for path in dict.fromkeys(song.audio.path for song in paired)}
        summary.hours = round(sum(frames.values()) * HOP / SAMPLE_RATE / 3600, 4)
        for score in alone:
            ids = tokens[score.midi.path]["ids"]
            summary.notes += int(((ids >= FIRST_NOTE) & (ids < VELOCITY)).sum())
        summary.emotions = labels.count(song.label for song in alone)
        sources = [song.label.source for song in alone]
        summary.label_sources = {source: sources.count(source) for source in sorted(set(sources))}
        summary.unused_labels = self.given.unused()
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
        for song in paired:
            heard, written = frames[song.audio.path] * HOP / SAMPLE_RATE, _length(notes[song.midi.path]["notes"])
            if abs(heard - written) > max(_APART[0], _APART[1] * max(heard, written)):
                summary.lengths_differ.append(f"{song.id}: {heard:.0f} s recorded, {written:.0f} s written")
        summary.quarantined = [asdict(item) for item in quarantine]

    def _write(self, summary: Summary, rows, songs, quarantine: Sequence[Quarantined]) -> None:
        """All manifests, then the summary: a run that was cut short leaves none, and is begun anew."""
        changed = False
        summary.manifests = [f"{name}_{side}.jsonl" for name in sorted(rows) for side in ("train", "val")]
        stale = self.out / SUMMARY
        content = {name: {"train": [], "val": []} for name in rows}
        for name, of_name in rows.items():
            for row, song in zip(of_name, songs[name], strict=True):
                content[name]["val" if song.held_out else "train"].append(row)
        summary.songs = {name: {side: len(part) for side, part in sides.items()} for name, sides in content.items()}
        told = {key: value for key, value in asdict(summary).items() if key != "up_to_date"}
        text = json.dumps(told, indent=2, ensure_ascii=False).encode() + b"\n"
        if stale.is_file() and stale.read_bytes() != text:
            stale.unlink()
        for name, sides in content.items():
            for side, part in sides.items():
                changed |= manifest.write(self.out / f"{name}_{side}.jsonl", part)
        write_quarantine(self.out / "quarantine.jsonl", quarantine)
        summary.up_to_date = not write_atomic(stale, text) and not changed

    def _report(self, summary: Summary, quarantine: Sequence[Quarantined]) -> None:
        say = self.say
        if summary.synthetic:
            say("  synthetic: true (a composed demo corpus, no real music)")
        say(
            f"  {summary.audio_files} recordings, {summary.midi_files} scores: {summary.pairs} pairs "
            f"({summary.paired_by_stem} by name alone), {summary.hours:.2f} hours, {summary.notes:,} notes"
        )
        for name, sides in summary.songs.items():
            say(f"  {name}: {sides['train']} songs to train on, {sides['val']} held out")
        if not summary.audio_files:
            say("  No --audio-root: only the MIDI manifests are written; Spectocloud needs recordings.")
        say("  emotions: " + ", ".join(f"{name} {count}" for name, count in summary.emotions.items()))
        unlabelled = summary.label_sources.get("none", 0)
        if unlabelled:
            say(f"  {unlabelled} songs have no hint of emotion in their names: taken as neutral [0, 0, 0.5]")
        _list(say, "labels that name no file", summary.unused_labels)
        _list(say, "recordings without a score (not used)", summary.unmatched_audio)
        _list(say, "scores without a recording (used for MIDI only)", summary.unmatched_midi)
        _list(
            say,
            "ambiguous (not paired)",
            [f"{', '.join(a['audio'])} | {', '.join(a['midi'])}: {a['reason']}" for a in summary.ambiguous],
        )
        _list(say, "pairs whose lengths differ (check that they are the same song)", summary.lengths_differ)
        _list(say, "quarantined", [f"{item.path}: {item.reason}" for item in quarantine])
        say(f"  data digest {summary.digest[:16]}, manifests in {self.workspace.relative(self.out)}")
        if summary.up_to_date:
            say("  up to date: nothing had changed")


def _length(notes: np.ndarray) -> float:
    return float((notes["onset"] + notes["duration"]).max())


def _data_digest(paired: Sequence[corpus.Song], alone: Sequence[corpus.Song], digests: Mapping[Path, str]) -> str:
    total = hashlib.sha256()
    for song in (*paired, *alone):
        files = [digests[file.path] for file in (song.audio, song.midi) if file is not None]
        total.update(json.dumps([song.id, song.held_out, list(song.label.emotion), files]).encode() + b"\n")
    return total.hexdigest()


def _examples(pairing) -> str:
    lines = [f"  recording {file.relative}" for file in pairing.unmatched_audio[:3]]
    lines += [f"  score {file.relative}" for file in pairing.unmatched_midi[:3]]
    lines += [
        f"  {', '.join(f.relative for f in item.audio)} | {', '.join(f.relative for f in item.midi)}: {item.reason}"
        for item in pairing.ambiguous[:3]
    ]
    return "\n".join(lines)


def _list(say: Callable[[str], None], title: str, items: Sequence[str], most: int = 5) -> None:
    if items:
        say(f"  {len(items)} {title}:")
        for item in items[:most]:
            say(f"    {printable(item)}")
        if len(items) > most:
            say(f"    ... and {len(items) - most} more (see summary.json)")


# -- a split, ready to train on ------------------------------------------------------------------------------------


def load_split(
    recipe: Recipe,
    workspace: Workspace,
    split: str,
    *,
    audio_root: Path | None = None,
    midi_root: Path | None = None,
    workers: int | None = None,
    say: Callable[[str], None] = print,
) -> list[Row]:
    """The rows of "train" or "val" with their stored arrays; what the stores lack is decoded first.

    The manifest is the config's (`data.train_manifest`, `data.val_manifest`) or the workspace's own; a hand-written one
    is as good as a built one. Raises DataError for a missing or faulty manifest, or too many unreadable files.
    """
    settings = recipe.settings.data
    named = settings.train_manifest if split == "train" else settings.val_manifest
    path = _existing(Path(named).expanduser()) if named else workspace.manifest(recipe.manifest, split)
    cache = Path(settings.cache_dir).expanduser() if settings.cache_dir else workspace.cache
    encoders = recipe.encoders()
    rows = manifest.load(
        path,
        path_keys=tuple(encoders),
        audio_root=audio_root,
        midi_root=midi_root,
        clouds_root=workspace.clouds,
        check=recipe.check_row,
    )
    listing = cache / "quarantine" / f"{recipe.manifest}_{split}.jsonl"
    kept, refused = encode_all(rows, encoders, cache, workers, quarantine=listing, say=say)
    if refused:
        say(f"  {len(rows) - len(kept)} of {len(rows)} songs of {printable(path)} are left out:\n{describe(refused)}")
    return kept


def summary_of(workspace: Workspace) -> dict[str, Any] | None:
    """What `prepare` wrote about the workspace's manifests; None where it has not run (or was stopped)."""
    try:
        return json.loads((workspace.manifests / SUMMARY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(f"{workspace.manifests / SUMMARY} is damaged ({error}). Run prepare again.") from None


def _existing(path: Path) -> Path:
    """A manifest named in a config: from where the user stands, else from the project's folder."""
    return path if path.is_absolute() or path.exists() else PROJECT / path
