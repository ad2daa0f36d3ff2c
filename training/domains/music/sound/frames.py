"""MPEG audio, Ogg and FLAC: their frames and pages are counted, because their headers may be wrong or be those of the
first of several joined files."""

from __future__ import annotations

import struct
from collections import Counter
from functools import lru_cache
from typing import NamedTuple

from training.domains.music.sound.source import Contents, Source, after_id3

_TRIES = 20_000  # places at which a lost frame is looked for
_LAST_TRIES = 2_000  # places at which the last frame is looked for
_BIG = struct.Struct(">I")

# -- MPEG audio --------------------------------------------------------------------------------------------------------

_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # by the version's bits
_KILOBITS = {  # by whether it is MPEG 1, and the layer
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


class Frame(NamedTuple):
    size: int  # bytes
    samples: int
    rate: int


@lru_cache(1 << 12)
def _frame(head: int) -> Frame | None:
    """The frame of a header without its last nine bits; None if it is not a header. Free-format frames, whose size is
    not in the header, are not recognised."""
    version, layer, padding = head >> 10 & 3, 4 - (head >> 8 & 3), head & 1
    kilobits, rate = head >> 3 & 15, head >> 1 & 3
    if head >> 12 != 0x7FF or version == 1 or layer == 4 or kilobits in (0, 15) or rate == 3:
        return None
    hertz, bits = _RATES[version][rate], 1000 * _KILOBITS[version == 3, layer][kilobits - 1]
    if layer == 1:
        return Frame((12 * bits // hertz + padding) * 4, 384, hertz)
    samples = 1152 if layer == 2 or version == 3 else 576
    return Frame(samples // 8 * bits // hertz + padding, samples, hertz)


def mpeg(source: Source) -> Contents:
    """Count the frames, and compare with the count in the first frame ("Xing" or "Info"), at which libsndfile stops."""
    at, heads, tries = after_id3(source), Counter(), _TRIES
    at = first = _resync(source, at, tries)[0]
    while 0 <= at <= source.size - 4:
        frame = _frame(_BIG.unpack(source.read(at, 4))[0] >> 9)
        if frame is not None:
            heads[frame] += 1
            at += frame.size
        elif (end := _after_tag(source, at)) > at:
            at = end
        else:
            at, tries = _resync(source, at + 1, tries)
    if not heads or tries <= 0:
        return Contents(complete=False, why="its length cannot be counted")
    seconds = sum(count * frame.samples / frame.rate for frame, count in heads.items())
    declared = _declared_frames(source, first)
    count = heads.total() - 1  # the frame with the declaration holds no sound
    if declared is None:
        return Contents(seconds, False, why="its header has no count of frames")
    why = f"its header declares {declared:,} frames of sound, and it holds {count:,}"
    return Contents(seconds, declared >= count - 1, why=why)


def _declared_frames(source: Source, first: int) -> int | None:
    head = source.read(first, 200)
    at = max(head.find(b"Xing"), head.find(b"Info"))
    if at < 0 or len(head) < at + 12:
        return None
    flags, count = struct.unpack(">2I", head[at + 4 : at + 12])
    return count if flags & 1 else None


def _after_tag(source: Source, at: int) -> int:
    """The offset after a tag at `at`; `at` itself if there is none."""
    head = source.read(at, 32)
    if head[:3] == b"TAG":
        return at + 128
    if head[:8] == b"APETAGEX" and len(head) == 32:
        return at + 32 + struct.unpack("<I", head[12:16])[0]
    return after_id3(source, at)


def _resync(source: Source, at: int, tries: int) -> tuple[int, int]:
    """The offset of the next frame that another frame or the end of the file follows, and the tries that are left; -1
    if there is none."""
    while tries > 0:
        at = source.find(b"\xff", at)
        if at < 0 or at > source.size - 4:
            break
        tries -= 1
        frame = _frame(_BIG.unpack(source.read(at, 4))[0] >> 9)
        if frame is not None:
            after = source.read(at + frame.size, 4)
            if len(after) < 4 or _frame(_BIG.unpack(after)[0] >> 9) is not None:
                return at, tries
        at += 1
    return -1, tries


# -- Ogg ---------------------------------------------------------------------------------------------------------------


class _Track(NamedTuple):
    rate: int
    skipped: int  # samples at the beginning that are not played


def ogg(source: Source) -> Contents:
    """Count the samples of every link of a chained (joined) file. libsndfile reads the first link only."""
    links: list[dict[int, _Track]] = []
    ends: list[dict[int, int]] = []
    beginning = False  # whether the last page began a stream: the streams of a link begin together
    at = 0
    while at >= 0 and len(head := source.read(at, 27)) == 27:
        if head[:4] != b"OggS":
            at = source.find(b"OggS", at + 1)
            continue
        flags, granule, serial = struct.unpack("<5xBqI", head[:18])
        body = at + 27 + head[26]
        end = body + sum(source.read(at + 27, head[26]))
        if end > source.size:
            raise ValueError("is truncated: its last page is incomplete")
        if flags & 2:
            if not beginning:
                links.append({})
                ends.append({})
            if (track := _track(source.read(body, 64))) is not None:
                links[-1][serial] = track
        beginning = bool(flags & 2)
        if granule >= 0 and links:
            ends[-1][serial] = granule
        at = end
    lengths = []
    for tracks, last in zip(links, ends, strict=True):
        serial, track = next(iter(tracks.items()), (0, None))
        lengths.append(None if track is None else max(0, last.get(serial, 0) - track.skipped) / track.rate)
    seconds = None if None in lengths or not lengths else sum(lengths)
    if len(links) > 1:
        return Contents(seconds, False, why=f"it is {len(links)} joined recordings")
    return Contents()  # libsndfile knows the length of a single one


def _track(packet: bytes) -> _Track | None:
    """From the first packet of a stream; None for one that is not known sound."""
    if packet[:7] == b"\x01vorbis" and len(packet) >= 16:
        rate, skipped = struct.unpack("<I", packet[12:16])[0], 0
    elif packet[:8] == b"OpusHead" and len(packet) >= 12:
        rate, skipped = 48_000, struct.unpack("<H", packet[10:12])[0]
    elif packet[:5] == b"\x7fFLAC" and len(packet) >= 40:
        rate, skipped = _BIG.unpack(packet[27:31])[0] >> 12, 0
    else:
        return None
    return _Track(rate, skipped) if rate else None


# -- FLAC --------------------------------------------------------------------------------------------------------------

_STREAMINFO = b"\x00\x00\x22"  # the size of the block that every FLAC file begins with


def flac(source: Source, at: int) -> Contents:
    """Compare the length in the header, at which libsndfile stops, with the number in the last frame, and look for
    joined files. `at`: offset of the first header."""
    rate, declared = _stream_info(source, at)
    if not rate:
        return Contents()
    seconds, parts, place = declared / rate, 1, at
    while (place := source.find(b"fLaC", place + 4)) >= 0:
        other, more = _stream_info(source, place)
        if other:
            parts += 1
            seconds += more / other
    if parts > 1:
        return Contents(seconds, False, True, f"it is {parts} joined recordings")
    held = _end_of_last_frame(source, at)
    if declared == 0:
        return Contents(None if held is None else held / rate, False, True, "its header has no length")
    if held is not None and held > declared:
        why = f"its header declares {declared / rate:.1f} s of sound, and it holds {held / rate:.1f} s"
        return Contents(held / rate, False, True, why)
    return Contents()  # a shorter one is truncated, which its decoder notices


def _stream_info(source: Source, at: int) -> tuple[int, int]:
    """Rate and number of samples in a header; (0, 0) if there is none at `at`."""
    head = source.read(at, 42)
    if len(head) < 42 or head[4] & 0x7F or head[5:8] != _STREAMINFO:
        return 0, 0
    packed = struct.unpack(">Q", head[18:26])[0]
    return packed >> 44, packed & (1 << 36) - 1


def _end_of_last_frame(source: Source, at: int) -> int | None:
    """The number of the sample after the last frame. None if no frame is found."""
    at += 4
    while True:  # skip the blocks of the header
        head = source.read(at, 4)
        if len(head) < 4:
            return None
        at += 4 + (_BIG.unpack(head)[0] & 0xFF_FFFF)
        if head[0] & 0x80:
            break
    first = source.read(at, 16)
    opening = _flac_frame(first)
    if opening is None:
        return None
    end = source.size
    for _ in range(_LAST_TRIES):
        end = source.last((b"\xff\xf8", b"\xff\xf9"), at, end)
        if end < 0:
            return None
        head = source.read(end, 16)
        # All frames have the rate and the sample size of the first.
        if head[2:3] and not (head[1] ^ first[1] or (head[2] ^ first[2]) & 0x0F or (head[3] ^ first[3]) & 0x0F):
            found = _flac_frame(head)
            if found is not None:
                number, count = found
                return (number if head[1] & 1 else number * opening[1]) + count
    return None


def _flac_frame(head: bytes) -> tuple[int, int] | None:
    """(number of the frame, or of its first sample; samples in it) from a frame's header; None if it is not one."""
    if len(head) < 16 or head[0] != 0xFF or head[1] & 0xFE != 0xF8:
        return None
    size, rate, lead = head[2] >> 4, head[2] & 15, head[4]
    more = next((count for count, (mask, bits) in enumerate(_LEADS) if lead & mask == bits), None)
    if more is None or size == 0 or rate == 15:
        return None
    number = lead & _LEADS[more][0] ^ lead
    for byte in head[5 : 5 + more]:
        if byte & 0xC0 != 0x80:
            return None
        number = number << 6 | byte & 0x3F
    at = 5 + more
    if size in (6, 7):
        width = size - 5
        count = int.from_bytes(head[at : at + width], "big") + 1
        at += width
    else:
        count = 192 if size == 1 else 576 << size - 2 if size < 6 else 256 << size - 8
    at += {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if at >= len(head) or _crc8(head[:at]) != head[at]:
        return None
    return number, count


#: (mask, bits) of the first byte of a coded number, by how many bytes follow: as in UTF-8, up to 36 bits.
_LEADS = ((0x80, 0), (0xE0, 0xC0), (0xF0, 0xE0), (0xF8, 0xF0), (0xFC, 0xF8), (0xFE, 0xFC), (0xFF, 0xFE))


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07) & 0xFF if crc & 0x80 else crc << 1
    return crc
