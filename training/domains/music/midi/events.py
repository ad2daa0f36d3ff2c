"""The events of a MIDI file, read from its bytes with numpy.

Nearly all events are channel messages with two data bytes: a delta time (bytes of 128 and more, then one below), the
status byte (128 and more, or left out: running status), two bytes below 128. So the bytes below 128 come in threes, and
a stretch of such events is read without a loop. A loop over the other events finds where these stretches are.

Conventions:
- running status is that of the last channel message, also after sysex and meta events (the standard forbids this;
  programs write it, and players read it in this way);
- a sysex message may be in several packets (F0, then F7); each has its length, and its bytes are never events;
- a track ends with its end-of-track event, or else with its chunk; every MTrk chunk of the file is read, also beyond
  the number in the header; chunks of other kinds are skipped;
- anything else is refused: an event that crosses the end of its track, a data byte of 128 or more, a delta time of more
  than four bytes, fewer tracks than the header announces.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from typing import NamedTuple

import numpy as np

END_OF_TRACK, TEMPO, METRE = 0x2F, 0x51, 0x58
_SYSTEM_DATA = {0xF1: 1, 0xF2: 2, 0xF3: 1, 0xF6: 0, 0xF8: 0, 0xFA: 0, 0xFB: 0, 0xFC: 0, 0xFE: 0}
_SMALL = 2**22  # bytes: in larger files, indices have half the size, which is slower and saves memory
_LONGEST_SYSEX = 512  # bytes kept of a sysex message: more than any message that matters here


class Other(NamedTuple):
    """A tempo, a time signature, a program change or a sysex message."""

    tick: int
    before: int  # number of channel messages (of `Events`) that precede it in the file
    kind: int  # TEMPO, METRE, 0xC0 (program change) or 0xF0 (sysex)
    channel: int  # of a program change
    data: bytes | int  # the program; otherwise the event's bytes, for sysex without F0 and F7


class Events(NamedTuple):
    """The channel messages with two data bytes, [n], track by track in file order; and the other events that matter."""

    tick: np.ndarray  # int64
    status: np.ndarray  # uint8
    first: np.ndarray  # uint8
    second: np.ndarray  # uint8
    track: np.ndarray  # uint8 or int64: the track's number
    others: list[Other]  # track by track, in file order
    end: int  # tick at which the last track ends
    unread: int  # bytes that are no part of a track, or follow its end


def read_events(data: bytes) -> Events:
    """`data`: a file whose header has been checked. Raises ValueError if it is malformed."""
    octets = np.frombuffer(data, np.uint8)
    scan = _Scan(data, octets)
    chunks, unread = _chunks(data)
    for number, (start, stop) in enumerate(chunks, 1):
        try:
            end = scan.track(start, stop)
        except IndexError:
            end = stop + 1
        if end > stop:
            raise ValueError(f"malformed MIDI: EOF inside an event of track {number}")
        unread += len(data[end:stop].strip(b"\0"))
    return scan.events(unread)


def _chunks(data: bytes) -> tuple[list[tuple[int, int]], int]:
    """Where the content of each MTrk chunk starts and stops, and the number of bytes outside of all chunks."""
    announced = int.from_bytes(data[10:12], "big")
    at, chunks, unread = 8 + int.from_bytes(data[4:8], "big"), [], 0
    while at + 8 <= len(data):
        name, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "big")
        stop = at + 8 + length
        if stop > len(data):
            if len(chunks) >= announced:
                break
            raise ValueError(
                f"malformed MIDI: EOF inside track {len(chunks) + 1}: its length is {length:,} bytes, and "
                f"{len(data) - at - 8:,} follow"
            )
        if name == b"MTrk":
            chunks.append((at + 8, stop))
        else:
            unread += 8 + length
        at = stop
    if len(chunks) < announced:
        raise ValueError(f"malformed MIDI: EOF after {len(chunks)} tracks; the header announces {announced}")
    return chunks, unread + len(data[at:].strip(b"\0"))


class _Scan:
    """One pass over the tracks: notes where stretches of two-byte messages are, and reads the other events."""

    def __init__(self, data: bytes, octets: np.ndarray):
        self.data, self.octets = data, octets
        self.lows = np.flatnonzero(octets < 0x80)
        if len(data) > _SMALL:
            self.lows = self.lows.astype(np.int32)
        self.low = memoryview(self.lows)
        # Bytes that may be the status of another event. (They may be part of a delta time or of a text, too.)
        others = (octets >= 0xF0) | (octets & 0xE0 == 0xC0)
        self.candidate = memoryview(np.append(np.flatnonzero(others), len(data) + 1))
        self.next_candidate = 0
        self.next_low = 0
        self.count = 0  # of two-byte messages so far
        self.stretches: list[tuple[int, int, int, int]] = []  # first in lows, messages, first byte, messages before
        self.tracks: list[tuple[int, int]] = []  # messages before the track; ticks from its last message to its end
        self.found: list[tuple[int, int, int, int, int, bytes | int]] = []  # track, ticks since the last message, Other
        self.waits: list[tuple[int, int]] = []  # message; ticks that other events add to its delta time
        # Of the track that is being read:
        self.first = 0  # messages before it
        self.waited = 0  # ticks of other events since its last message
        self.short = 0  # the running status, if it is of a message with one data byte
        self.sysex: bytes | None = None  # a message that is continued in a later packet
        self.ended = False  # by its end-of-track event

    def track(self, at: int, stop: int) -> int:
        """Read the track at bytes `at` to `stop`; returns where its last event ends."""
        low, candidate, first = self.low, self.candidate, self.count
        self.first, self.waited, self.short, self.sysex, self.ended = first, 0, 0, None, False
        while at < stop and not self.ended:
            if not self.short:
                while candidate[self.next_candidate] < at:
                    self.next_candidate += 1
                begin = bisect_left(low, at, self.next_low)
                until = bisect_left(low, min(candidate[self.next_candidate], stop), begin)
                self.next_low = begin
                if messages := (until - begin) // 3:
                    at = self._stretch(begin, messages, at)
                    continue
            at = self._event(at, stop)
        self.tracks.append((first, self.waited))
        return at

    def _event(self, at: int, stop: int) -> int:
        """Read one event; returns where it ends."""
        data = self.data
        delta, place = _length(data, at)
        status = data[place]
        if status < 0x80 and self.short:
            self.waited += delta
            self._found(self.short & 0xF0, self.short & 0xF, status)
            return place + 1
        if status < 0x80 and self.count == self.first:
            raise ValueError(f"malformed MIDI: running status before any status, at byte {place:,}")
        if status < 0xC0 or 0xE0 <= status < 0xF0:  # a candidate byte is in its delta time, or the status was short
            begin = bisect_left(self.low, at, self.next_low)
            if begin + 2 >= len(self.low) or self.low[begin + 2] >= stop:
                return stop + 1
            self.short = 0
            return self._stretch(begin, 1, at)
        self.waited += delta
        if status < 0xE0:
            if data[place + 1] >= 0x80:
                raise ValueError(f"malformed MIDI: a data byte above 127, at byte {place + 1:,}")
            self.short = status
            self._found(status & 0xF0, status & 0xF, data[place + 1])
            return place + 2
        if status == 0xFF:
            kind = data[place + 1]
            length, begin = _length(data, place + 2)
            self.ended = kind == END_OF_TRACK
            if kind in (TEMPO, METRE):
                self._found(kind, 0, data[begin : begin + length])
            return begin + length
        if status in (0xF0, 0xF7):
            length, begin = _length(data, place + 1)
            if begin + length <= stop:
                self._packet(status, data[begin : begin + length])
            return begin + length
        if status in _SYSTEM_DATA:
            return place + 1 + _SYSTEM_DATA[status]
        raise ValueError(f"malformed MIDI: undefined status {status:#x}, at byte {place:,}")

    def _packet(self, status: int, packet: bytes) -> None:
        """A sysex message, the first part of one (F0), or the next part (F7)."""
        if status == 0xF7 and self.sysex is None:
            if packet[:1] != b"\xf0":
                return  # other bytes, to be sent as they are
            packet = packet[1:]
        before = b"" if status == 0xF0 or self.sysex is None else self.sysex
        self.sysex = (before + packet[:_LONGEST_SYSEX])[:_LONGEST_SYSEX]
        if packet[-1:] == b"\xf7":
            self._found(0xF0, 0, self.sysex.removesuffix(b"\xf7"))
            self.sysex = None

    def _found(self, kind: int, channel: int, data: bytes | int) -> None:
        self.found.append((len(self.tracks), self.waited, self.count, kind, channel, data))

    def _stretch(self, begin: int, messages: int, at: int) -> int:
        """Note a stretch of two-byte messages; returns where it ends."""
        self.stretches.append((begin, messages, at, self.count))
        if self.waited:
            self.waits.append((self.count, self.waited))
            self.waited = 0
        self.count += messages
        self.next_low = begin + 3 * messages
        return self.low[self.next_low - 1] + 1

    def events(self, unread: int) -> Events:
        bounds = [first for first, _ in self.tracks] + [self.count]
        sizes = np.diff(bounds)
        track = np.arange(len(sizes), dtype=np.uint8 if len(sizes) < 256 else np.int64).repeat(sizes)
        if self.count:
            tick, status, first, second = self._messages(bounds)
        else:
            tick, status, first, second = np.empty(0, np.int64), *np.empty((3, 0), np.uint8)
        others, last = [], np.append(tick, 0)  # last[-1]: before the first message
        for number, waited, before, kind, channel, data in self.found:
            since = int(last[before - 1]) if before > bounds[number] else 0
            others.append(Other(since + waited, before, kind, channel, data))
        ends = [
            (int(last[stop - 1]) if stop > start else 0) + waited
            for (start, waited), stop in zip(self.tracks, bounds[1:], strict=True)
        ]
        return Events(tick, status, first, second, track, others, max(ends, default=0), unread)

    def _messages(self, bounds: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Tick, status and data of all two-byte messages. `bounds`: of the tracks, among them."""
        octets = self.octets
        parts = [self.lows[begin : begin + 3 * messages] for begin, messages, _, _ in self.stretches]
        lows = parts[0] if len(parts) == 1 else np.concatenate(parts)
        last_of_delta, first, second = np.ascontiguousarray(lows.reshape(-1, 3).T)
        continued = np.empty_like(second)
        np.subtract(last_of_delta[1:], second[:-1], out=continued[1:])
        continued -= 1
        heads = [before for *_, before in self.stretches]  # the first message of each stretch
        continued[heads] = last_of_delta[heads] - [at for _, _, at, _ in self.stretches]
        explicit = first - last_of_delta
        if explicit.max() > 2 or (second - first).max() > 1 or continued.max() > 3:
            wrong = (explicit > 2) | (second - first > 1) | (continued > 3)
            raise ValueError(
                f"malformed MIDI: a data byte above 127, or a delta time of more than four bytes, in the event at byte "
                f"{int((last_of_delta - continued)[wrong.argmax()]):,}"
            )
        delta = octets[last_of_delta].astype(np.int64)
        among = np.flatnonzero(continued > 0)
        shift = 0
        while len(among):
            shift += 1
            delta[among] |= (octets[last_of_delta[among] - shift] & 0x7F).astype(np.int64) << 7 * shift
            among = among[continued[among] > shift]
        for message, waited in self.waits:
            delta[message] += waited

        status = octets[first - 1]
        if explicit.min() < 2:
            starts = [start for start, stop in pairwise(bounds) if stop > start]
            stated = explicit == 2
            if not stated[starts].all():
                at = int((last_of_delta - continued)[starts][~stated[starts]][0])
                raise ValueError(f"malformed MIDI: running status before any status, at byte {at:,}")
            status = status[np.maximum.accumulate(np.where(stated, np.arange(len(stated), dtype=np.int32), 0))]
        tick = delta.cumsum()
        before = [int(tick[start - 1]) if start else 0 for start in bounds]
        for start, stop, ticks in zip(bounds, bounds[1:], before, strict=False):
            if start:
                tick[start:stop] -= ticks
        return tick, status, octets[first], octets[second]


def _length(data: bytes, at: int) -> tuple[int, int]:
    """The variable-length number at byte `at`, and where it ends."""
    value = 0
    for place in range(at, at + 4):
        octet = data[place]
        value = value << 7 | octet & 0x7F
        if octet < 0x80:
            return value, place + 1
    raise ValueError(f"malformed MIDI: a number of more than four bytes, at byte {at:,}")
