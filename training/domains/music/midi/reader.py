"""Reads MIDI files: notes on bars and in seconds, with every tempo and metre change of the file.

The bytes are read in events.py, notes are paired in pairing.py, programs and drum kits are found in channels.py, and
bars in grids.py; each states its conventions. Of these, and of this module:
- a note's program and whether it is a drum follow from what its channel plays when it starts, whichever track set it;
- a note-off ends the oldest sounding note of its pitch, channel and track; no note-on is left out: a note without an
  end lasts until the next of its pitch, or until the end of the piece, and a drum stroke without one a sixteenth note
  at most;
- a note of length zero lasts 1/128 of its bar; a note is cut nine bars after the piece's last onset;
- bars shorter than 1 s are joined, bars longer than 6 s are divided; in a bar in which the tempo changes much, a
  position is a share of the bar's seconds, and elsewhere of its ticks;
- with an SMPTE time base, ticks have a fixed length, tempo events are ignored, and a quarter note is half a second.
"""

from __future__ import annotations

import stat
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from training.data.encode import Encoder
from training.domains.music.midi.channels import played
from training.domains.music.midi.events import METRE, TEMPO, Events, read_events
from training.domains.music.midi.grids import BENT, Bars, TempoMap, bar_lines
from training.domains.music.midi.pairing import NEVER, pair
from training.domains.music.midi.score import EVENT, MAX_SECONDS, OnBars, Score
from training.domains.music.midi.writer import write_midi

__all__ = ["CHANGES", "NOTES", "Score", "encode_notes", "parse", "read_score", "write_midi"]

MAX_BYTES = 64 * 2**20  # a file of 64 MB has ten million events, more than any music
SHORTEST = 1 / 128  # of a bar: the length given to a note of length zero
VERSION = "2"  # of the conventions above; stored notes of another version are read again
LONGEST = 8.25  # bars: longer notes are cut by tokens, whose longest duration is 8 bars, half a step more is rounded
SIXTEENTH = 1 / 4  # of a quarter note: the longest that a drum stroke without an end lasts
#: What is counted in each file because it is not as written.
CHANGES = {
    "endless": "notes without an end (they last until the next of their pitch, or until the end of the piece)",
    "strokes": "drum strokes without an end (they last a sixteenth note at most)",
    "lengthened": "notes of length zero (they last 1/128 of a bar)",
    "clipped": "notes longer than 8 bars (cut to 8 bars in tokens, and nine bars after the last onset)",
    "bars": "bars joined or divided, because they last less than 1 s or more than 6 s",
    "bent": "bars in which the tempo changes so much that positions in tokens are shares of seconds",
    "unread": "bytes after the end of a track, or outside of the tracks",
}


def read_score(path: Path) -> Score:
    """The notes and bars of a MIDI file (a valid file without notes gives an empty score).

    Raises ValueError, with the reason, for a file that is not MIDI, malformed, too large, or too long.
    """
    return parse(_bytes(path))


def read_bars(path: Path) -> OnBars:
    """`read_score` for callers that need only positions in bars: faster, without seconds and sorting."""
    piece = _place(_bytes(path))
    return OnBars(piece.notes, piece.bars, piece.changes)


def parse(data: bytes) -> Score:
    """`read_score` on the bytes of a file."""
    piece = _place(data)
    if not len(piece.onset):
        return Score(np.empty(0, EVENT), piece.bars, piece.changes)
    order = _order(piece)
    notes = np.empty(len(order), EVENT)
    for name, column in piece.notes.items():
        notes[name] = column[order]
    notes["onset"] = piece.seconds.at(piece.onset[order])
    notes["duration"] = piece.seconds.at(piece.end[order]) - notes["onset"]
    return Score(notes, piece.bars, piece.changes)


class Layout(NamedTuple):
    """A file's notes with what plays them, [n] each, and its tempi and metres: for people, not for training."""

    track: np.ndarray  # from 0
    channel: np.ndarray  # from 0
    program: np.ndarray  # 0 for drums
    drum: np.ndarray
    pitch: np.ndarray
    velocity: np.ndarray
    onset: np.ndarray  # seconds
    end: np.ndarray  # seconds
    bars: np.ndarray  # seconds of each bar
    tempi: list[float]  # microseconds a quarter note, in time order; none with an SMPTE time base
    metres: list[tuple[int, int]]
    changes: dict[str, int]  # the keys of CHANGES


def layout(path: Path) -> Layout:
    """The layout of a file. Raises ValueError as `read_score` does."""
    data = _bytes(path)
    piece, events = _place(data), read_events(data)
    start = pair(events).start
    tempo, metre = _tempo_and_metre(events)
    return Layout(
        events.track[start].astype(np.int64), events.status[start] & 0xF, piece.notes["program"], piece.notes["drum"],
        piece.notes["pitch"], piece.notes["velocity"], piece.seconds.at(piece.onset), piece.seconds.at(piece.end),
        piece.bars, [] if _time_base(data)[1] else tempo[1].tolist(),
        [(int(above), int(below)) for _, above, below in zip(*metre, strict=True)], piece.changes,
    )  # fmt: skip


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
    """A file's notes, in any order, on its bars; [n] each."""

    onset: np.ndarray  # ticks, int64
    end: np.ndarray  # ticks, float64: cut to the last bar line, and after the onset
    notes: dict[str, np.ndarray]  # the fields of EVENT that are not in seconds
    seconds: TempoMap
    bars: np.ndarray  # float64: each bar's duration in seconds
    changes: dict[str, int]  # the keys of CHANGES


def _place(data: bytes) -> _Piece:
    per_quarter, smpte = _time_base(data)
    events = read_events(data)
    changes = dict.fromkeys(CHANGES, 0) | {"unread": events.unread}
    start, onset, stop, endless = pair(events)
    notes = dict(zip(_HEARD, (events.first[start], events.second[start], *played(events, start, onset)), strict=True))
    if not len(onset):
        notes |= dict.fromkeys(_ON_BARS, np.empty(0))
        return _Piece(onset, np.empty(0), notes, _NO_TEMPO, np.empty(0), changes)
    last = int(onset.max())
    if last >= 2**31:
        raise ValueError("malformed MIDI: its time runs past 2^31 ticks")

    tempo, metre = _tempo_and_metre(events)
    if smpte:
        tempo = (np.empty(0), np.empty(0))
    seconds = TempoMap.of(*tempo, per_quarter)
    if seconds.at(np.array([last]))[0] > MAX_SECONDS:
        hours = seconds.at(np.array([last]))[0] / 3600
        raise ValueError(f"its last note starts after {hours:,.1f} hours; at most {MAX_SECONDS / 3600:.0f} are read")
    lines, changes["bars"] = bar_lines(metre, per_quarter, last, seconds)
    bars = Bars.of(lines)
    begin = onset.astype(np.float64)
    bar, position = bars.holding(begin)
    end = _ends(begin, stop, endless, notes["drum"], SIXTEENTH * per_quarter, max(events.end, last), changes)
    if (instant := end <= begin).any():
        changes["lengthened"] = int(instant.sum())
        end = np.where(instant, begin + SHORTEST * bars.width[bar.astype(np.int64)], end)
    if end.max() > lines[-1]:
        np.minimum(end, lines[-1], out=end)
    last_bar, length = bars.ending(end)
    line_seconds = seconds.at(lines)
    bent = _bent(bars, seconds, line_seconds, last) if len(seconds.ticks) > 1 else None
    if bent is not None:
        changes["bent"] = int(bent.sum())
        position = _by_seconds(bent, bar, position, begin, seconds, line_seconds)
        length = _by_seconds(bent, last_bar, length, end, seconds, line_seconds)
    length += last_bar - bar
    length -= position
    changes["clipped"] = np.count_nonzero(length > LONGEST)
    notes |= {"bar": bar.astype(np.int64), "position": position, "length": length}
    return _Piece(onset, end, notes, seconds, np.diff(line_seconds), changes)


def _ends(
    begin: np.ndarray,
    stop: np.ndarray,
    endless: np.ndarray | None,
    drum: np.ndarray,
    sixteenth: float,
    piece: int,
    changes: dict[str, int],
) -> np.ndarray:
    """The ticks at which notes end, float64, from those in the file; `piece`: the end of the piece."""
    end = stop.astype(np.float64)
    if endless is not None:
        strokes = endless & drum
        changes |= {"strokes": int(strokes.sum()), "endless": int((endless & ~drum).sum())}
        end = np.where(strokes, np.minimum(end, begin + sixteenth), end)
        end[end == NEVER] = piece
    return end


def _bent(bars: Bars, seconds: TempoMap, line_seconds: np.ndarray, last: int) -> np.ndarray | None:
    """Which bars have a tempo change that would move a note by more than BENT seconds, if any has."""
    ticks, at = seconds.ticks, seconds.seconds
    inside = ticks < bars.lines[np.searchsorted(bars.lines, last, "right")]
    bar = np.searchsorted(bars.lines, ticks[inside], "right") - 1
    length = line_seconds[bar + 1] - line_seconds[bar]
    share = (ticks[inside] - bars.lines[bar]) / bars.width[bar]
    moved = np.abs(line_seconds[bar] + share * length - at[inside]) > BENT
    if not moved.any():
        return None
    bent = np.zeros(len(bars.width), bool)
    bent[bar[moved]] = True
    return bent


def _by_seconds(
    bent: np.ndarray, bar: np.ndarray, share: np.ndarray, ticks: np.ndarray, seconds: TempoMap, lines: np.ndarray
) -> np.ndarray:
    """`share`, of each note's bar, where the bars that are `bent` are measured in seconds. `lines`: in seconds."""
    bar = bar.astype(np.int64)
    among = np.flatnonzero(bent[bar])
    bar = bar[among]
    out = share.copy()
    out[among] = (seconds.at(ticks[among]) - lines[bar]) / (lines[bar + 1] - lines[bar])
    return out


_ON_BARS = ("bar", "position", "length")
_NO_TEMPO = TempoMap.of(np.empty(0), np.empty(0), 1.0)


def _time_base(data: bytes) -> tuple[float, bool]:
    """Ticks per quarter note, and whether the time base is SMPTE. Raises ValueError if the header is not good."""
    if len(data) < 14 or data[:4] != b"MThd":
        raise ValueError("not a MIDI file: it does not begin with a MIDI header" if data else "an empty file")
    size, form, _, division = struct.unpack(">IHHH", data[4:14])
    if size < 6:
        raise ValueError(f"malformed MIDI: a header of {size} bytes")
    if form == 2:
        raise ValueError("MIDI format 2 (independent sequences in one file) is not one piece of music")
    if form > 2:
        raise ValueError(f"malformed MIDI: there is no format {form}")
    if division == 0:
        raise ValueError("malformed MIDI: its header has 0 ticks per quarter note")
    if not division & 0x8000:
        return float(division), False
    frames, ticks = 256 - (division >> 8), division & 0xFF
    if frames not in (24, 25, 29, 30) or not ticks:
        raise ValueError(f"malformed MIDI: an SMPTE time base of {frames} frames a second and {ticks} ticks a frame")
    rate = 30 / 1.001 if frames == 29 else frames  # 29 means 29.97, drop frame
    return rate * ticks / 2, True


_HEARD = ("pitch", "velocity", "program", "drum")


def _order(piece: _Piece) -> np.ndarray:
    """The notes by onset, program, pitch, drum, velocity and length."""
    notes = piece.notes
    # Pack the columns into one integer per note: sorting those is far faster than sorting by several columns.
    key = piece.onset << 22 | notes["program"].astype(np.int64) << 15
    key |= notes["pitch"].astype(np.int64) << 8
    key |= notes["drum"].astype(np.int64) << 7 | notes["velocity"]
    order = np.argsort(key)
    ordered = key[order]
    tie = ordered[1:] == ordered[:-1]
    if tie.any():  # argsort is not stable: the order of equal keys differs between CPUs
        tied = np.flatnonzero(np.append(tie, False) | np.append(False, tie))
        among = order[tied]
        order[tied] = among[np.lexsort([piece.end[among], key[among]])]
    return order


_Columns = tuple[np.ndarray, ...]


def _tempo_and_metre(events: Events) -> tuple[_Columns, _Columns]:
    """(tick, microseconds a quarter) and (tick, numerator, denominator), in time order and, within a tick, file order.

    Raises ValueError for a tempo or metre of zero, or cut short.
    """
    tempo, metre = [], []
    for other in events.others:
        if other.kind == TEMPO:
            _check(len(other.data) >= 3 and any(other.data[:3]), "tempo")
            tempo.append((other.tick, int.from_bytes(other.data[:3], "big")))
        elif other.kind == METRE:
            _check(len(other.data) >= 2 and other.data[0], "time signature")
            metre.append((other.tick, other.data[0], 2.0 ** other.data[1]))
    tempo.sort(key=lambda event: event[0])  # stable: within a tick, track by track
    metre.sort(key=lambda event: event[0])
    return tuple(np.array(tempo, np.float64).reshape(-1, 2).T), tuple(np.array(metre, np.float64).reshape(-1, 3).T)


def _check(good: object, what: str) -> None:
    if not good:
        raise ValueError(f"malformed MIDI: a {what} of zero, or cut short")


def encode_notes(path: Path) -> dict[str, np.ndarray]:
    """{"notes": NOTE array}. Raises ValueError for an unreadable file and for a file without notes."""
    notes = read_score(path).seconds()
    if not len(notes):
        raise ValueError("holds no notes")
    return {"notes": notes}


NOTES = Encoder(kind="notes", version=f"notes-{VERSION}", function=encode_notes, processor=3.0, bytes_per_second=1e7)
