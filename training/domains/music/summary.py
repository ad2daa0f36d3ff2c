"""The summary of `prepare`: its content for summary.json, and its printed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from training.data.files import printable
from training.domains.music.midi.reader import CHANGES
from training.units import counted


@dataclass
class Summary:
    """The result of prepare, also stored in `manifests/summary.json`; nothing in it depends on the clock."""

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
    #: what the reader changed in the scores (the keys of reader.CHANGES) -> count, files, most (examples)
    score_changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    emotions: dict[str, int] = field(default_factory=dict)  # songs (scores) per emotion
    label_sources: dict[str, int] = field(default_factory=dict)  # labels, path, none (neutral)
    unused_labels: list[str] = field(default_factory=list)
    folders_disagree: list[str] = field(default_factory=list)
    unsure_labels: list[str] = field(default_factory=list)  # folders with an emotion word in a longer name
    contradicted: list[str] = field(default_factory=list)  # copies of one file with different emotions
    unmatched_audio: list[str] = field(default_factory=list)
    unmatched_midi: list[str] = field(default_factory=list)
    ambiguous: list[dict[str, Any]] = field(default_factory=list)
    lengths_differ: list[str] = field(default_factory=list)
    channels_cancel: list[str] = field(default_factory=list)  # songs that are not mixed as the mean of their channels
    alignment: dict[str, int] = field(default_factory=dict)  # kind of time map -> pairs; empty: not aligned
    time_maps: list[dict[str, Any]] = field(default_factory=list)  # the songs whose map is not the identity
    unaligned: list[str] = field(default_factory=list)  # songs that could not be aligned, and why
    other_songs: int = 0  # recordings quarantined because they are not of the same song as their scores
    quarantined: list[dict[str, str]] = field(default_factory=list)
    clouds: int = 0
    digest: str = ""  # of the data: contents, ids, emotions and sides; the same on every host
    manifests: list[str] = field(default_factory=list)  # file names of this run's manifests
    up_to_date: bool = field(default=False, compare=False)  # nothing had to be written


def report(summary: Summary, folder: str, say: Callable[[str], None]) -> None:
    """Print the summary; `folder`: of the manifests, as it should be shown."""
    if summary.synthetic:
        say("  synthetic: true (a composed demo corpus, no real music)")
    say(
        f"  {counted(summary.audio_files, 'recording')}, {counted(summary.midi_files, 'score')}: "
        f"{counted(summary.pairs, 'pair')} "
        f"({summary.paired_by_stem} by name alone), {summary.hours:.2f} hours, {summary.notes:,} notes"
    )
    for name, sides in summary.songs.items():
        say(f"  {name}: {counted(sides['train'], 'song')} to train on, {sides['val']} held out")
    if not summary.audio_files:
        say("  No --audio-root: only the MIDI manifests are written; Spectocloud needs recordings.")
    say("  emotions: " + ", ".join(f"{name} {count}" for name, count in summary.emotions.items()))
    unlabelled = summary.label_sources.get("none", 0)
    if unlabelled:
        say(f"  {counted(unlabelled, 'song')} without an emotion word in the path: labelled neutral [0, 0, 0.5]")
    _list(say, "labels without a file", summary.unused_labels)
    _list(say, "folders with two emotions in their path (see the README for the rule)", summary.folders_disagree)
    _list(say, "folders with an emotion word in a longer name (an artist or an album?)", summary.unsure_labels)
    _list(say, "files with the same content under different emotions", summary.contradicted)
    _list(say, "recordings without a score (not used)", summary.unmatched_audio)
    _list(say, "scores without a recording (used for MIDI only)", summary.unmatched_midi)
    _list(
        say,
        "ambiguous (not paired)",
        [f"{', '.join(a['audio'])} | {', '.join(a['midi'])}: {a['reason']}" for a in summary.ambiguous],
    )
    _list(say, "pairs whose lengths differ (check that they are the same song)", summary.lengths_differ)
    if summary.alignment:
        same, moved = summary.alignment["identity"], sum(summary.alignment.values()) - summary.alignment["identity"]
        others = f"{summary.other_songs} not the same song"
        say(f"  alignment: {counted(same, 'pair')} as written, {moved} through a time map, {others}")
    _list(
        say, "pairs whose scores are read through a time map", [f"{m['song']}: {m['what']}" for m in summary.time_maps]
    )
    _list(say, "pairs that could not be aligned (used as they are)", summary.unaligned)
    for what, found in summary.score_changes.items():
        most = printable(found["most"][0])
        say(f"  {found['count']:,} {CHANGES[what]}, in {found['files']:,} of the scores; most in {most}")
    _list(
        say,
        "songs whose channels cancel each other (mixed as half of their difference, or the loudest one)",
        summary.channels_cancel,
    )
    _list(say, "quarantined", [f"{item['path']}: {item['reason']}" for item in summary.quarantined])
    say(f"  data digest {summary.digest[:16]}, manifests in {folder}")
    if summary.up_to_date:
        say("  up to date: nothing has changed")


def _list(say: Callable[[str], None], title: str, items: Sequence[str], most: int = 5) -> None:
    if items:
        say(f"  {title}: {len(items)}")
        for item in items[:most]:
            say(f"    {printable(item)}")
        if len(items) > most:
            say(f"    ... and {len(items) - most} more (see summary.json)")
