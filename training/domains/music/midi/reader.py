"""Reads MIDI files: notes on bars and in seconds, with every tempo and metre change of the file.

The file is parsed by symusic and converted with numpy. Conventions:
- a note's program is the one in force on its channel, in its own track, when it starts; channel 10 is drums;
- a note-off ends the oldest sounding note of its pitch, channel and track; a note that never ends is left out;
- a note of length zero lasts 1/128 of its bar; a note is cut nine bars after the piece's last onset;
- with an SMPTE time base, ticks have a fixed length, tempo events are ignored, and a quarter note is half a second.
"""

from __future__ import annotations

import io
import stat
import struct
from pathlib import Path
from typing import NamedTuple

import mido
import numpy as np
import symusic

from training.data.encode import Encoder
from training.domains.music.midi.grids import Bars, TempoMap, bar_lines
from training.domains.music.midi.score import EVENT, MAX_SECONDS, OnBars, Score
from training.domains.music.midi.writer import write_midi

__all__ = ["NOTES", "Score", "encode_notes", "parse", "read_score", "write_midi"]

MAX_BYTES = 64 * 2**20  # a file of 64 MB has ten million events, more than any music
SHORTEST = 1 / 128  # of a bar: the length given to a note of length zero
VERSION = "1"  # of the conventions above; stored notes of another version are read again


def read_score(path: Path) -> Score:
    """The notes and bars of a MIDI file (a valid file without notes gives an empty score).

    Raises ValueError, with the reason, for a file that is not MIDI, malformed, too large, or too long.
    """
    return parse(_bytes(path))


def read_bars(path: Path) -> OnBars:
    """`read_score` for callers that need only positions in bars: faster, without seconds and sorting."""
    piece = _place(_bytes(path))
    return OnBars(piece.notes, piece.bars)


def parse(data: bytes) -> Score:
    """`read_score` on the bytes of a file."""
    piece = _place(data)
    if not len(piece.onset):
        return Score(np.empty(0, EVENT), piece.bars)
    order = _order(piece)
    notes = np.empty(len(order), EVENT)
    for name, column in piece.notes.items():
        notes[name] = column[order]
    notes["onset"] = piece.seconds.at(piece.onset[order])
    notes["duration"] = piece.seconds.at(piece.end[order]) - notes["onset"]
    return Score(notes, piece.bars)


def _bytes(path: Path) -> bytes:
    try:
        about = path.stat()
    except (OSError, ValueError):
        raise ValueError("not a regular file") from None
    if not stat.S_ISREG(about.st_mode):
        raise ValueError("not a regular file")
    if about.st_size > MAX_BYTES:
        raise ValueError(f"too large: {about.st_size:,} bytes, at most {MAX_BYTES:,} are read")
    return path.read_bytes()


class _Piece(NamedTuple):
    """A file's notes, in file order, on its bars; [n] each."""

    onset: np.ndarray  # ticks, int32
    ticks: np.ndarray  # the note's length in the file, int32
    end: np.ndarray  # ticks, float64: cut to the last bar line, and after the onset
    notes: dict[str, np.ndarray]  # the fields of EVENT that are not in seconds
    seconds: TempoMap
    bars: np.ndarray  # float64: each bar's duration in seconds


def _place(data: bytes) -> _Piece:
    per_quarter, smpte, data = _time_base(data)
    try:
        midi = symusic.Score.from_midi(data)
    except (RuntimeError, ValueError, IndexError, OverflowError) as error:
        reason = str(error).removeprefix("MiniMidi: ").removesuffix(": iostream error").strip()
        raise ValueError(f"malformed MIDI: {reason or type(error).__name__}") from None
    onset, ticks, notes = _notes(midi)
    if not len(onset):
        return _Piece(onset, ticks, np.empty(0), notes | dict.fromkeys(_ON_BARS, np.empty(0)), _NO_TEMPO, np.empty(0))
    first, last = int(onset.min()), int(onset.max())
    if first < 0:
        raise ValueError("malformed MIDI: its time runs past 2^31 ticks")

    tempo, metre = _tempo_and_metre(midi, data)
    if smpte:
        tempo = (np.empty(0), np.empty(0))
    seconds = TempoMap.of(*tempo, per_quarter)
    if seconds.at(np.array([last]))[0] > MAX_SECONDS:
        hours = seconds.at(np.array([last]))[0] / 3600
        raise ValueError(f"its last note starts after {hours:,.1f} hours; at most {MAX_SECONDS / 3600:.0f} are read")
    bars = Bars.of(bar_lines(*metre, per_quarter, last))
    begin, end = onset.astype(np.float64), ticks.astype(np.float64)
    bar, position = bars.holding(begin)
    if ticks.min() <= 0:
        end = np.where(ticks > 0, end, SHORTEST * bars.width[bar.astype(np.int64)])
    end += begin
    if end.max() > bars.lines[-1]:
        np.minimum(end, bars.lines[-1], out=end)
    last_bar, length = bars.ending(end)
    length += last_bar - bar
    length -= position
    notes |= {"bar": bar.astype(np.int64), "position": position, "length": length}
    return _Piece(onset, ticks, end, notes, seconds, np.diff(seconds.at(bars.lines)))


_ON_BARS = ("bar", "position", "length")
_NO_TEMPO = TempoMap.of(np.empty(0), np.empty(0), 1.0)


def _time_base(data: bytes) -> tuple[float, bool, bytes]:
    """Ticks per quarter note, whether the base is SMPTE, and the bytes with a time base that the parser accepts."""
    if len(data) < 14 or data[:4] != b"MThd":
        raise ValueError("not a MIDI file: it does not begin with a MIDI header" if data else "an empty file")
    form, _, division = struct.unpack(">HHH", data[8:14])
    if form == 2:
        raise ValueError("MIDI format 2 (independent sequences in one file) is not one piece of music")
    if division == 0:
        raise ValueError("malformed MIDI: its header has 0 ticks per quarter note")
    if not division & 0x8000:
        return float(division), False, data
    frames, ticks = 256 - (division >> 8), division & 0xFF
    if frames not in (24, 25, 29, 30) or not ticks:
        raise ValueError(f"malformed MIDI: an SMPTE time base of {frames} frames a second and {ticks} ticks a frame")
    rate = 30 / 1.001 if frames == 29 else frames  # 29 means 29.97, drop frame
    return rate * ticks / 2, True, data[:12] + struct.pack(">H", 480) + data[14:]


def _notes(midi: symusic.Score) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Onset and length in ticks (int32), and pitch, velocity, program and drum; track by track."""
    tracks = [(track, track.notes.numpy()) for track in midi.tracks if len(track.notes)]
    if not tracks:
        return np.empty(0, np.int32), np.empty(0, np.int32), dict.fromkeys(_HEARD, np.empty(0, np.uint8))
    onset, ticks, pitch, velocity = (
        np.concatenate([columns[name] for _, columns in tracks]) for name in ("time", "duration", "pitch", "velocity")
    )
    counts = [len(columns["time"]) for _, columns in tracks]
    drum = np.array([track.is_drum for track, _ in tracks])
    program = np.array([0 if track.is_drum else track.program for track, _ in tracks], np.uint8)
    columns = pitch, velocity, program.repeat(counts), drum.repeat(counts)
    return onset, ticks, dict(zip(_HEARD, columns, strict=True))


_HEARD = ("pitch", "velocity", "program", "drum")


def _order(piece: _Piece) -> np.ndarray:
    """The notes by onset, program, pitch, drum, velocity and length."""
    notes = piece.notes
    # Pack the columns into one integer per note: sorting those is far faster than sorting by several columns.
    key = piece.onset.astype(np.int64) << 22 | notes["program"].astype(np.int64) << 15
    key |= notes["pitch"].astype(np.int64) << 8
    key |= notes["drum"].astype(np.int64) << 7 | notes["velocity"]
    order = np.argsort(key)
    ordered = key[order]
    tie = ordered[1:] == ordered[:-1]
    if tie.any():  # argsort is not stable: the order of equal keys differs between CPUs
        tied = np.flatnonzero(np.append(tie, False) | np.append(False, tie))
        among = order[tied]
        order[tied] = among[np.lexsort([piece.ticks[among], key[among]])]
    return order


Events = tuple[np.ndarray, ...]


def _tempo_and_metre(midi: symusic.Score, data: bytes) -> tuple[Events, Events]:
    """(tick, microseconds a quarter) and (tick, numerator, denominator), in time order and, within a tick, file order.

    Raises ValueError for a tempo or metre of zero.
    """
    columns = midi.tempos.numpy()
    tempo = (columns["time"], columns["mspq"])
    columns = midi.time_signatures.numpy()
    metre = (columns["time"], columns["numerator"], columns["denominator"])
    if _ambiguous(tempo) or _ambiguous(metre):
        tempo, metre = _in_file_order(data)
    for events, what in ((tempo, "tempo"), (metre, "time signature")):
        if len(events[0]) and (int(events[0].min()) < 0 or min(int(column.min()) for column in events[1:]) <= 0):
            raise ValueError(f"malformed MIDI: a {what} of zero, or past 2^31 ticks")
    return tempo, metre


def _ambiguous(events: Events) -> bool:
    """Whether two different events share a tick: symusic's sort does not keep their order in the file."""
    if len(events[0]) < 2:
        return False
    tie = events[0][1:] == events[0][:-1]
    return bool(tie.any() and any((tie & (column[1:] != column[:-1])).any() for column in events[1:]))


def _in_file_order(data: bytes) -> tuple[Events, Events]:
    """As `_tempo_and_metre`, read with mido, which is slow but keeps the order of events."""
    try:
        tracks = mido.MidiFile(file=io.BytesIO(data), clip=True).tracks
    except (OSError, ValueError, EOFError, IndexError, KeyError) as error:
        raise ValueError(f"malformed MIDI: {error}") from None
    tempo, metre = [], []
    for track in tracks:
        tick = 0
        for message in track:
            tick += message.time
            if message.type == "set_tempo":
                tempo.append((tick, message.tempo))
            elif message.type == "time_signature":
                metre.append((tick, message.numerator, message.denominator))
    tempo.sort(key=lambda event: event[0])  # stable: within a tick, track by track
    metre.sort(key=lambda event: event[0])
    return tuple(np.array(tempo, np.int64).reshape(-1, 2).T), tuple(np.array(metre, np.int64).reshape(-1, 3).T)


def encode_notes(path: Path) -> dict[str, np.ndarray]:
    """{"notes": NOTE array}. Raises ValueError for an unreadable file and for a file without notes."""
    notes = read_score(path).seconds()
    if not len(notes):
        raise ValueError("holds no notes")
    return {"notes": notes}


NOTES = Encoder(kind="notes", version=f"notes-{VERSION}", function=encode_notes, processor=3.0, bytes_per_second=1e7)
