"""`inspect music FILE...`: what is read from a recording or a score, and how other programs read it."""

from __future__ import annotations

import io
import math
import shutil
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from training.data.files import Found
from training.domain import Inspected, Job
from training.domains.music import emotion
from training.domains.music.corpora import corpus, labels
from training.domains.music.midi.grids import TempoMap
from training.domains.music.midi.reader import CHANGES, Layout, layout
from training.domains.music.midi.tokens import FAMILIES, encode_tokens

CLOSE = 0.001  # seconds by which two readers' last onsets may differ
UNKNOWN = 1 << 60  # frames that libsndfile declares where the header has no length
SHORTER = 0.1  # seconds by which two decoders' lengths may differ: encoders add as much at both ends


def inspect(job: Job, path: Path) -> Inspected:
    """The file as `prepare` reads it. Raises ValueError where `prepare` would refuse it, HostError without ffmpeg."""
    suffix = path.suffix.lower()
    if suffix in corpus.MIDI:
        return _score(job, path)
    if suffix in corpus.AUDIO:
        return _recording(job, path)
    kinds = " ".join(kind.lstrip(".") for kind in (*corpus.AUDIO, *corpus.MIDI))
    raise ValueError(f"has an extension that is not read (only {kinds})")


# -- labels --------------------------------------------------------------------------------------------------------


def _label(job: Job, path: Path) -> tuple[dict[str, Any], list[str]]:
    """The emotion that the file gets, and why; and remarks."""
    file = _found(job, path)
    given = labels.read(job.path("labels")) if job.path("labels") else labels.Labels()
    label = labels.of_song([file], given)
    place = ", ".join(f"{number:g}" for number in label.emotion[:3])
    match = emotion.label_for(file.relative)
    why = "--labels" if label.source == "labels" else match.why
    remarks = [f"its folders disagree: {match.against}"] if label.source == "path" and match.against else []
    return {"emotion": f"{label.name} [{place}]", "labelled by": why}, remarks


def _found(job: Job, path: Path) -> Found:
    """The file below the root that contains it; else as it was named. Folders above a root do not name an emotion."""
    for name in ("audio_root", "midi_root"):
        root = job.path(name)
        if root is not None and path.absolute().is_relative_to(root.absolute()):
            return Found(str(root.absolute()), path.absolute().relative_to(root.absolute()).as_posix())
    if path.is_absolute():
        return Found(str(path.parent.parent), f"{path.parent.name}/{path.name}")
    return Found(str(Path.cwd()), path.as_posix())


# -- scores --------------------------------------------------------------------------------------------------------


def _score(job: Job, path: Path) -> Inspected:
    found = layout(path)
    if not len(found.onset):
        raise ValueError("holds no notes")
    tokens = len(encode_tokens(path)["ids"])
    starts = np.cumsum(found.bars) - found.bars
    bars = found.bars[starts <= found.onset.max()]  # the others only let its last notes end
    label, remarks = _label(job, path)
    facts = {
        "notes": len(found.onset),
        "drum strokes": int(found.drum.sum()),
        "first onset (s)": float(found.onset.min()),
        "last onset (s)": float(found.onset.max()),
        "end (s)": float(found.end.max()),
        "tempo (quarters a minute)": _tempi(found.tempi),
        "metre": _metres(found.metres),
        "bars (as tokens have them)": len(bars),
        "a bar lasts (s)": _range(bars.tolist()),
        "tokens": tokens,
    }
    remarks += [f"{count:,} {CHANGES[kind]}" for kind, count in found.changes.items() if count]
    return Inspected(
        "score", facts | label, {"notes by track and program": _parts(found)}, (*remarks, *_mido(path, found))
    )


def _parts(found: Layout) -> list[dict[str, Any]]:
    """A row for the notes of each track, channel and program."""
    key = np.stack([found.track, found.channel, found.drum, found.program])
    rows = []
    for column in np.unique(key, axis=1).T:
        of = (key == column[:, None]).all(axis=0)
        track, channel, drum, program = column.tolist()
        rows.append({
            "track": track + 1, "channel": channel + 1, "program": None if drum else program,
            "instrument": FAMILIES[-1] if drum else FAMILIES[program // 8], "notes": int(of.sum()),
            "first (s)": float(found.onset[of].min()), "last (s)": float(found.onset[of].max()),
            "lowest": int(found.pitch[of].min()), "highest": int(found.pitch[of].max()),
            "velocity": _range(found.velocity[of].tolist()),
        })  # fmt: skip
    return rows


def _tempi(microseconds: Iterable[float]) -> str:
    """Of the tempo events; "120" without any, as MIDI has it."""
    rates = [6e7 / value for value in microseconds] or [120.0]
    changes = sum(a != b for a, b in pairwise(rates))
    return _range(rates) + (f", {changes:,} changes" if changes else "")


def _metres(metres: list[tuple[int, int]]) -> str:
    """Of the time signatures; "4/4" without any, as MIDI has it."""
    names = [f"{above}/{below}" for above, below in metres] or ["4/4"]
    names = [name for at, name in enumerate(names) if at == 0 or name != names[at - 1]]
    return ", ".join(names[:8]) + (f" ... ({len(names):,} in all)" if len(names) > 8 else "")


def _range(values: Iterable[float]) -> str:
    values = list(values)
    low, high = min(values), max(values)
    return f"{low:.4g}" if math.isclose(low, high, rel_tol=1e-3) else f"{low:.4g} to {high:.4g}"


def _mido(path: Path, found: Layout) -> list[str]:
    """In which way mido reads the file differently."""
    import mido
    from mido.midifiles.meta import KeySignatureError

    try:
        file = mido.MidiFile(file=io.BytesIO(path.read_bytes()), clip=True)
    except (OSError, ValueError, EOFError, LookupError, KeySignatureError) as error:
        return [f"mido cannot read it: {type(error).__name__}: {error}"]
    if file.ticks_per_beat <= 0:
        return []  # an SMPTE time base, which mido reads as a number of ticks
    onsets, tempi = [], []
    for track in file.tracks:
        tick = 0
        for message in track:
            tick += message.time
            if message.type == "note_on" and message.velocity:
                onsets.append(tick)
            elif message.type == "set_tempo":
                tempi.append((tick, message.tempo))
    tempi.sort(key=lambda event: event[0])
    columns = np.array(tempi, np.float64).reshape(-1, 2).T
    seconds = TempoMap.of(*columns, float(file.ticks_per_beat)).at(np.array([max(onsets, default=0)], np.float64))[0]
    if len(onsets) == len(found.onset) and abs(seconds - found.onset.max()) <= CLOSE:
        return []
    return [f"mido reads {len(onsets):,} notes, the last at {seconds:.3f} s"]


# -- recordings ----------------------------------------------------------------------------------------------------


def _recording(job: Job, path: Path) -> Inspected:
    import soundfile

    from training.domains.music.audio import encode_audio
    from training.domains.music.sound.decoding import by_ffmpeg, open_sound
    from training.domains.music.sound.mixing import Levels, mix
    from training.domains.music.sound.source import contents

    encoded = encode_audio(path)
    levels, peak, (rate, blocks) = Levels(), 0.0, _opened(open_sound(path))
    for block in blocks:
        levels.add(block, mix(block))
        peak = max(peak, float(np.abs(block).max(initial=0.0)))
    seconds = levels.samples / rate
    label, remarks = _label(job, path)
    facts = {
        "seconds": seconds, "sample rate (Hz)": rate, "channels": levels.channels,
        "peak (dB of full scale)": _decibels(peak), "level (dB of full scale)": _decibels(levels.rms),
        "mixed to one channel as": _mixing(levels.channels, encoded["mix"]), "frames": len(encoded["logmel"]),
    }  # fmt: skip
    why = contents(path).why
    if why:
        remarks.append(f"decoded by ffmpeg: {why}")
    try:
        about = soundfile.info(str(path))
        if about.frames < UNKNOWN and abs(about.duration - seconds) > SHORTER:
            remarks.append(f"its header, as libsndfile reads it, declares {about.duration:,.2f} s")
    except soundfile.LibsndfileError:
        remarks.append("libsndfile cannot read it; ffmpeg decodes it")
    if shutil.which("ffmpeg"):
        try:
            other, blocks = _opened(by_ffmpeg(path))
            length = sum(map(len, blocks)) / other
            if abs(length - seconds) > SHORTER:
                remarks.append(f"ffmpeg alone decodes {length:,.2f} s")
        except ValueError as error:
            remarks.append(f"ffmpeg alone: {error}")
    return Inspected("recording", facts | label, remarks=tuple(remarks))


def _opened(blocks: Any) -> tuple[int, Any]:
    """(sample rate, the blocks that follow it)."""
    return next(blocks), blocks


def _decibels(amplitude: float) -> float | None:
    return round(20 * math.log10(amplitude), 1) if amplitude else None


def _mixing(channels: int, weights: np.ndarray) -> str:
    if channels == 1:
        return "there is one"
    if not len(weights):
        return "their mean"
    if len(weights) == 2:
        return "half of their difference: they cancel each other in the mean"
    return f"channel {int(weights.argmax()) + 1}, the loudest: they cancel each other in the mean"
