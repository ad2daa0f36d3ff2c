"""The samples of an export in the form that the report embeds: pieces with audio and piano roll, and clouds."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from training.domains.music.midi.reader import read_score
from training.report.plots import SIDE, Tick, nice

LOUD = (45, 70, 95)  # velocities at which a note's shade changes
#: General MIDI's sixteen families of eight programs, as the page names them.
INSTRUMENTS = (
    "piano", "tuned percussion", "organ", "guitar", "bass", "strings", "ensemble", "brass", "reed", "pipe",
    "synth lead", "synth pad", "synth effects", "plucked folk instruments", "percussion", "sound effects",
)  # fmt: skip
_NAMES = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")


@dataclass(frozen=True)
class Voice:
    """The notes of one family of instruments in a piano roll."""

    name: str
    colour: int  # 0 to 15; 16: drums
    shades: tuple[tuple[int, str], ...]  # (0 soft ... 3 loud, path)


@dataclass(frozen=True)
class Piece:
    """A generated piece. `audio` is empty if there is no preview."""

    name: str
    midi: str  # data URI
    audio: str  # data URI
    seconds: float
    notes: int
    voices: tuple[Voice, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    summary: str  # notes, length and range, without the instruments
    description: str  # text alternative of the piano roll: with them
    heard: float  # percent of the roll that the preview plays


def data_uri(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def pieces(folder: Path, order: Sequence[str] = ()) -> list[Piece]:
    """Every .mid in `folder`, with its .mp3 if there is one. Raises ValueError for a damaged file."""
    found = sorted(folder.glob("*.mid"), key=lambda p: (order.index(p.stem) if p.stem in order else len(order), p.stem))
    return [_piece(path) for path in found]


def _piece(path: Path) -> Piece:
    try:
        notes = read_score(path).seconds()
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from None
    end = float((notes["onset"] + notes["duration"]).max()) if len(notes) else 1.0
    tones = notes[~notes["drum"]]
    low, high = (int(tones["pitch"].min()) - 2, int(tones["pitch"].max()) + 2) if len(tones) else (58, 74)
    sound = path.with_suffix(".mp3")
    heard = 100.0
    if sound.is_file():
        import soundfile

        heard = round(100 * min(1.0, soundfile.info(sound).duration / end), 2)
    octaves = [p for p in range(low, high + 1) if p % 12 == 0]
    return Piece(
        name=path.stem,
        midi=data_uri(path, "audio/midi"),
        audio=data_uri(sound, "audio/mpeg") if sound.is_file() else "",
        seconds=end,
        notes=len(notes),
        voices=tuple(_voices(notes, end, low, high)),
        across=tuple(Tick(round(100 * s / end, 2), f"{s:g} s") for s in nice(0, end, 5)),
        up=tuple(Tick(round(100 * (high - p + 0.5) / (high - low + 1), 2), f"C{p // 12 - 1}") for p in octaves),
        summary=f"{_summary(notes, tones, end)}.",
        description=_description(notes, tones, end),
        heard=heard,
    )


def _voices(notes: np.ndarray, end: float, low: int, high: int) -> list[Voice]:
    """Rectangles in a square of size SIDE: time to the right, pitch upwards; drums are ticks in the lowest row."""
    colour = np.where(notes["drum"], 16, notes["program"] // 8)
    shade = np.digitize(notes["velocity"], LOUD)
    row = SIDE / (high - low + 1)
    out = []
    for kind in np.unique(colour):
        shades = []
        for level in np.unique(shade[colour == kind]):
            parts = []
            for note in notes[(colour == kind) & (shade == level)]:
                x = SIDE * note["onset"] / end
                wide = 2.0 if kind == 16 else max(1.5, SIDE * note["duration"] / end - 0.6)
                y = SIDE - row if kind == 16 else (high - int(note["pitch"])) * row
                parts.append(f"M{x:.1f} {y + 0.06 * row:.1f}h{wide:.1f}v{0.88 * row:.1f}h-{wide:.1f}z")
            shades.append((int(level), "".join(parts)))
        out.append(Voice("drums" if kind == 16 else INSTRUMENTS[kind], int(kind), tuple(shades)))
    return out


def _summary(notes: np.ndarray, tones: np.ndarray, end: float) -> str:
    if not len(notes):
        return "No notes"
    span = f", from {_pitch(tones['pitch'].min())} to {_pitch(tones['pitch'].max())}" if len(tones) else ""
    return f"{len(notes)} notes in {end:.0f} seconds, {len(notes) / end:.1f} a second{span}"


def _description(notes: np.ndarray, tones: np.ndarray, end: float) -> str:
    kinds = [INSTRUMENTS[k] for k in np.unique(tones["program"] // 8)] + ["drums"] * bool(notes["drum"].any())
    return _summary(notes, tones, end) + (f"; {', '.join(kinds)}." if kinds else ".")


def _pitch(key: int) -> str:
    return f"{_NAMES[int(key) % 12]} {int(key) // 12 - 1}"


# -- clouds --------------------------------------------------------------------------------------------------------


def clouds(folder: Path) -> list[dict[str, Any]]:
    """For each cloud in `clouds.json`: its song, and target and prediction packed for the report's script."""
    try:
        listed = json.loads((folder / "clouds.json").read_text(encoding="utf-8"))
    except FileNotFoundError:  # exported by a version that did not write targets
        return []
    out = []
    for name, about in sorted(listed.items()):
        predicted, target = (np.load(folder / f"{name}{end}", allow_pickle=False) for end in (".npy", ".target.npy"))
        both = np.concatenate([predicted[:, :3], target[:, :3]])
        low = np.minimum(np.percentile(both, 0.1, axis=0), (0.0, 0.2, 0.0))
        high = np.maximum(np.percentile(both, 99.9, axis=0), (1.0, 0.8, 0.8))
        out.append({
            "song": str(about["song"]), "start": float(about["start"]), "emotion": [float(x) for x in about["emotion"]],
            "low": [round(float(x), 4) for x in low], "high": [round(float(x), 4) for x in high],
            "target": packed(target, low, high), "predicted": packed(predicted, low, high),
            "apart": _apart(predicted[:, :3], target[:, :3]),
        })  # fmt: skip
    return out


def packed(cloud: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
    """[n, 10] float32 -> base64 of uint16 positions [n, 3] between `low` and `high`, then uint8 colours [n, 4] and
    properties [n, 3]: 13 bytes per particle."""
    places = np.clip((cloud[:, :3] - low) / (high - low), 0, 1)
    rest = np.clip(cloud[:, 3:], 0, 1)
    bytes_of = np.round(rest * 255).astype(np.uint8)
    data = np.round(places * 65535).astype("<u2").tobytes() + bytes_of[:, :4].tobytes() + bytes_of[:, 4:].tobytes()
    return base64.b64encode(data).decode()


def _apart(some: np.ndarray, others: np.ndarray) -> float:
    """Chamfer distance: mean distance from a point to the nearest one of the other cloud, both ways. A window has
    width 1."""
    ways = (cKDTree(others).query(some)[0].mean(), cKDTree(some).query(others)[0].mean())
    return round(float(np.mean(ways)), 4)
