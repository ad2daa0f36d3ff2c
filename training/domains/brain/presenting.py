"""The stimulus of all runs: decodes film, frames and annotations, and cuts them to the volumes of each run."""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from training.data.encode import encode_files, ledger, refuse_if_too_many
from training.data.files import printable
from training.domain import Job
from training.domains.brain import places
from training.domains.brain.collecting import Collected
from training.domains.brain.splits.blocks import gap_of
from training.domains.brain.stimulus import annotations, backbone, bins
from training.domains.brain.stimulus.film import FILM, HEIGHT, PICTURE, PICTURES, WIDTH, frame_files
from training.domains.brain.stimulus.own import ENCODER as OWN
from training.domains.brain.stimulus.own import Own, bands_of, check_names, files_of
from training.errors import DataError, UsageError
from training.threads import share

MISMATCH = 0.05  # relative difference of length above which the user must say where the film begins


@dataclass(frozen=True, eq=False)
class Source:
    """What was shown: decoded film or frames, and words."""

    film: Mapping[str, np.ndarray] | None
    words: Sequence[tuple[float, str]]
    vocabulary: tuple[str, ...]
    notes: tuple[str, ...] = ()
    own: tuple[Own, ...] = ()  # the user's features


@dataclass(frozen=True, eq=False)
class Presented:
    """Run -> volumes that are used (the same for all subjects) and the file of its stimulus. `refused`: file of BOLD ->
    why it is not used."""

    volumes: Mapping[str, int]
    paths: Mapping[str, Path]
    refused: Mapping[Path, str]
    notes: tuple[str, ...]
    onsets: Mapping[str, float] = field(default_factory=dict)


def source(job: Job) -> Source:
    """Decode what the options name. Raises UsageError without a stimulus, DataError for a file that cannot be read."""
    movie, frames, path = job.path("movie"), job.path("frames"), job.path("annotations")
    if movie is not None and frames is not None:
        raise UsageError("Name either --movie or --frames.")
    own, remarks = _own(job), ()
    if job.path("backbone") is not None:
        own, remarks = _with_backbone(job, movie, own)
    if movie is None and frames is None and path is None and not own:
        raise UsageError("Name what was shown: --movie FILE, --frames DIR, --annotations FILE, or --features FILE.")
    film = _decoded(job, movie, FILM, "--movie") if movie else _frames(job, frames) if frames else None
    if path is None:
        return Source(film, (), (), ("no annotations: there are no features of words", *remarks), own)
    record = _decoded(job, path, annotations.ENCODER, "--annotations")
    vocabulary = annotations.vocabulary_of(record)
    words = [(float(at), vocabulary[number]) for at, number in zip(record["onset"], record["word"], strict=True)]
    skipped = int(record["skipped"][0])
    notes = remarks + ((f"{path.name}: {skipped} rows without a time or text are left out",) if skipped else ())
    if film is not None:
        notes += _beyond(path, [at for at, _ in words], float(film["seconds"].max()))
    return Source(film, words, tuple(vocabulary), notes, own)


def _own(job: Job) -> tuple[Own, ...]:
    """The bands of --features. Raises DataError for a file that cannot be read."""
    path = job.path("features")
    if path is None:
        return ()
    files = files_of(path)
    records, refused = encode_files(files, OWN, job.workspace.cache, job.workers, job.say)
    for file, why in refused.items():
        raise DataError(f"--features {printable(file)}: {why.reason}.")
    found = tuple(band for file in files for band in bands_of(file, records[file]))
    check_names(found)
    return found


def _with_backbone(job: Job, movie: Path | None, own: tuple[Own, ...]) -> tuple[tuple[Own, ...], tuple[str, ...]]:
    """The bands with that of --backbone, and a note on it. Raises UsageError for a model that cannot be used, or
    without a film, DataError if it fails on the film."""
    if movie is None:
        raise UsageError(f"{backbone.OPTION} needs --movie: it looks at the pictures of a film.")
    layer = job.options.get("backbone_layer")
    model = backbone.backbone_at(job.path("backbone"), None if layer is None else int(layer))
    found = ledger(job.workspace.cache).of([str(path) for path in model.files])
    if found.refused:
        raise UsageError(f"{backbone.OPTION}: {printable(model.files[min(found.refused)])} cannot be read.")
    digest = hashlib.sha256(found.sha256.tobytes()).hexdigest()
    record = _decoded(job, movie, model.encoder(digest, job.workers or share()), backbone.OPTION)
    band = Own(model.folder, backbone.BAND, np.asarray(record["values"]), np.asarray(record["times"]))
    check_names([*own, band])
    return (*own, band), (model.remark,)


def _beyond(path: Path, times: Sequence[float], lasts: float) -> tuple[str, ...]:
    """A note on words after the end of the film. Raises DataError if these are more than half: another unit, or another
    film."""
    late = sum(at > lasts for at in times)
    if not late:
        return ()
    text = (
        f"{late:,} of {len(times):,} words begin after the end of the film ({lasts:.0f} s), the last at "
        f"{max(times):,.0f} s"
    )
    if late <= len(times) / 2:
        return (f"{path.name}: {text}; they are not used",)
    unit = " They may be milliseconds: divide them by 1,000." if max(times) / 1000 <= 1.05 * lasts else ""
    raise DataError(f"--annotations {printable(path)}: {text}. Times are seconds of the film.{unit}")


def _decoded(job: Job, path: Path, encoder: Any, flag: str) -> Mapping[str, np.ndarray]:
    records, refused = encode_files([path], encoder, job.workspace.cache, job.workers, job.say)
    if path in refused:
        raise DataError(f"{flag} {printable(path)}: {refused[path].reason}.")
    return records[path]


def _frames(job: Job, folder: Path) -> Mapping[str, np.ndarray]:
    """A folder of frames as a film without sound. Raises UsageError without --frame-rate."""
    rate = job.options.get("frame_rate")
    if rate is None or not 0 < float(rate) <= 240:
        raise UsageError("--frames needs --frame-rate N: the frames a second that the folder holds.")
    paths = list(frame_files(folder))
    if not paths:
        raise UsageError(
            f"{printable(folder)} holds no picture (.png, .jpg, ...): --frames names the folder of frames."
        )
    records, refused = encode_files(paths, PICTURE, job.workspace.cache, job.workers, job.say)
    refuse_if_too_many(list(refused.values()), len(paths))
    seconds = len(paths) / float(rate)
    count = math.ceil(seconds * PICTURES)
    out = np.zeros((count, HEIGHT, WIDTH, 3), np.float32)
    seen = np.zeros(count, np.int64)
    before = next(iter(records))
    for number, path in enumerate(paths):
        before = path if path in records else before  # a frame that cannot be read repeats the one before
        place = min(int(number / float(rate) * PICTURES + 1e-6), count - 1)
        out[place] += records[before]["picture"]
        seen[place] += 1
    filled = np.maximum.accumulate(np.where(seen > 0, np.arange(count), 0))
    pictures = (out[filled] / np.maximum(seen[filled], 1)[:, None, None, None]).round().astype(np.uint8)
    return {"pictures": pictures, "levels": np.zeros((0, 1), np.float16), "seconds": np.array([seconds, 0.0])}


# -- runs --------------------------------------------------------------------------------------------------------------


def present(job: Job, collected: Collected, shown: Source) -> Presented:
    """Cut the stimulus to the runs and write its files. Raises UsageError for onsets, DataError where lengths differ by
    more than 5 % and no onset explains it."""
    names = list(dict.fromkeys(run.run for run in collected.runs))
    tr, given = collected.tr.seconds, _onsets(job, names)
    volumes: dict[str, int] = {}
    paths: dict[str, Path] = {}
    onsets: dict[str, float] = {}
    refused: dict[Path, str] = {}
    notes = list(shown.notes)
    following, first = 0.0, 0
    spans: dict[str, tuple[int, int]] = {}
    for name in names:
        lengths = {run.path: len(collected.records[run.path]["data"]) for run in collected.of_run(name)}
        middle = statistics.median(lengths.values())
        refused |= {
            path: f"has {length} volumes, the others of run {name} {middle:.0f}: name a file of the same film"
            for path, length in lengths.items() if abs(length - middle) > MISMATCH * middle
        }  # fmt: skip
        if all(path in refused for path in lengths):
            listed = ", ".join(f"{printable(path.name)} {length}" for path, length in lengths.items())
            raise DataError(
                f"run {name}: the numbers of volumes differ by more than {MISMATCH:.0%}, and none is that of most "
                f"files: {listed}. Leave out the files that are not of the complete run."
            )
        shortest = min(length for path, length in lengths.items() if path not in refused)
        longest = max(length for path, length in lengths.items() if path not in refused)
        if longest > shortest:
            notes.append(f"run {name}: subjects have {shortest} to {longest} volumes; all are trimmed to {shortest}")
        onset = given[name] if given else following
        count, remark = _fitting(shown, shortest, tr, onset, name, alone=len(names) == 1, given=given is not None)
        notes += remark
        following = onset + shortest * tr
        volumes[name], onsets[name] = count, onset
        paths[name] = places.stimulus_path(job.workspace, name)
        spans[name] = shortest, longest
    notes += _repeats(volumes, onsets, tr)
    for one in shown.own:
        one.check_rows(spans)
        notes.append(one.remark(tr))
    for name, count in volumes.items():
        stimulus = bins.binned(shown.film, shown.words, shown.vocabulary, volumes=count, tr=tr, onset=onsets[name])
        own = {one.band: one.binned(count, tr, onsets[name], first, name) for one in shown.own}
        bins.write(paths[name], replace(stimulus, bands={**stimulus.bands, **own}))
        first += spans[name][0]
    if len(names) > 1 and given is None:
        starts = ", ".join(f"run {name} at {onsets[name]:.1f} s" for name in names)
        notes.append(f"runs are taken as parts of the film that follow each other: {starts}. If not, give --onset")
    return Presented(volumes, paths, refused, tuple(notes), onsets)


def _repeats(volumes: dict[str, int], onsets: Mapping[str, float], tr: float) -> list[str]:
    """Runs that begin at the same second of the film repeat it: trims them to the shortest of them, and returns notes.
    Raises DataError for runs that share a part of the film otherwise."""
    groups: dict[float, list[str]] = {}
    for name, onset in onsets.items():
        groups.setdefault(onset, []).append(name)
    for onset, names in groups.items():
        volumes |= dict.fromkeys(names, min(volumes[name] for name in names))
        for other, (after, *_) in groups.items():
            if onset < other < onset + (volumes[names[0]] - gap_of(tr)) * tr:
                raise DataError(
                    f"run {after} begins {other:g} s into the film, which run {names[0]} shows from {onset:g} to "
                    f"{onset + volumes[names[0]] * tr:g} s: held-out volumes of one would be training volumes of "
                    "the other. Runs may repeat the film from the same second, or follow each other; correct --onset, "
                    "or leave a run out."
                )
    return [
        f"runs {', '.join(names)} begin at second {onset:g} of the film: they are repeats, with the same blocks"
        for onset, names in groups.items() if len(names) > 1
    ]  # fmt: skip


def _onsets(job: Job, names: Sequence[str]) -> dict[str, float] | None:
    text = job.options.get("onset")
    if text is None:
        return None
    try:
        values = [float(part) for part in str(text).split(",")]
    except ValueError:
        raise UsageError(
            f"--onset {text}: write seconds of the film at the first volume, one for each run: 0,675.5"
        ) from None
    if len(values) != len(names):
        raise UsageError(
            f"--onset has {len(values)} numbers, and there are {len(names)} runs ({', '.join(names)}): one for each."
        )
    return dict(zip(names, values, strict=True))


def _fitting(
    shown: Source, volumes: int, tr: float, onset: float, name: str, *, alone: bool, given: bool
) -> tuple[int, list[str]]:
    """How many volumes of a run have a stimulus, and what the user should know. Nothing is ever stretched."""
    lasts = bins.available(shown.film, onset, tr)
    if lasts is None:
        end = max((at for at, _ in shown.words), default=math.inf)
        lasts = max(volumes, 0) if end > onset else 0
    if lasts == 0:
        raise DataError(f"run {name} would begin {onset:g} s into a film that is over by then: give --onset "
                        "SECONDS,SECONDS,... for the runs (0,0 if both show the film from its beginning).")
    used = min(volumes, lasts)
    bold, film = volumes * tr, lasts * tr
    differs = bold / film - 1 if alone else max(0.0, bold / film - 1)
    if abs(differs) > MISMATCH and not given:
        raise DataError(
            f"run {name}: {volumes} volumes of {tr:g} s are {bold:.0f} s, the film lasts {film:.0f} s: they differ by "
            f"{100 * differs:+.1f} %. Give --onset SECONDS (of the film at the first volume; negative if the scanner "
            "started first), or check --tr."
        )
    if used < volumes:
        return used, [f"run {name}: the film ends after {used} of {volumes} volumes; the rest is not used"]
    if alone and lasts > volumes:
        return used, [f"run {name}: the last {(lasts - volumes) * tr:.1f} s of the film have no BOLD"]
    return used, []
