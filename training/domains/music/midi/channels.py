"""What the channels of a MIDI file play: the program and drum kit of each note, as a synthesiser hears them.

The tracks of a file share 16 channels. Their events are taken in time order, those of one tick track by track (as
mido.merge_tracks and FluidSynth do).

Channel 10 plays drums. Another channel does while a GS message (use for rhythm part), an XG message (part mode) or a
bank select (controller 0) of 126, 127 (XG) or 120 (GM2) says so; after a GS reset, bank selects do not, because they
select sounds of the MT-32 there. A GM, GS or XG reset restores the kits, not the programs. Channel 10 plays notes while
a GS or XG message says so. Volume, pan, pitch bend and the pedals are not read.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from training.domains.music.midi.events import Events

_BANK_OF_DRUMS = (120, 126, 127)
DRUM_CHANNEL = 9  # counted from 0


def played(events: Events, start: np.ndarray, onset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The program (uint8, 0 for drums) and whether it is a drum of each note. `start`: the note-ons, as indices;
    `onset`: their ticks."""
    channel = events.status[start] & 0xF
    changes = sorted(_changes(events), key=lambda change: change[:2])
    if not changes:
        return np.zeros(len(start), np.uint8), channel == DRUM_CHANNEL
    states = _states(changes)
    if changes[-1][0] < onset.min(initial=2**62):  # nothing changes after the first note
        last = {at >> 59: (program, drum) for at, program, drum in states}
        programs, drums = zip(*(last[number] for number in range(16)), strict=True)
        return np.array(programs, np.uint8)[channel], np.array(drums)[channel]
    keys = np.array([key for key, _, _ in states])
    wanted = channel.astype(np.int64) << 59 | onset << 27 | (2 * start + 1)
    state = np.searchsorted(keys, wanted, "right") - 1
    programs = np.array([program for _, program, _ in states], np.uint8)
    return programs[state], np.array([drum for _, _, drum in states])[state]


def _states(changes: list[tuple[int, int, str, int, object]]) -> list[tuple[int, int, bool]]:
    """(place on the time line of its channel, program, drum) wherever a channel changes, sorted."""
    program, drum = [0] * 16, [channel == DRUM_CHANNEL for channel in range(16)]
    states = [(channel << 59, 0, drum[channel]) for channel in range(16)]
    banks_of_drums = True
    for tick, place, what, of, value in changes:
        concerned = [of]
        if what == "program":
            program[of] = value
        elif what == "kit":
            drum[of] = value
        elif what == "bank":
            if banks_of_drums and of != DRUM_CHANNEL:
                drum[of] = value in _BANK_OF_DRUMS
        else:
            banks_of_drums = value != "GS"
            drum = [channel == DRUM_CHANNEL for channel in range(16)]
            concerned = [*range(16)]
        at = min(tick, 2**32 - 1) << 27 | place
        states += [
            (channel << 59 | at, 0 if drum[channel] else program[channel], drum[channel]) for channel in concerned
        ]
    states.sort(key=lambda state: state[0])  # stable: the last of one place is used
    return states


def _changes(events: Events) -> Iterator[tuple[int, int, str, int, object]]:
    """(tick, place among the messages, what, channel, value), track by track."""
    for other in events.others:
        if other.kind == 0xC0:
            yield other.tick, 2 * other.before, "program", other.channel, other.data
        elif other.kind == 0xF0:
            for what, channel, value in _sysex(other.data):
                yield other.tick, 2 * other.before, what, channel, value
    banks = np.flatnonzero((events.status & 0xF0 == 0xB0) & (events.first == 0))
    columns = (events.tick[banks], banks, events.status[banks] & 0xF, events.second[banks])
    for tick, at, channel, bank in zip(*(column.tolist() for column in columns), strict=True):
        yield tick, 2 * at + 1, "bank", channel, bank


def _sysex(body: bytes) -> Iterator[tuple[str, int, object]]:
    """What a sysex message (without F0 and F7) changes; most change nothing here."""
    if body[:1] == b"\x7e" and body[2:3] == b"\x09":
        yield "reset", 0, "GM"
    elif body[:1] == b"\x41" and body[2:4] == b"\x42\x12" and len(body) > 8:  # Roland GS: address, data, checksum
        high, middle, low, data = body[4], body[5], body[6], body[7:-1]
        if (high, middle, low) == (0x40, 0, 0x7F):
            yield "reset", 0, "GS"
        elif high == 0x40 and middle & 0xF0 == 0x10 and 0 <= 0x15 - low < len(data):
            part = middle & 0xF
            yield "kit", DRUM_CHANNEL if part == 0 else part - (part <= 9), data[0x15 - low] != 0
    elif body[:1] == b"\x43" and len(body) > 6 and body[1] & 0xF0 == 0x10 and body[2] == 0x4C:  # Yamaha XG
        high, part, low, data = body[3], body[4], body[5], body[6:]
        if (high, part, low) == (0, 0, 0x7E):
            yield "reset", 0, "XG"
        elif high == 8 and part < 16 and 0 <= 7 - low < len(data):
            yield "kit", part, data[7 - low] != 0
