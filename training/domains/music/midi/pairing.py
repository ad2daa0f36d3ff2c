"""Note-ons and note-offs become notes.

- A note-off ends the oldest sounding note of its pitch, channel and track.
- Where a pitch then keeps sounding to the end of its track, a note-off is missing. From the last moment at which it was
  silent, it is read as a synthesiser with one voice per pitch plays it: a note-on ends the note before it. What has no
  end in its own track is ended by a note-off in another track, by "all notes off" on its channel, or by the next
  note-on of its pitch, whichever is first; and else by nothing.
- A note-off without a note is ignored.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from training.domains.music.midi.events import Events

NEVER = 2**62
_ALL_OFF = (120, 123, 124, 125, 126, 127)  # controllers that end the notes of a channel


class Paired(NamedTuple):
    """Notes, [n] each: indices into `Events`, ticks, and which have no end of their own."""

    start: np.ndarray  # index of the note-on
    onset: np.ndarray  # int64
    end: np.ndarray  # int64, >= onset; NEVER: nothing ends it
    endless: np.ndarray | None  # bool: ended by the next note-on, or by the end of the piece; None: no note


def pair(events: Events) -> Paired:
    on = (events.status >= 0x90) & (events.second > 0) & (events.status < 0xA0)
    starts, stops = np.flatnonzero(on), np.flatnonzero((events.status < 0xA0) & ~on)
    # Sorting integers of 16 bits is far faster; 32 tracks fit.
    wide = np.uint16 if not len(on) or int(events.track[-1]) < 32 else np.int64
    key = (events.track.astype(wide) << 11) | ((events.status & 0xF).astype(wide) << 7) | events.first
    if len(starts) == len(stops):
        first = starts[np.argsort(key[starts], kind="stable")]
        last = stops[np.argsort(key[stops], kind="stable")]
        if (first < last).all() and (key[first] == key[last]).all():
            return Paired(first, events.tick[first], events.tick[last], None)
    if not len(starts):
        return Paired(starts, events.tick[:0], events.tick[:0], None)
    at = np.flatnonzero(events.status < 0xA0)
    at = at[np.argsort(key[at], kind="stable")]
    return _incomplete(events, at, events.tick[at], on[at], key[at])


def _incomplete(events: Events, at: np.ndarray, tick: np.ndarray, on: np.ndarray, key: np.ndarray) -> Paired:
    """`pair` where note-ons or note-offs are missing. Sorted by `key` (track, channel, pitch), then file order."""
    count = len(on)
    new = np.append(True, key[1:] != key[:-1])
    pitch_of = np.cumsum(new) - 1  # which of the pitches
    first = np.flatnonzero(new)
    step = np.where(on, 1, -1)
    # How many notes sound after each event, where note-offs without a note do not count: the sum of the steps, less its
    # minimum so far. An offset for each pitch keeps the minima of different pitches apart.
    total = np.cumsum(step)
    total -= (total - step)[first][pitch_of]
    offset = pitch_of * (2 * count + 2)
    sounding = total - np.minimum(np.minimum.accumulate(total - offset) + offset, 0)
    before = np.append(0, sounding[:-1])
    before[first] = 0
    orphan = ~on & (before == 0)
    # The open part of each pitch: from its last moment of silence, if it sounds at its end.
    last = np.append(first[1:], count) - 1
    silent = np.zeros(len(first), np.int64)
    opened = np.flatnonzero(on & (before == 0))
    silent[pitch_of[opened]] = opened
    is_open = (np.arange(count) >= silent[pitch_of]) & (sounding[last] > 0)[pitch_of]

    starts, stops = np.flatnonzero(on & ~is_open), np.flatnonzero(~on & ~orphan & ~is_open)
    left = np.flatnonzero(on & is_open)
    following = np.minimum(left + 1, count - 1)
    same = left < last[pitch_of[left]]
    ended = same & ~on[following]
    end = np.where(same, tick[following], NEVER)
    missing = np.flatnonzero(~ended)
    lost = left[missing]
    channel_pitch = key.astype(np.int64) & 0x7FF
    elsewhere = _next_after(channel_pitch[lost], tick[lost], channel_pitch[orphan], tick[orphan])
    controls = np.flatnonzero((events.status & 0xF0 == 0xB0) & np.isin(events.first, _ALL_OFF))
    silenced = _next_after(
        channel_pitch[lost] >> 7, tick[lost], (events.status[controls] & 0xF).astype(np.int64), events.tick[controls]
    )
    sooner = np.minimum(elsewhere, silenced)
    ended[missing] = (sooner <= end[missing]) & (sooner < NEVER)
    end[missing] = np.minimum(end[missing], sooner)
    start = np.concatenate([starts, left])
    endless = np.concatenate([np.zeros(len(starts), bool), ~ended])
    return Paired(at[start], tick[start], np.concatenate([tick[stops], end]), endless)


def _next_after(what: np.ndarray, tick: np.ndarray, of: np.ndarray, at: np.ndarray) -> np.ndarray:
    """For each (what, tick), the first of the events (of, at) with `of` == what and `at` > tick; else NEVER."""
    if not len(of) or not len(what):
        return np.full(len(what), NEVER)
    events = np.sort(of << 44 | at)
    wanted = what << 44 | tick
    place = np.searchsorted(events, wanted, "right")
    found = events[np.minimum(place, len(events) - 1)]
    good = (place < len(events)) & (found >> 44 == what)
    return np.where(good, found & (2**44 - 1), NEVER)
